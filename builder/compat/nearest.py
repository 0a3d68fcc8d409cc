"""The nearest row that works: follow what the findings propose until none is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packaging.version import Version

from builder.compat.judge import judge
from builder.compat.values import Gpu, cuda_tag, parse, sm_name
from builder.compat.verdict import Conflict, Verdict

__all__ = ["changes", "nearest"]

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
    verdict = verdict or judge(config, without=without)
    if verdict.verdict != "fail" or any(f.rule == "input" for f in verdict.findings):
        return None
    search = _Search(without, {f.rule for f in verdict.findings if f.severity == "warn"})
    current, answer = dict(config), verdict
    for _ in range(_STEPS):
        step = search.better(current, answer)
        if step is None:
            break
        current, answer = step
        if answer.verdict != "fail":
            return current
    return search.fallback


class _Search:
    """Take up proposals one at a time, as long as each leaves fewer clashes than before."""

    def __init__(self, without: frozenset[str], doubts: set[str]) -> None:
        self._without = without
        self._doubts = doubts
        self._patience = _PATIENCE
        self._seen: set[str] = set()
        self.fallback: Config | None = None

    def better(self, config: Config, verdict: Verdict) -> tuple[Config, Verdict] | None:
        """Return the first proposal that helps, else the best one that does no harm."""
        before = _failures(verdict)
        level: tuple[Config, Verdict] | None = None
        for candidate in self._candidates(config, verdict):
            if self._patience == 0:
                return None
            self._patience -= 1
            answer = judge(candidate, without=self._without)
            left = _failures(answer)
            if left == 0 and self._adds_doubt(answer):
                self.fallback = self.fallback or candidate
            elif left < before:
                return candidate, answer
            elif left == before and level is None and not _same(answer, verdict):
                level = candidate, answer
        return None if self.fallback else level

    def _adds_doubt(self, answer: Verdict) -> bool:
        return any(finding.rule not in self._doubts for finding in answer.findings)

    def _candidates(self, config: Config, verdict: Verdict) -> Iterator[Config]:
        """Yield rows with one proposal taken up; leaving a key out comes last."""
        proposals = list(_proposals(verdict.findings))
        proposals.sort(key=lambda proposal: proposal[1] is None)
        for key, value in proposals:
            candidate = _changed(config, key, value)
            mark = repr(sorted(candidate.items()))
            if candidate != config and mark not in self._seen:
                self._seen.add(mark)
                yield candidate


def _same(one: Verdict, other: Verdict) -> bool:
    """Whether the same rules fail on the same keys: the change achieved nothing."""

    def clashes(verdict: Verdict) -> set[tuple[str, tuple[str, ...]]]:
        return {(f.rule, f.keys) for f in verdict.findings if f.severity == "fail"}

    return clashes(one) == clashes(other)


def _failures(verdict: Verdict) -> int:
    return sum(finding.severity == "fail" for finding in verdict.findings)


def _proposals(findings: tuple[Conflict, ...]) -> Iterator[tuple[str, str | None]]:
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


def _changed(config: Config, key: str, value: str | None) -> Config:
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
