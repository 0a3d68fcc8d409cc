"""The nearest row that works: follow what the findings propose until none is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from packaging.version import Version

from builder.compat.judge import Board
from builder.compat.values import Gpu, cuda_tag, parse, sm_name
from builder.compat.verdict import Conflict, Verdict

__all__ = ["changes", "nearest", "nearest_to_board"]

_STEPS = 8  # as many values may change
_PATIENCE = 40  # rows tried in all

Config = dict[str, object]


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
    search = _Search({f.rule for f in findings if f.severity == "warn"})
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

    def __init__(self, doubts: set[str]) -> None:
        self._doubts = doubts
        self._patience = _PATIENCE
        self._seen: set[frozenset[tuple[str, object]]] = set()
        self.fallback: Config | None = None

    def better(self, board: Board) -> Board | None:
        """Return the first proposal that helps, else the first that trades clashes."""
        before = board.failures
        level: Board | None = None
        for candidate in self._candidates(board):
            if self._patience == 0:
                return None
            self._patience -= 1
            answer = board.moved(candidate)
            left = answer.failures
            if left == 0 and self._adds_doubt(answer):
                self.fallback = self.fallback or candidate
            elif left < before:
                return answer
            elif left == before and level is None and _clashes(answer) != _clashes(board):
                level = answer
        return None if self.fallback else level

    def _adds_doubt(self, answer: Board) -> bool:
        return any(conflict.rule not in self._doubts for conflict in answer.conflicts())

    def _candidates(self, board: Board) -> Iterator[Config]:
        """Yield rows with one proposal taken up; leaving a key out comes last."""
        proposals = list(_proposals(board.conflicts()))
        proposals.sort(key=lambda proposal: proposal[1] is None)
        for key, value in proposals:
            candidate = _changed(board.config, key, value)
            mark = frozenset(candidate.items())
            if candidate != board.config and mark not in self._seen:
                self._seen.add(mark)
                yield candidate


def _clashes(board: Board) -> set[tuple[str, tuple[str, ...]]]:
    return {(c.rule, c.keys) for c in board.conflicts() if c.severity == "fail"}


def _proposals(findings: Iterable[Conflict]) -> Iterator[tuple[str, str | None]]:
    """Yield proposals in turns: each finding's first for every key, then its second, ..."""
    lists = [
        [(key, value) for value in values]
        for finding in findings
        if finding.severity == "fail"
        for key, values in finding.instead
        if key in finding.keys or key in {"cuda", "index", "flash_attn_source"}
    ]
    for turn in range(max(map(len, lists), default=0)):
        for proposals in lists:
            if turn < len(proposals):
                yield proposals[turn]


def _changed(config: Mapping[str, object], key: str, value: str | None) -> Config:
    """Return `config` with one value changed, and what is said twice changed along."""
    changed = dict(config)
    if value is None:
        changed.pop(key, None)
        return changed
    changed[key] = value
    torch = str(config.get("torch", ""))
    if key == "cuda" and "+" in torch:
        local = "cpu" if value == "cpu" else cuda_tag(value)
        changed["torch"] = f"{Version(torch).public}+{local}"
        if "cuda" not in config:
            del changed["cuda"]
    if key == "gpu" and "sm" in config:
        gpu = parse("gpu", value)[1]
        if isinstance(gpu, Gpu):
            changed["sm"] = sm_name(gpu.sm)
    if key == "index" and key not in config:
        del changed["index"]
    if key == "weights" and "weights_lineage" in config and not value.startswith("yolov12"):
        changed["weights_lineage"] = "upstream"
    return changed


def changes(config: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """Return what differs: key -> new value, None where the key was left out."""
    keys = [*config, *(key for key in other if key not in config)]
    return {key: other.get(key) for key in keys if config.get(key) != other.get(key)}
