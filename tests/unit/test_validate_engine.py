from __future__ import annotations

import docker
import pytest
import requests
from docker.errors import APIError, DockerException, NotFound

from builder.engine import client as engine
from builder.engine.client import (
    ContainerLost,
    EngineLost,
    EngineTrouble,
    StartRefused,
    engine_errors,
)
from builder.engine.containers import Limits, Mount, Request, _collect, _options
from builder.errors import EngineUnavailable
from tests.unit.validate_support import ROOT_FOLDER


def response(status: int) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    return answer


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (NotFound("x", response=response(404), explanation="No such container"), ContainerLost),
        (APIError("x", response=response(409), explanation="c is not running"), ContainerLost),
        (APIError("x", response=response(500), explanation="no such device"), StartRefused),
        (requests.ConnectionError("refused"), EngineLost),
        (DockerException("no socket"), EngineLost),
        (ConnectionResetError("reset"), EngineLost),
    ],
)
def test_what_the_sdk_raises_is_told_apart(raised: Exception, kind: type[EngineTrouble]) -> None:
    with pytest.raises(kind, match=r"^doing a thing: "), engine_errors("doing a thing"):
        raise raised


def test_no_engine_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> None:
        raise DockerException("connection refused")

    monkeypatch.setattr(docker, "from_env", refuse)
    with pytest.raises(EngineUnavailable, match="make engine"):
        engine.connect()


def test_inspect_is_typed() -> None:
    raw = {
        "Id": "sha256:1",
        "RepoDigests": ["host:5000/a/b@sha256:2"],
        "Os": "linux",
        "Architecture": "amd64",
        "Size": 7,
        "Config": {"Env": ["A=b=c", "EMPTY="], "Entrypoint": ["tini"], "Cmd": "sh", "User": None},
    }
    facts = engine._facts("x", raw, [{"CreatedBy": "RUN x", "Size": 5}])
    assert (facts.id, facts.digest, facts.platform) == ("sha256:1", "sha256:2", "linux/amd64")
    assert facts.env == {"A": "b=c", "EMPTY": ""}
    assert (facts.entrypoint, facts.command) == (("tini",), ("/bin/sh", "-c", "sh"))
    assert facts.layers[0].size == 5
    assert engine._facts("x", {"Id": "sha256:1"}, []).digest == "sha256:1"


def test_output_is_bounded_per_stream() -> None:
    assert _collect([(1, b"abc"), (2, b"x"), (1, b"def")], 4) == (b"abcd", b"x", True)
    assert _collect([], 4) == (b"", b"", False)


def test_containers_are_fenced_in() -> None:
    request = Request(
        image="x",
        gpus=True,
        limits=Limits(cpus=1.5),
        mounts=[Mount(source=ROOT_FOLDER, target="/a")],
    )
    options = _options(request)
    assert options["network_mode"] == "none"
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["nano_cpus"] == 1_500_000_000
    assert options["mounts"][0]["ReadOnly"] is True
    assert options["device_requests"][0]["Capabilities"] == [["gpu"]]
    assert "device_requests" not in _options(Request(image="x"))
    assert "entrypoint" not in _options(Request(image="x"))
