"""Why a row was judged as it was: every rule that had something to look at, passed ones too."""

from __future__ import annotations

from collections.abc import Mapping

from builder.compat.check import SKIPPED, check, configs_of, minimum_driver, nearest_to
from builder.compat.judge import all_rules
from builder.compat.row import read
from builder.compat.rule import Row, Rule
from builder.compat.verdict import Conflict
from builder.spec import ImageSpec

__all__ = ["in_words", "why"]


def why(spec: ImageSpec) -> str:
    """Return the whole reasoning for a row as text."""
    verdict = check(spec)
    lines = [f"{spec.id}: {verdict.verdict}", ""]
    lines += [f"  {key}: {value}" for key, value in _shown(spec).items()]
    judged = {finding.rule: finding for finding in verdict.findings}
    told: set[tuple[str, ...]] = set()
    for number, config in enumerate(configs_of(spec)):
        fresh = []
        for told_rule in _rules(config, judged, passed=number == 0):
            if tuple(told_rule) not in told:
                told.add(tuple(told_rule))
                fresh += told_rule
        lines += ["", f"{_about(config)}:", *(fresh or ["  nothing further"])]
    if verdict.verdict == "fail":
        lines += ["", f"Nearest row that works: {in_words(nearest_to(spec))}"]
    return "\n".join(lines) + "\n"


def _shown(spec: ImageSpec) -> dict[str, object]:
    config = dict(configs_of(spec)[0])
    for key in ("gpu", "weights", "sha256", "asset_tag", "weights_lineage"):
        config.pop(key, None)
    gpus = spec.stack.gpus
    return {
        **config,
        "gpus": ", ".join(gpus) or "none",
        "weights": ", ".join(weight.name for weight in spec.weights),
        "least driver": minimum_driver(spec.stack.cuda, gpus) or "none needed",
    }


def _about(config: Mapping[str, object]) -> str:
    return ", ".join(str(config[key]) for key in ("gpu", "weights") if key in config) or "no GPU"


def _rules(
    config: Mapping[str, object], judged: Mapping[str, Conflict], *, passed: bool
) -> list[list[str]]:
    """Return a block of lines per rule that had something to look at."""
    row, problems = read(config)
    blocks = [_finding(problem) for problem in problems]
    for rule in all_rules():
        if rule.name in SKIPPED or not rule.applies(row.named):
            continue
        found = rule(row)
        # What one GPU can't do may be no more than a doubt about the row: see check().
        blocks += [_finding(c._replace(severity=judged.get(c.rule, c).severity)) for c in found]
        if passed and not found:
            blocks.append(_passed(rule, row))
    return blocks


def _passed(rule: Rule, row: Row) -> list[str]:
    keys = dict.fromkeys(key for name in rule.reads for key in row.origins(name))
    return [f"  ok    {rule.name}: {rule.title} ({', '.join(keys)})"]


def _finding(conflict: Conflict) -> list[str]:
    lines = [f"  {conflict.severity}  {conflict.rule}: {conflict.message}"]
    if conflict.fix:
        lines.append(f"        {conflict.fix}")
    if conflict.source:
        lines.append(f"        Source: {conflict.source}")
    return lines


def in_words(changed: Mapping[str, object] | None) -> str:
    """Return what to change as text: `torch 2.8.0, without flash_attn`."""
    if changed is None:
        return "none is known"
    return ", ".join(
        f"{key} {value}" if value is not None else f"without {key}"
        for key, value in changed.items()
    )
