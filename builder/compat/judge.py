"""Judge a config: read it, ask every rule that has what it needs, report all findings at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from builder.compat import rules
from builder.compat.row import DERIVED, read, reread
from builder.compat.rule import RULES, Row, Rule
from builder.compat.verdict import Conflict, Verdict

__all__ = ["Board", "all_rules", "judge"]

_ORDER = {"fail": 0, "warn": 1}


def all_rules() -> tuple[Rule, ...]:
    """Return every rule, in the order of reporting."""
    assert rules.__all__, "importing the package registers its rules"
    return tuple(RULES)


@lru_cache(maxsize=8192)
def _applicable(named: frozenset[str], without: frozenset[str]) -> tuple[Rule, ...]:
    return tuple(r for r in all_rules() if r.needs <= named and r.name not in without)


@lru_cache(maxsize=8192)
def _touched(changed: frozenset[str]) -> tuple[Rule, ...]:
    return tuple(rule for rule in all_rules() if not changed.isdisjoint(rule.reads))


def _place(rule: Rule) -> int:
    return rule.number


class Board(NamedTuple):
    """A judged row, kept so that a neighbour of it need not be judged from scratch."""

    config: Mapping[str, object]
    row: Row
    without: frozenset[str]
    problems: tuple[Conflict, ...]
    found: Mapping[Rule, tuple[Conflict, ...]]

    @staticmethod
    def of(config: Mapping[str, object], without: frozenset[str] = frozenset()) -> Board:
        """Judge `config` by every rule that applies."""
        row, problems = read(config)
        rules_here = _applicable(frozenset(row.values), without)
        found = {rule: conflicts for rule in rules_here if (conflicts := rule(row))}
        return Board(config, row, without, problems, found)

    def moved(self, config: Mapping[str, object]) -> Board:
        """Judge a neighbour: only the rules that read what is different."""
        keys = [key for key in {**self.config, **config} if self.config.get(key) != config.get(key)]
        row = reread(self.row, config, keys)
        before, after = self.row.texts, row.texts
        changed = frozenset(n for n in (*keys, *DERIVED) if before.get(n) != after.get(n))
        named = row.values.keys()
        found = dict(self.found)
        for rule in _touched(changed):
            found.pop(rule, None)
            if rule.needs <= named and rule.name not in self.without:
                conflicts = rule(row)
                if conflicts:
                    found[rule] = conflicts
        return Board(config, row, self.without, self.problems, found)

    @property
    def failures(self) -> int:
        """How many findings of rules make the row impossible."""
        return sum(c.severity == "fail" for found in self.found.values() for c in found)

    def conflicts(self) -> Iterator[Conflict]:
        """Return all findings in the order of the rules."""
        yield from self.problems
        for rule in sorted(self.found, key=_place):
            yield from self.found[rule]

    def verdict(self) -> Verdict:
        """Return the findings in the order of the rules, failures first."""
        unique = sorted(
            dict.fromkeys(self.conflicts()), key=lambda conflict: _ORDER[conflict.severity]
        )
        return Verdict.of(tuple(unique))


def judge(config: Mapping[str, object], *, without: frozenset[str] = frozenset()) -> Verdict:
    """Judge what `config` names, assuming nothing about the rest; `without` skips rules."""
    return Board.of(config, without).verdict()
