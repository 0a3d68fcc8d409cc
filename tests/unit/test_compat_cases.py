"""Combinations with their true verdicts, and what must hold for every combination."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.compat import judge, nearest
from builder.compat.judge import all_rules
from builder.compat.row import read

_HERE = Path(__file__).parent


def _cases(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = yaml.safe_load((_HERE / name).read_text("utf-8"))["cases"]
    return cases


GIVEN = _cases("compat_cases.yaml")
MORE = _cases("compat_more_cases.yaml") + _cases("compat_rule_cases.yaml")
FAILING = [case["config"] for case in GIVEN + MORE if case["verdict"] == "fail"]

VALUES: dict[str, list[object]] = {
    key: sorted({case["config"][key] for case in GIVEN + MORE if key in case["config"]}, key=str)
    for key in sorted({key for case in GIVEN + MORE for key in case["config"]})
}
"""Every value that some case names, by key: what random combinations are drawn from."""


@pytest.mark.parametrize("case", GIVEN + MORE, ids=lambda case: str(case["id"]))
def test_verdict(case: dict[str, Any]) -> None:
    verdict = judge(case["config"])
    told = [f"{f.severity} {f.rule}: {f.message}" for f in verdict.findings]
    assert verdict.verdict == case["verdict"], told


@st.composite
def combinations(draw: st.DrawFn) -> dict[str, object]:
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=9, unique=True))
    return {key: draw(st.sampled_from(VALUES[key])) for key in keys}


@settings(max_examples=60, deadline=None)
@given(combinations())
def test_dropping_a_key_never_blames_it(config: dict[str, object]) -> None:
    for key in config:
        rest = {name: value for name, value in config.items() if name != key}
        assert all(key not in finding.keys for finding in judge(rest).findings)


@settings(max_examples=60, deadline=None)
@given(combinations(), st.randoms())
def test_the_order_of_keys_does_not_matter(
    config: dict[str, object], shuffled: random.Random
) -> None:
    keys = list(config)
    shuffled.shuffle(keys)
    other = judge({key: config[key] for key in keys})
    assert other.verdict == judge(config).verdict
    assert set(other.findings) == set(judge(config).findings)


@settings(max_examples=60, deadline=None)
@given(combinations())
def test_findings_name_only_what_is_named(config: dict[str, object]) -> None:
    for finding in judge(config).findings:
        assert finding.keys, finding
        assert set(finding.keys) <= set(config), finding


@settings(max_examples=60, deadline=None)
@given(combinations())
def test_the_nearest_row_passes(config: dict[str, object]) -> None:
    other = nearest(config)
    if judge(config).verdict != "fail":
        assert other is None
    elif other is not None:
        assert judge(other).verdict != "fail"
        assert other != config


ODD: list[object] = [
    *("", ".", "0", "12", "v8", "2.8.0rc1", "2.8.0+cu1", "2.*", ">=2", "nan", "9" * 40, "1!2"),
    *("cpu", "tensorrt", "tensorrt<10", "tensorrt-cu14==1", "nvidia/cuda", "a:b@c", "6.0 DP", "5"),
    *("sm_1", "\u0661.\u0662", "NVIDIA", 1, 2.5, True, None, [], {}),
]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(VALUES)),
        st.one_of(st.sampled_from(ODD), st.text(max_size=12)),
        min_size=1,
        max_size=6,
    ),
    combinations(),
)
def test_no_value_breaks_the_judge(odd: dict[str, object], config: dict[str, object]) -> None:
    verdict = judge({**config, **odd})
    assert verdict.verdict in {"ok", "warn", "fail"}
    assert all(finding.message.isprintable() for finding in verdict.findings)


def test_almost_every_failing_case_has_a_nearest_row() -> None:
    inputs = [c for c in FAILING if any(f.rule == "input" for f in judge(c).findings)]
    without = [config for config in FAILING if config not in inputs and nearest(config) is None]
    assert len(without) <= 2, without


def test_the_nearest_row_keeps_the_gpu_where_software_can_change() -> None:
    config = {"torch": "2.3.0", "cuda": "12.1", "flash_attn": "2.6.3", "gpu": "T4"}
    assert nearest(config) == {"torch": "2.3.0", "cuda": "12.1", "gpu": "T4"}


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)
def test_every_rule_fires_somewhere_and_is_silent_elsewhere(rule: Any) -> None:
    rows = [read(case["config"])[0] for case in GIVEN + MORE]
    answers = [rule(row) for row in rows if rule.applies(row.named)]
    assert any(answers), "it never fires"
    assert not all(answers), "it is never silent"


def test_rules_have_unique_names_and_titles() -> None:
    rules = all_rules()
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.title for rule in rules)


def test_findings_say_why_and_what_to_do() -> None:
    for config in FAILING:
        for finding in judge(config).findings:
            assert finding.message
            assert "\n" not in finding.message
            if finding.severity == "fail" and finding.rule != "input":
                assert finding.fix or finding.source or finding.instead, finding


def test_torch_and_torchvision_move_together() -> None:
    """Moving torch alone would only trade one clash for another."""
    config = {"torch": "2.6.0", "torchvision": "0.21.0", "cuda": "12.6", "gpu": "B200"}
    assert nearest(config) == {**config, "torch": "2.7.0", "torchvision": "0.22.0", "cuda": "12.8"}
