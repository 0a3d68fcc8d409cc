"""Judge a config: read it, ask every rule that has what it needs, report all findings at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from builder.compat import rules
from builder.compat.row import read
from builder.compat.rule import RULES, Rule
from builder.compat.verdict import Conflict, Verdict

__all__ = ["all_rules", "judge"]

_ORDER = {"fail": 0, "warn": 1}


def all_rules() -> tuple[Rule, ...]:
    """Return every rule, in the order of reporting."""
    assert rules.__all__, "importing the package registers its rules"
    return tuple(RULES)


@lru_cache(maxsize=4096)
def _applicable(named: frozenset[str], without: frozenset[str]) -> tuple[Rule, ...]:
    return tuple(r for r in all_rules() if r.needs <= named and r.name not in without)


def judge(config: Mapping[str, object], *, without: frozenset[str] = frozenset()) -> Verdict:
    """Judge what `config` names, assuming nothing about the rest; `without` skips rules."""
    row, problems = read(config)
    found: list[Conflict] = list(problems)
    for rule in _applicable(frozenset(row.values), without):
        found += rule(row)
    if len(found) > 1:
        found = sorted(dict.fromkeys(found), key=lambda conflict: _ORDER[conflict.severity])
    return Verdict.of(tuple(found))
