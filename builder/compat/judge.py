"""Judge a config: read it, ask every rule that has what it needs, report all findings at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from builder.compat import rules
from builder.compat.row import read, reread
from builder.compat.rule import RULES, SILENT, Answer, Proposals, Row, Rule
from builder.compat.verdict import Conflict, Verdict

__all__ = ["Board", "all_rules", "judge"]

_ORDER = {"fail": 0, "warn": 1}


def all_rules() -> tuple[Rule, ...]:
    """Return every rule, in the order of reporting."""
    assert rules.__all__, "importing the package registers its rules"
    return tuple(RULES)


class _Scope:
    """What rows that name the same things have in common: the rules that apply."""

    def __init__(self, named: frozenset[str], without: frozenset[str]) -> None:
        self.named = named
        self.without = without
        self.rules = tuple(r for r in all_rules() if r.applies(named) and r.name not in without)
        self._touched: dict[tuple[str, ...], list[Rule]] = {}

    def touched(self, changed: tuple[str, ...]) -> list[Rule]:
        """Return the rules here that mind anything of what changed."""
        found = self._touched.get(changed)
        if found is None:
            names = frozenset(changed)
            found = [rule for rule in self.rules if not names.isdisjoint(rule.minds)]
            self._touched[changed] = found
        return found


_scope = lru_cache(maxsize=8192)(_Scope)


@lru_cache(maxsize=8192)
def _stale(changed: tuple[str, ...]) -> frozenset[Rule]:
    """Return the rules whose answer a change may have made untrue."""
    names = frozenset(changed)
    return frozenset(rule for rule in all_rules() if not names.isdisjoint(rule.minds))


_place = attrgetter("number")


class Board(NamedTuple):
    """A judged row, kept so that a neighbour of it need not be judged from scratch.

    `found` has the answers of the rules that say anything; `failures` is how many of these findings
    make the row impossible; `edits` are the steps that led here from a row judged from scratch;
    `kept` remembers which answers a change leaves true.
    """

    config: Mapping[str, object]
    row: Row
    scope: _Scope
    problems: tuple[Conflict, ...]
    found: Mapping[Rule, Answer]
    failures: int
    edits: Mapping[str, str | None]
    kept: dict[tuple[str, ...], tuple[dict[Rule, Answer], int]]

    @staticmethod
    def of(config: Mapping[str, object], without: frozenset[str] = frozenset()) -> Board:
        """Judge `config` by every rule that applies."""
        row, problems = read(config)
        scope = _scope(row.named, without)
        cells = row.cells
        found = {}
        for rule in scope.rules:
            key = rule.pick(cells)
            answer = rule.seen.get(key) or rule.fresh(key, cells)
            if answer is not SILENT:
                found[rule] = answer
        failures = sum([answer.failures for answer in found.values()])
        return Board(config, row, scope, problems, found, failures, {}, {})

    def moved(self, edits: Mapping[str, str | None], most: int) -> Board | None:
        """Judge a neighbour, by the rules that mind what is different.

        None in `edits` leaves a key out. The answer is None as soon as there are more than `most`
        failures.
        """
        cells, changed, renamed = reread(self.row.cells, edits)
        scope = self.scope
        if renamed:
            scope = _scope(Row(cells).named, scope.without)
        kept, failures = self.kept.get(changed) or self._keep(changed)
        fresh: list[tuple[Rule, Answer]] = []
        touched = scope.touched(changed)
        for rule in touched:
            key = rule.pick(cells)
            answer = rule.seen.get(key) or rule.fresh(key, cells)
            if answer is not SILENT:
                fresh.append((rule, answer))
                failures += answer.failures
                if failures > most:
                    if touched[0] is not rule:
                        # What refuses one neighbour often refuses the next: ask it first.
                        touched.remove(rule)
                        touched.insert(0, rule)
                    return None
        config = _edited(self.config, edits)
        found = {**kept, **dict(fresh)}
        whole = {**self.edits, **edits}
        return Board(config, Row(cells), scope, self.problems, found, failures, whole, {})

    def _keep(self, changed: tuple[str, ...]) -> tuple[dict[Rule, Answer], int]:
        """Return the answers that stay true when `changed` changes, and their failures."""
        stale = _stale(changed)
        kept = {rule: answer for rule, answer in self.found.items() if rule not in stale}
        whole = self.kept[changed] = kept, sum([answer.failures for answer in kept.values()])
        return whole

    def conflicts(self) -> Iterator[Conflict]:
        """Return all findings in the order of the rules."""
        yield from self.problems
        for rule in sorted(self.found, key=_place):
            yield from self.found[rule].conflicts

    def proposals(self) -> list[Proposals]:
        """Return what may help, in the order of the rules."""
        return [
            each for rule in sorted(self.found, key=_place) for each in self.found[rule].proposals
        ]

    def verdict(self) -> Verdict:
        """Return the findings in the order of the rules, failures first."""
        ordered = sorted(self.conflicts(), key=lambda conflict: _ORDER[conflict.severity])
        return Verdict.of(tuple(ordered))


def _edited(config: Mapping[str, object], edits: Mapping[str, str | None]) -> dict[str, object]:
    edited = dict(config)
    for key, value in edits.items():
        if value is None:
            edited.pop(key, None)
        else:
            edited[key] = value
    return edited


def judge(config: Mapping[str, object], *, without: frozenset[str] = frozenset()) -> Verdict:
    """Judge what `config` names, assuming nothing about the rest; `without` skips rules."""
    return Board.of(config, without).verdict()
