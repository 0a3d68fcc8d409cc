"""`build.py check` as it is called: what it prints, where it points, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import build as command_line

_MATRIX = """\
version: "1"
platform: linux/amd64
stacks:
  cu128:
    suite: bookworm
    python: "3.11"
    cuda: "12.8"
    torch: "2.8.0"
    torchvision: "0.23.0"
    tensorrt: tensorrt-cu12==10.9.0.34
    onnxruntime: onnxruntime-gpu==1.23.2
    gpus: [A100, B200]
distributions:
  ultralytics:
    version: "8.4.190"
families:
  yolov8:
    image: yolov8
    distribution: ultralytics
    weights: [yolov8n.pt]
weights:
  yolov8n.pt:
    url: https://github.com/ultralytics/assets/releases/download/v8.4.0/yolov8n.pt
    sha256: f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36
    size: 6549796
    status: verified
    licence: AGPL-3.0-only
    lineage: yolov8
    architecture: yolov8n.yaml
"""
_ROW = "yolov8-cu128"

Check = Callable[..., int]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return a function that checks the matrix with some of its text replaced."""
    monkeypatch.setattr(command_line, "ROOT", tmp_path)

    def run(*options: str, **changes: str) -> int:
        text = _MATRIX
        for key, value in changes.items():
            before = [x for x in _MATRIX.splitlines() if x.strip().startswith(f"{key}:")][-1]
            text = text.replace(before, f"{before.partition(':')[0]}: {value}")
        (tmp_path / "matrix.yaml").write_text(text)
        return command_line.main(["check", *options])

    return run


def _place_of(text: str) -> str:
    """Where `text` begins in the matrix."""
    lines = _MATRIX.splitlines()
    number = next(i for i, line in enumerate(lines) if text in line)
    return f"matrix.yaml:{number + 1}:{lines[number].index(text) + 1}"


def test_a_row_that_works_exits_0(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check() == 0
    assert capsys.readouterr().out == "1 rows can work; 0 warnings\n"


def test_a_failing_row_says_where_what_why_and_what_works(
    check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(torchvision='"0.22.0"') == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(
        f"{_place_of(chr(34) + '2.8.0')}: {_ROW}: torchvision 0.22.0 is made"
    )
    assert "About torch 2.8.0, torchvision 0.22.0 [torchvision-pair; source: package index" in (
        said.err
    )
    assert f"{_ROW}: nearest that works: torchvision 0.23.0" in said.err


def test_all_findings_come_at_once(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(torchvision='"0.22.0"', python='"3.8"', gpus="[A100, P100]") == 4
    told = capsys.readouterr().err
    assert {"torchvision-pair", "torch-python", "torch-gpu"} <= {
        line.partition("[")[2].partition(";")[0] for line in told.splitlines()
    }


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"onnxruntime": "onnxruntime-gpu==1.18.0"}, "onnxruntime-gpu==1.23.2"),
        ({"gpus": "[A100, RTX 4O90]"}, "[A100, B200]"),
        ({"sha256": "a" * 64}, "yolov8n.pt:"),
        ({"version": '"8.4.99999"'}, '"8.4.190"'),
        ({"tensorrt": "tensorrt-cu13==11.4.0.106"}, "tensorrt-cu12==10.9.0.34"),
    ],
    ids=["onnxruntime", "gpu", "hash", "ultralytics", "tensorrt"],
)
def test_a_finding_points_into_the_file(
    check: Check, capsys: pytest.CaptureFixture[str], change: dict[str, str], place: str
) -> None:
    assert check(**change) in {0, 4}
    line = _place_of(place).split(":")[1]
    assert f"matrix.yaml:{line}:" in capsys.readouterr().err


def test_warnings_stop_nothing(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tensorrt="tensorrt-cu12==10.9") == 0
    said = capsys.readouterr()
    assert said.err.startswith(
        f"warning: {_place_of('tensorrt-cu12')}: {_ROW}: tensorrt-cu12==10.9"
    )
    assert said.out == "1 rows can work; 1 warnings\n"


def test_json_is_one_document(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--json", torchvision='"0.22.0"') == 4
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row) == ["id", "verdict", "minimum_driver", "findings", "nearest"]
    assert (row["id"], row["verdict"], row["minimum_driver"]) == (_ROW, "fail", "570.26")
    assert row["nearest"] == {"torchvision": "0.23.0"}
    (finding,) = row["findings"]
    assert list(finding) == ["rule", "severity", "message", "fix", "source", "keys", "place"]
    assert finding["keys"] == ["torch", "torchvision"]
    assert finding["place"] == _place_of('"2.8.0"')


def test_the_nearest_row_serves_every_gpu(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    old = "tensorrt-cu12==10.3.0"
    assert check("--json", tensorrt=old, gpus="[T4, B200]") == 4
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row["nearest"]) == ["tensorrt"]
    assert check(tensorrt=row["nearest"]["tensorrt"], gpus="[T4, B200]") == 0


def test_why_tells_what_passed_too(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--why", _ROW, torchvision='"0.22.0"') == 0
    told = capsys.readouterr().out
    assert "  ok    torch-gpu: " in told
    assert "  fail  torchvision-pair: " in told
    assert "least driver: 570.26" in told
    assert "Nearest row that works: torchvision 0.23.0" in told


def test_a_hostile_line_does_not_stop_the_others(root: Path) -> None:
    good = '{"id": "good", "config": {"torch": "2.8.0", "cuda": "12.8"}}'
    bad = '{"id": "bad", "config": {"torch": "9.9.0"}}'
    done = subprocess.run(
        [sys.executable, "build.py", "check", "--jsonl"],
        cwd=root,
        input="\n".join([good, "[" * 50_000, "\x00", bad, good]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == ["good", None, None, "bad", "good"]
    assert [answer["verdict"] for answer in answers] == ["ok", "fail", "fail", "fail", "ok"]


class _Host(BaseHTTPRequestHandler):
    """An index with torch and torchvision, and a checkpoint of five bytes."""

    def do_GET(self) -> None:
        name = self.path.strip("/").rpartition("/")[2]
        version = {"torch": "2.8.0", "torchvision": "0.23.0"}.get(name, "")
        self._send(f"{name}-{version}-cp311-cp311-manylinux_2_28_x86_64.whl".encode())

    def do_HEAD(self) -> None:
        self._send(b"12345")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what makes this machine one that knows an index, and reaches the rest by a proxy."""

    def configure(index: str, proxy: str) -> None:
        for name in ("NO_PROXY", "no_proxy", "http_proxy", "https_proxy", "UV_DEFAULT_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index}/simple")
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    return configure


_NOBODY = "http://127.0.0.1:9"


def test_a_file_that_is_different_there_is_a_failure(
    check: Check,
    online: Callable[[str, str], None],
    host: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    online(host, _NOBODY)
    assert check("--online", url=f"{host}/yolov8n.pt") == 4
    told = capsys.readouterr().err
    assert "yolov8n.pt has 5 bytes there, 6549796 were expected" in told
    assert "nearest that works" not in told
    assert "torch 2.8.0" not in told
    assert "could not ask for docker.io/library/debian:bookworm-slim: registry-1.docker.io" in told


def test_hosts_that_are_not_reached_are_named_and_stop_nothing(
    check: Check, online: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    online(_NOBODY, _NOBODY)
    assert check("--online") == 0
    warned = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning: ")]
    for what in ("torch 2.8.0: 127.0.0.1", "yolov8n.pt: github.com", "-slim: registry-1.docker.io"):
        assert any(f"{what} is unreachable" in line for line in warned), what
