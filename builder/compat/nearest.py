"""The nearest row that works: follow what the findings propose until none is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from packaging.version import Version

from builder.compat.judge import Board
from builder.compat.rule import Proposals
from builder.compat.rules.torchvision import visions_for
from builder.compat.values import Gpu, cuda_tag, parse, sm_name
from builder.compat.verdict import Verdict

__all__ = ["changes", "nearest", "nearest_to_board"]

_STEPS = 8  # as many values may change
_PATIENCE = 40  # rows tried in all

Config = dict[str, object]
Edits = dict[str, str | None]


def nearest(
    config: Mapping[str, object],
    verdict: Verdict | None = None,
    *,
    without: frozenset[str] = frozenset(),
) -> Config | None:
    """Return a row that passes with few values changed; None when there is none, or no need."""
    if verdict is not None and verdict.verdict != "fail":
        return None
    return nearest_to_board(Board.of(dict(config), without))


def nearest_to_board(board: Board) -> Config | None:
    """Return the nearest row that passes for a row that is judged already."""
    findings = list(board.conflicts())
    if not board.failures or any(f.rule == "input" for f in findings):
        return None
    search = _Search(board.config, {f.rule for f in findings if f.severity == "warn"})
    for _ in range(_STEPS):
        step = search.better(board)
        if step is None:
            break
        board = step
        if not board.failures:
            return dict(board.config)
    return search.fallback


class _Search:
    """Take up proposals one at a time, as long as each leaves fewer clashes than before."""

    def __init__(self, start: Mapping[str, object], doubts: set[str]) -> None:
        self._start = start
        self._doubts = doubts
        self._patience = _PATIENCE
        self._seen: set[frozenset[tuple[str, object]]] = {frozenset()}
        self.fallback: Config | None = None

    def better(self, board: Board) -> Board | None:
        """Return the first proposal that helps, else the first that trades clashes."""
        before = board.failures
        level: Board | None = None
        clashes = _clashes(board)
        for edits in self._candidates(board):
            if self._patience == 0:
                return None
            self._patience -= 1
            answer = board.moved(edits, before if level is None else before - 1)
            if answer is None:
                continue
            if answer.failures == 0 and self._adds_doubt(answer):
                self.fallback = self.fallback or dict(answer.config)
            elif answer.failures < before:
                return answer
            elif level is None and _clashes(answer) != clashes:
                level = answer
        return None if self.fallback else level

    def _adds_doubt(self, answer: Board) -> bool:
        return any(rule.name not in self._doubts for rule in answer.found)

    def _candidates(self, board: Board) -> Iterator[Edits]:
        """Yield what can be changed, as far as the row that comes of it was not tried before."""
        here = board.config
        start = self._start
        for key, value in _in_turns(board.proposals()):
            if here.get(key) == value:
                continue
            edits = _edits(here, key, value)
            whole = {**board.edits, **edits} if board.edits else edits
            mark = frozenset([item for item in whole.items() if start.get(item[0]) != item[1]])
            if mark not in self._seen:
                self._seen.add(mark)
                yield edits


def _clashes(board: Board) -> set[tuple[str, tuple[str, ...]]]:
    return {(c.rule, c.keys) for c in board.conflicts() if c.severity == "fail"}


def _in_turns(lists: Sequence[Proposals]) -> Iterator[tuple[str, str | None]]:
    """Yield each list's first, then its second, ...; leaving a key out comes last."""
    leaving_out = []
    for turn in range(max(map(len, lists), default=0)):
        for proposals in lists:
            if turn < len(proposals):
                if proposals[turn][1] is None:
                    leaving_out.append(proposals[turn])
                else:
                    yield proposals[turn]
    yield from leaving_out


def _edits(config: Mapping[str, object], key: str, value: str | None) -> Edits:
    """Return what changes with `key`: what is said twice changes along."""
    if value is None:
        return {key: None}
    if key == "index" and key not in config:
        return {}
    edits: Edits = {key: value}
    if key == "cuda":
        torch = str(config.get("torch", ""))
        if "+" in torch:
            local = "cpu" if value == "cpu" else cuda_tag(value)
            renamed = {"torch": f"{Version(torch).public}+{local}"}
            return {**edits, **renamed} if "cuda" in config else {**renamed}
    if key == "torch" and "torchvision" in config:
        edits |= _pair(value, str(config["torchvision"]))
    if key == "gpu" and "sm" in config:
        gpu = parse("gpu", value)[1]
        if isinstance(gpu, Gpu):
            edits["sm"] = sm_name(gpu.sm)
    if key == "weights" and "weights_lineage" in config and not value.startswith("yolov12"):
        edits["weights_lineage"] = "upstream"
    return edits


@lru_cache(maxsize=8192)
def _pair(torch: str, torchvision: str) -> Mapping[str, str]:
    """Return the torchvision that goes with another torch, nothing when the named one does."""
    wanted, named = parse("torch", torch)[1], parse("torchvision", torchvision)[1]
    if not isinstance(wanted, Version) or not isinstance(named, Version):
        return {}
    fitting = visions_for(Version(wanted.public))
    if not fitting or Version(named.public) in fitting:
        return {}
    return {"torchvision": str(fitting[-1])}


def changes(config: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """Return what differs: key -> new value, None where the key was left out."""
    keys = [*config, *(key for key in other if key not in config)]
    return {key: other.get(key) for key in keys if config.get(key) != other.get(key)}
