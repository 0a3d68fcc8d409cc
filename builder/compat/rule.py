"""What a rule is: a function whose parameters are the values it needs.

A parameter without a default is needed: the rule stays silent where a row doesn't name it. One with
the default None is used if it is there. So the signature is the rule's scope.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from builder.compat.verdict import Conflict

__all__ = ["RULES", "Row", "Rule", "fail", "rule", "warn"]

Judge = Callable[..., Iterable[Conflict]]
_MOST = 50_000


class Row(NamedTuple):
    """A row as rules see it: values, the texts they come from, and which named keys those are.

    A derived value (the GPU's capability, the CUDA of a torch build) has the keys it was derived
    from as its origin.
    """

    values: Mapping[str, object]
    texts: Mapping[str, str]
    origins: Mapping[str, tuple[str, ...]]


class Rule:
    """One relation between values."""

    def __init__(self, number: int, name: str, title: str, judge: Judge) -> None:
        self.number = number
        self.name = name
        self.title = title
        self._judge = judge
        parameters = inspect.signature(judge).parameters
        self.reads = tuple(parameters)
        self.needs = frozenset(
            key for key, p in parameters.items() if p.default is inspect.Parameter.empty
        )
        self._seen: dict[tuple[str | None, ...], tuple[Conflict, ...]] = {}

    def __call__(self, row: Row) -> tuple[Conflict, ...]:
        """Return what clashes in `row`, remembered by the texts that the rule reads."""
        texts = row.texts
        key = tuple(map(texts.get, self.reads))
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) > _MOST:
                self._seen.clear()
            found = self._seen[key] = self._fresh(row)
        return found

    def _fresh(self, row: Row) -> tuple[Conflict, ...]:
        values = {name: row.values.get(name) for name in self.reads}
        return tuple(self._named(row, conflict) for conflict in self._judge(**values))

    def _named(self, row: Row, conflict: Conflict) -> Conflict:
        """Return `conflict` with this rule's name, and named keys in place of derived ones."""
        keys = (key for name in conflict.keys for key in row.origins.get(name, ()))
        return conflict._replace(rule=self.name, keys=tuple(dict.fromkeys(keys)))


RULES: list[Rule] = []


def rule(name: str, title: str) -> Callable[[Judge], Judge]:
    """Register the decorated function as the rule `name`; `title` says what it asks."""

    def register(judge: Judge) -> Judge:
        RULES.append(Rule(len(RULES), name, title, judge))
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
