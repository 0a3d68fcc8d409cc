from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.validate_support import gpu_document
from validate.checks import CheckFailed
from validate.facts import CommandRun, Environment, Gpu, ProbeError, document_of, parse_probe

GOOD = {"hash": "x", "files": 3, "distributions": {"torch": "2.8.0"}}


def document(**changes: Any) -> bytes:
    sections = {"environment": {"seconds": 0.1, "facts": GOOD}}
    answer = {"schema_version": 1, "sections": sections, "network": [], "installers": []}
    return json.dumps(answer | changes).encode()


def section(**facts: Any) -> bytes:
    return document(sections={"environment": {"seconds": 0.1, "facts": GOOD | facts}})


def test_a_good_document() -> None:
    answer = parse_probe(document(), "environment", Environment)
    assert answer.facts.distributions == {"torch": "2.8.0"}


def test_the_constructed_gpu_document_has_the_probe_s_format() -> None:
    assert parse_probe(gpu_document(), "gpu", Gpu).facts.available


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not its JSON document"),
        (b"Downloading...\n{}", "not its JSON document"),
        (document()[:-9], "not its JSON document"),
        (b"\xff\xfe", "not its JSON document"),
        (document(schema_version=2), "schema_version"),
        (document(sections={}), "no section 'environment'"),
        (document(extra=1), "extra"),
        (document(network=[{"phase": "x", "what": "y" * 9000}]), "network.0.what"),
        (document(network=[{"phase": "", "what": ""}] * 101), "network"),
        (section(files=-1), "files"),
        (section(files="many"), "files"),
        (section(hash="x" * 9000), "hash"),
        (section(verdict="PASSED"), "verdict"),
    ],
)
def test_hostile_output_is_an_error_of_the_probe(text: bytes, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        parse_probe(text, "environment", Environment)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_are_finite(number: str) -> None:
    text = document().replace(b'"seconds": 0.1', f'"seconds": {number}'.encode())
    with pytest.raises(ProbeError):
        parse_probe(text, "environment", Environment)


def test_a_section_that_broke_says_how() -> None:
    broken = {"environment": {"seconds": 0.1, "error": "KeyError: 'x'", "trace": "line 3"}}
    with pytest.raises(ProbeError, match="KeyError: 'x'\nline 3"):
        parse_probe(document(sections=broken), "environment", Environment)


def run(stdout: str, code: int = 0) -> CommandRun:
    return CommandRun(
        argv=("info", "--json"), exit_code=code, seconds=1.0, stdout=stdout, stderr="Boom"
    )


def test_a_command_s_document() -> None:
    assert document_of(run('{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (run("{}", code=1), "ended with code 1: Boom"),
        (run("hello"), "no JSON document"),
        (run("[1]"), "no JSON object"),
    ],
)
def test_a_command_without_a_document_fails_the_check(bad: CommandRun, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        document_of(bad)
