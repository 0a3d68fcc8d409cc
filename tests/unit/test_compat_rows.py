"""Rows of a matrix: all GPUs and checkpoints in one verdict, the derived driver, the reasoning."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from builder.compat import check, minimum_driver, nearest_to, sms_for
from builder.compat.online import Addresses, ask, remotes_of
from builder.compat.why import why
from builder.spec import FlashAttention, ImageSpec, StackSpec, TensorRT, Weight

_STACK = StackSpec(
    name="cu128",
    suite="bookworm",
    python="3.11",
    cuda="12.8",
    index="pypi",
    torch="2.8.0",
    torchvision="0.23.0",
    tensorrt=TensorRT(package="tensorrt-cu12", version="10.9.0.34"),
    onnxruntime="onnxruntime-gpu==1.23.2",
    gpus=("T4", "A100", "B200"),
)
_TURBO = Weight(
    name="yolov12n.pt",
    url="https://github.com/sunsmarterjie/yolov12/releases/download/turbo/yolov12n.pt",
    sha256="37080c2891b94c62998f0bfb552dd70c32f9f2ee36618b9e7b3da49b49e150ac",
    size=5515407,
    licence="AGPL-3.0-only",
    lineage="turbo",
    architecture="yolov12n.yaml",
    status="verified",
)
ROW = ImageSpec(
    id="yolov12-fork-cu128",
    family="yolov12-fork",
    image="yolov12",
    archive=None,
    requirements=(),
    distribution="yolov12-fork",
    ultralytics="8.3.63",
    platform="linux/amd64",
    stack=_STACK,
    flash_attn=None,
    weights=(_TURBO,),
)


def _with(**stack: object) -> ImageSpec:
    return dataclasses.replace(ROW, stack=dataclasses.replace(_STACK, **stack))  # type: ignore[arg-type]  # fields by name


def test_a_good_row_passes() -> None:
    assert check(ROW).verdict == "ok", check(ROW).findings


def test_every_gpu_is_judged_and_named() -> None:
    verdict = check(_with(gpus=("T4", "V100", "P100")))
    assert verdict.verdict == "fail"
    about = {f.message.partition(":")[0] for f in verdict.findings if f.rule == "torch-gpu"}
    assert about == {"P100"}
    assert any(f.rule == "tensorrt-gpu" and "V100" in f.message for f in verdict.findings)


def test_a_declared_gpu_that_nobody_knows_is_a_mistake() -> None:
    verdict = check(_with(gpus=("T4", "RTX 4O90")))
    assert [(f.severity, f.rule) for f in verdict.findings] == [("fail", "gpu-known")]


def test_all_findings_come_at_once() -> None:
    verdict = check(_with(torchvision="0.22.0", python="3.8", gpus=("P100",)))
    rules = {finding.rule for finding in verdict.findings}
    assert {"torchvision-pair", "torch-python", "torch-gpu", "tensorrt-gpu"} <= rules


def test_a_gpu_without_flash_attention_is_a_doubt_beside_one_that_has_it() -> None:
    row = dataclasses.replace(ROW, flash_attn=FlashAttention(version="2.8.3", source="wheel"))
    assert check(row).verdict == "warn"
    alone = dataclasses.replace(row, stack=dataclasses.replace(_STACK, gpus=("T4",)))
    assert check(alone).verdict == "fail"


def test_every_checkpoint_is_judged() -> None:
    wrong = dataclasses.replace(_TURBO, name="yolo12n.pt")
    row = dataclasses.replace(ROW, weights=(_TURBO, wrong))
    assert check(row).verdict == "fail"


def test_a_finding_becomes_the_toolkits_finding() -> None:
    (finding,) = check(_with(torchvision="0.22.0")).findings
    shown = str(finding.finding("matrix.yaml:14:18"))
    assert shown.startswith("matrix.yaml:14:18: torch, torchvision: torchvision 0.22.0 is made for")
    assert "Use torchvision 0.23.0. Source: " in shown


def test_the_nearest_row_is_what_to_change() -> None:
    assert nearest_to(ROW) is None
    assert nearest_to(_with(torchvision="0.22.0")) == {"torchvision": "0.23.0"}


@pytest.mark.parametrize(
    ("cuda", "gpus", "driver"),
    [
        ("12.1", ("T4", "A100"), "525.60.13"),
        ("12.8", ("T4", "B200"), "570.26"),
        ("12.9", ("B200", "B300"), "575.51.03"),
        ("13.0", ("T4", "B200"), "580.65.06"),
        ("11.8", ("T4",), "450.80.02"),
        ("11.8", ("T4", "H100"), "520.61.05"),
        ("12.6", ("Jetson AGX Orin",), "525.60.13"),
        (None, (), None),
    ],
)
def test_the_least_driver(cuda: str | None, gpus: tuple[str, ...], driver: str | None) -> None:
    assert minimum_driver(cuda, gpus) == driver


def test_capabilities_of_gpus() -> None:
    assert sms_for(("B200", "T4", "L4", "L40S")) == ("sm_75", "sm_89", "sm_100")
    with pytest.raises(ValueError, match="RTX 9999"):
        sms_for(("RTX 9999",))


def test_why_tells_passed_rules_too() -> None:
    text = why(ROW)
    assert text.startswith("yolov12-fork-cu128: ok\n")
    assert "  ok    torch-gpu: torch has kernels for this GPU (torch, gpu, cuda, platform)" in text
    assert "least driver: 570.26" in text


def test_why_tells_what_fails_and_the_nearest_row() -> None:
    text = why(_with(torchvision="0.22.0"))
    assert "  fail  torchvision-pair: " in text
    assert "Nearest row that works: torchvision 0.23.0" in text


class _Host(BaseHTTPRequestHandler):
    """Answers as hosts do: a listing, a file with a size, a registry that wants a token."""

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._send(200, b'{"token": "t"}')
        elif self.path == "/simple/torch/":
            self._send(200, b"torch-2.8.0-cp311-cp311-manylinux_2_28_x86_64.whl")
        elif self.path == "/simple/torchvision/":
            self._send(200, b"torchvision-0.24.0-cp311-cp311-manylinux_2_28_x86_64.whl")
        else:
            self._send(404, b"")

    def do_HEAD(self) -> None:
        if self.path.startswith("/v2/") and self.headers["Authorization"] != "Bearer t":
            here = self.headers["Host"]
            challenge = f'Bearer realm="http://{here}/token",scope="s"'
            self._send(401, b"", challenge)
        elif self.path == "/v2/library/debian/manifests/bookworm-slim":
            self._send(200, b"{}")
        elif self.path == "/weights/yolov12n.pt":
            self._send(200, b"12345")
        elif self.path == "/broken":
            self._send(503, b"")
        else:
            self._send(404, b"")

    def _send(self, status: int, body: bytes, challenge: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def _row_at(host: str, size: int) -> ImageSpec:
    weight = dataclasses.replace(_TURBO, url=f"{host}/weights/yolov12n.pt", size=size)
    flash = FlashAttention(version="2.8.3", source="wheel")
    return dataclasses.replace(ROW, weights=(weight,), flash_attn=flash)


def test_online_finds_what_is_missing_or_different(host: str) -> None:
    addresses = Addresses(index=f"{host}/simple", github=host, registry=host)
    remotes = remotes_of(_row_at(host, 99), addresses, "debian:bookworm-slim")
    found = {conflict.keys[0]: conflict for conflict in ask(remotes)}
    assert set(found) == {"torchvision", "flash_attn", "weights"}
    assert {conflict.severity for conflict in found.values()} == {"fail"}
    assert "has 5 bytes there, 99 were expected" in found["weights"].message
    assert "cu12torch2.8cxx11abiTRUE-cp311" in found["flash_attn"].message


def test_online_is_silent_about_what_is_right(host: str) -> None:
    addresses = Addresses(index=f"{host}/simple", github=host, registry=host)
    remotes = remotes_of(_row_at(host, 5), addresses, "debian:bookworm-slim")
    assert ask([r for r in remotes if r.key in {"torch", "weights", "base"}]) == ()


def test_a_missing_base_tag_is_a_failure(host: str) -> None:
    addresses = Addresses(index=f"{host}/simple", registry=host)
    remotes = remotes_of(ROW, addresses, "nvidia/cuda:12.7.0-base-ubuntu22.04")
    (conflict,) = ask([r for r in remotes if r.key == "base"])
    assert conflict.severity == "fail"
    assert "does not exist (404)" in conflict.message


def test_an_unreachable_host_is_said_to_be_unreachable(host: str) -> None:
    nobody = "http://127.0.0.1:9"
    addresses = Addresses(index=f"{nobody}/simple", github=nobody, registry=nobody)
    remotes = remotes_of(_row_at(nobody, 5), addresses, "debian:bookworm-slim")
    found = ask(remotes)
    assert len(found) == len(remotes)
    assert {conflict.severity for conflict in found} == {"warn"}
    assert all("could not ask for" in conflict.message for conflict in found)
