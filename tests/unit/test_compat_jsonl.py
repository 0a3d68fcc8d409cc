"""The stream: one answer a line, whatever the line is."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from builder.compat.jsonl import LONGEST_LINE, run

_GOOD = b'{"id": "good", "config": {"torch": "2.8.0", "cuda": "12.8"}}'


def _answers(text: bytes) -> list[dict[str, Any]]:
    out = io.StringIO()
    assert run(io.BytesIO(text), out) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_answer_has_the_promised_shape() -> None:
    line = b'{"id": "a", "config": {"torch": "2.3.0", "torchvision": "0.19.0"}}\n'
    (answer,) = _answers(line)
    assert list(answer) == ["id", "verdict", "findings", "nearest"]
    assert answer["id"] == "a"
    assert answer["verdict"] == "fail"
    (finding,) = answer["findings"]
    assert list(finding) == ["rule", "severity", "message", "fix", "source", "keys"]
    assert finding["keys"] == ["torch", "torchvision"]
    assert answer["nearest"] == {"torch": "2.3.0", "torchvision": "0.18.0"}


def test_order_and_number_are_kept() -> None:
    lines = [json.dumps({"id": f"n{i}", "config": {"torch": "2.8.0"}}) for i in range(50)]
    lines[7] = "nonsense"
    answers = _answers("\n".join(lines).encode())
    assert [answer["id"] for answer in answers] == [f"n{i}" if i != 7 else None for i in range(50)]
    assert [answer["verdict"] for answer in answers].count("fail") == 1


def test_no_input_no_output() -> None:
    assert _answers(b"") == []


@pytest.mark.parametrize(
    ("line", "name", "says"),
    [
        (b"", None, "not JSON"),
        (b"null", None, "not an object"),
        (b"[1, 2]", None, "not an object"),
        (b'"text"', None, "not an object"),
        (b'{"config": {}}', None, "no id"),
        (b'{"id": null, "config": {}}', None, "no id"),
        (b'{"id": {"a": 1}, "config": {}}', None, "neither text"),
        (b'{"id": true, "config": {}}', None, "neither text"),
        (b'{"id": NaN, "config": {}}', None, "neither text"),
        (b'{"id": "x"}', "x", "no config"),
        (b'{"id": "x", "config": ["torch"]}', "x", "no config"),
        (b'{"id": "x", "id": "y", "config": {}}', "y", "given twice: 'id'"),
        (b'{"id": "x", "config": {"torch": "2.8.0", "torch": "2.9.1"}}', "x", "given twice"),
        (b"[" * 200_000, None, "nested too deeply"),
        (b'{"a":' * 100_000, None, "nested too deeply"),
        (b'{"id": "x", "config": ' + b"[" * 100_000, None, "nested too deeply"),
        (b"\xff\xfe\x00", None, "not UTF-8"),
        (b'{"id": "x", "config": {"torch": "2.8.0"', None, "not JSON"),
        (b'{"id": "x\x00", "config": {}}', None, "not JSON"),
        (b'{"id": ' + b"9" * 5000 + b', "config": {}}', None, "not JSON"),
        (b'{"id": "x", "config": {"torch": "' + b"2" * (5 * LONGEST_LINE) + b'"}}', None, "longer"),
    ],
    ids=range(21),
)
def test_a_hostile_line_does_not_stop_the_others(line: bytes, name: object, says: str) -> None:
    before, hostile, after = _answers(_GOOD + b"\n" + line + b"\n" + _GOOD + b"\n")
    assert before == after
    assert before["verdict"] == "ok"
    assert hostile["verdict"] == "fail"
    assert hostile["id"] == name
    assert hostile["nearest"] is None
    (finding,) = hostile["findings"]
    assert finding["rule"] == "input"
    assert says in finding["message"]
    assert len(finding["message"]) < 300


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("python", 3.1, "YAML and JSON read 3.10 as 3.1"),
        ("torch", float("nan"), "nan is a number"),
        ("torch", float("inf"), "inf is a number"),
        ("torch", "nan", "is not a version"),
        ("torch", "2.8.0\x00\x1b[31m", "is not a version"),
        ("torch", "x" * 5000, "characters long"),
        ("torch", ["2.8.0"], "found a list"),
        ("torch", {"a": {}}, "found an object"),
        ("torch", True, "not text"),
        ("torch", "!!python/object:os.system", "is not a version"),
        ("torch", "", "is not a version"),
        ("cuda", "99999999999999999999", "is not a CUDA version"),
        ("gpu", "\x07", "is not a GPU name"),
        ("index", "somewhere", "neither pypi nor pytorch"),
        ("platform", "sparc", "is not a platform"),
        ("sha256", "abc", "64 hexadecimal"),
        ("half", "maybe", "neither true or false"),
        ("driver", "new", "is not a driver version"),
        ("tensorrt", "tensorrt @ /etc/passwd;;", "is not a requirement"),
        ("jetpack", "six", "is not a JetPack version"),
    ],
)
def test_a_value_that_can_not_be_read(key: str, value: object, says: str) -> None:
    line = json.dumps({"id": 1, "config": {key: value, "ultralytics": "8.3.41"}}).encode()
    (answer,) = _answers(line)
    assert answer["verdict"] == "fail"
    unreadable = [f for f in answer["findings"] if f["rule"] == "input"]
    assert [f["keys"] for f in unreadable] == [[key]]
    assert says in unreadable[0]["message"]
    assert unreadable[0]["message"].isprintable()
    assert len(unreadable[0]["message"]) < 300
    # What can be read is judged all the same.
    assert any(f["rule"] == "ultralytics-release" for f in answer["findings"])


def test_an_unknown_key_is_said_and_not_judged() -> None:
    (answer,) = _answers(b'{"id": 1, "config": {"pyhton": "3.11", "torch": "2.8.0"}}')
    assert answer["verdict"] == "warn"
    assert answer["findings"][0]["fix"] == "Did you mean python?"


def test_null_is_not_named() -> None:
    (answer,) = _answers(b'{"id": 1, "config": {"gpu": null, "torch": "2.8.0"}}')
    assert answer["verdict"] == "ok"


def test_true_and_1_are_not_mixed_up() -> None:
    lines = b'{"id": 1, "config": {"half": true}}\n{"id": 2, "config": {"half": 1}}\n'
    assert [answer["verdict"] for answer in _answers(lines)] == ["ok", "fail"]
