from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from builder.engine.bake import BakeProgress, failure_of
from builder.errors import BuildFailed, EngineUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def vertex(name: str, **more: object) -> str:
    return json.dumps({"vertexes": [{"digest": f"sha256:{name}", "name": name, **more}]}, indent=2)


def output(name: str, text: str) -> str:
    data = base64.b64encode(text.encode()).decode()
    return json.dumps({"logs": [{"vertex": f"sha256:{name}", "data": data}]})


def test_documents_may_come_in_any_pieces() -> None:
    clock = Clock()
    progress = BakeProgress(clock=clock)
    stream = vertex("install", started="t") + "\n" + vertex("install", started="t", completed="t")
    lines: list[str] = []
    for character in stream:
        clock.now += 0.1
        lines += progress.feed(character)
    assert len(lines) == 1
    assert lines[0].endswith("s  install")
    assert progress.running == {}


def test_cached_and_internal_steps_are_quiet() -> None:
    progress = BakeProgress(clock=Clock())
    stream = vertex("a", started="t", completed="t", cached=True) + vertex(
        "[internal] x", started="t"
    )
    assert list(progress.feed(stream)) == []
    assert "a: cached\n" in progress.take_log()


def test_status_shows_bytes_and_seconds_of_what_runs() -> None:
    clock = Clock()
    progress = BakeProgress(clock=clock)
    list(progress.feed(vertex("exporting", started="t")))
    status = {"vertex": "sha256:exporting", "name": "layers", "current": 1_500_000, "total": 3e9}
    list(progress.feed(json.dumps({"statuses": [status]})))
    clock.now = 12.0
    assert progress.status() == "exporting (layers, 1.5 MB of 3.0 GB) 12.0 s"


def test_the_last_line_of_output_is_the_detail_and_all_of_it_is_logged() -> None:
    progress = BakeProgress(clock=Clock())
    list(progress.feed(vertex("install", started="t") + output("install", "one\ntwo\n")))
    assert progress.status() == "install (two) 0.0 s"
    assert progress.take_log() == ["install: one\n", "install: two\n"]
    assert progress.take_log() == []


def test_a_failed_step_is_reported_with_the_end_of_its_output() -> None:
    progress = BakeProgress(clock=Clock())
    text = "\n".join(f"line {i}" for i in range(100))
    list(progress.feed(vertex("install", started="t") + output("install", text)))
    list(progress.feed(vertex("install", started="t", completed="t", error="exit code: 1")))
    list(progress.feed(vertex("other", started="t", completed="t", error="context canceled")))
    error = failure_of(progress, Path("out/x/build.log"))
    assert isinstance(error, BuildFailed)
    assert len(error.findings) == 1
    assert str(error).startswith("install: exit code: 1\n    line 75\n")
    assert str(error).endswith("line 99 The whole output is in out/x/build.log.")


@pytest.mark.parametrize(
    "words",
    [
        "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        "ERROR: failed to receive status: rpc error: error reading from server: EOF",
    ],
)
def test_an_engine_that_goes_away_is_not_a_failed_image(words: str) -> None:
    progress = BakeProgress(clock=Clock())
    list(progress.feed(vertex("install", started="t") + "\n" + words + "\n"))
    error = failure_of(progress, Path("build.log"))
    assert isinstance(error, EngineUnavailable)
    assert "make engine" in str(error)


def test_a_failure_without_words_still_says_where_to_look() -> None:
    error = failure_of(BakeProgress(clock=Clock()), Path("build.log"))
    assert str(error) == "buildx: failed without a word\n    See build.log."


def test_text_between_documents_is_kept() -> None:
    progress = BakeProgress(clock=Clock())
    list(progress.feed("WARNING: something\n" + vertex("a", started="t")))
    assert progress.stray == ["WARNING: something"]
    assert "sha256:a" in progress.running


def test_a_step_is_named_without_its_mounts() -> None:
    progress = BakeProgress(clock=Clock())
    name = (
        "[stack cuda 1/1] RUN --mount=type=secret,id=uv     --mount=type=bind,x=y     python i.py"
    )
    list(progress.feed(vertex(name, started="t")))
    assert progress.status() == "[stack cuda 1/1] RUN python i.py 0.0 s"
