"""What a rule is: a function whose parameters are the values it needs.

A parameter without a default is needed: the rule stays silent where a row doesn't name it. One with
the default None is used if it is there. So the signature is the rule's scope.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from operator import itemgetter
from typing import Any, NamedTuple

from builder.compat.verdict import Conflict

__all__ = ["RULES", "SILENT", "Answer", "Cell", "Cells", "Row", "Rule", "fail", "rule", "warn"]

Judge = Callable[..., Iterable[Conflict]]
_MOST = 50_000


class Cell:
    """One value of a row, and the named keys that it comes from.

    A cell is equal to nothing but itself, and the same text gives the same cell: so tuples of cells
    are quick to hash, and rules remember their answers by them.
    """

    __slots__ = ("origins", "value")

    def __init__(self, value: object, origins: tuple[str, ...]) -> None:
        self.value = value
        self.origins = origins


Cells = dict[str, Cell | None]
"""A cell, or None, for every key and every derived name."""


class Row(NamedTuple):
    """A row as rules see it: named values, and derived ones such as the CUDA of a torch build."""

    cells: Cells

    @property
    def values(self) -> dict[str, object]:
        """What is named or derived."""
        return {name: cell.value for name, cell in self.cells.items() if cell is not None}

    @property
    def named(self) -> frozenset[str]:
        """The names of what is named or derived."""
        return frozenset([name for name, cell in self.cells.items() if cell is not None])

    def origins(self, name: str) -> tuple[str, ...]:
        """The named keys that a value comes from."""
        cell = self.cells[name]
        return () if cell is None else cell.origins


Proposals = tuple[tuple[str, str | None], ...]


class Answer:
    """What a rule says about a row, and how many of its findings make the row impossible.

    Many rows are judged only to be passed over: the findings are put in order when asked for.
    """

    def __init__(self, rule: str, said: Sequence[Conflict], origins: _Origins) -> None:
        self._rule = rule
        self._said = tuple(dict.fromkeys(said)) if len(said) > 1 else tuple(said)
        self._origins = origins
        self._conflicts: tuple[Conflict, ...] | None = None
        self._proposals: tuple[Proposals, ...] | None = None
        self.failures = [conflict.severity for conflict in self._said].count("fail")

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """The findings, with the rule's name, and named keys in place of derived ones."""
        if self._conflicts is None:
            self._conflicts = tuple(
                Conflict(self._rule, *said[1:5], self._keys(said.keys), said.instead)
                for said in self._said
            )
        return self._conflicts

    @property
    def proposals(self) -> tuple[Proposals, ...]:
        """The values that may help: a list for each failure and key."""
        if self._proposals is None:
            self._proposals = tuple(
                tuple((key, value) for value in values)
                for failure in self.conflicts
                if failure.severity == "fail"
                for key, values in failure.instead
                if key in failure.keys or key in _ALWAYS
            )
        return self._proposals

    def _keys(self, names: Iterable[str]) -> tuple[str, ...]:
        known = (self._origins.get(name) for name in names)
        return tuple(dict.fromkeys(key for cell in known if cell for key in cell.origins))


_Origins = Mapping[str, Cell | None]
_ALWAYS = frozenset({"cuda", "index", "flash_attn_source"})
"""What may be proposed to a row that doesn't name it."""

SILENT = Answer("", (), {})


class Rule:
    """One relation between values."""

    def __init__(
        self, number: int, name: str, title: str, judge: Judge, scope: tuple[str, str]
    ) -> None:
        self.number = number
        self.name = name
        self.title = title
        self._judge = judge
        parameters = inspect.signature(judge).parameters
        beside, unless = scope
        self.reads = tuple(parameters)
        self.needs = frozenset(beside.split()) | {
            key for key, p in parameters.items() if p.default is inspect.Parameter.empty
        }
        self.unless = frozenset(unless.split())
        self.minds = self.needs | self.unless | set(parameters)
        self.pick = itemgetter(*self.reads)
        self.seen: dict[object, Answer] = {}

    def applies(self, named: Set[str]) -> bool:
        """Whether a row that names this gives the rule something to look at."""
        return self.needs <= named and self.unless.isdisjoint(named)

    def __call__(self, row: Row) -> tuple[Conflict, ...]:
        """Return what clashes in `row`."""
        return self.answer(row.cells).conflicts

    def answer(self, cells: Cells) -> Answer:
        """Return what clashes, remembered by the cells that the rule reads."""
        key = self.pick(cells)
        return self.seen.get(key) or self.fresh(key, cells)

    def fresh(self, key: object, cells: Cells) -> Answer:
        """Judge what was not seen before."""
        read = {name: cells[name] for name in self.reads}
        said = list(self._judge(**{name: cell and cell.value for name, cell in read.items()}))
        if len(self.seen) > _MOST:
            self.seen.clear()
        answer = self.seen[key] = Answer(self.name, said, read) if said else SILENT
        return answer


RULES: list[Rule] = []


def rule(name: str, title: str, *, beside: str = "", unless: str = "") -> Callable[[Judge], Judge]:
    """Register the decorated function as the rule `name`; `title` says what it asks.

    It is silent unless everything in `beside` is named (space separated), and where anything in
    `unless` is.
    """

    def register(judge: Judge) -> Judge:
        RULES.append(Rule(len(RULES), name, title, judge, (beside, unless)))
        return judge

    return register


Instead = Mapping[str, Iterable[Any]]


def _conflict(severity: str, message: str, keys: str, **more: Any) -> Conflict:
    instead: Instead = more.get("instead") or {}
    tries = tuple(
        (key, tuple(None if value is None else str(value) for value in values))
        for key, values in instead.items()
    )
    return Conflict(
        "",
        severity,
        message,
        more.get("fix", ""),
        more.get("source", ""),
        tuple(keys.split()),
        tries,
    )


def fail(
    message: str, keys: str, *, fix: str = "", source: str = "", instead: Instead | None = None
) -> Conflict:
    """Return a clash between `keys` (space separated) that makes the row impossible."""
    return _conflict("fail", message, keys, fix=fix, source=source, instead=instead)


def warn(
    message: str, keys: str, *, fix: str = "", source: str = "", instead: Instead | None = None
) -> Conflict:
    """Return a doubt about `keys` (space separated): accept the row and say so."""
    return _conflict("warn", message, keys, fix=fix, source=source, instead=instead)
