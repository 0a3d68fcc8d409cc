from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from builder.engine.client import ContainerLost, StartRefused
from builder.engine.containers import Request, Result
from builder.errors import BuildFailed
from builder.inside import inventory as inside
from builder.inventory import LONGEST, Inventory, contradictions, parse_inventory, take_inventory
from tests.unit.documents_support import MISSING, document, inventory, plan

ROW = "yolov8-cu128"

STATUS = """\
Package: apt
Status: install ok installed
Architecture: amd64
Version: 2.6.2
Description: commandline package manager
 with a second line, which is
 .
 no field: Package: other

Package: bash
Status: install ok installed
Source: bash (5.2.15-2)
Architecture: amd64
Version: 5.2.15-2+b13

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""

METADATA = b"""\
Metadata-Version: 2.4
Name: Thing.One
Version: 1.2+cu128
License: MIT
Classifier: Programming Language :: Python
Classifier: License :: OSI Approved :: MIT License
Project-URL: Homepage, https://example.org/thing
Requires-Dist: numpy>=2
Author: J\xe9r\xf4me

License-Expression: not a field, but the description
"""


def spoil(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def test_the_images_dpkg_database_is_read(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    assert list(inside.debian(tmp_path / "status")) == [
        {"name": "apt", "version": "2.6.2", "architecture": "amd64", "source": ""},
        {
            "name": "bash",
            "version": "5.2.15-2+b13",
            "architecture": "amd64",
            "source": "bash (5.2.15-2)",
        },
    ]
    assert list(inside.debian(tmp_path / "absent")) == []


def test_metadata_need_not_be_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "thing_one-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(METADATA)
    (folder / "RECORD").write_bytes(b"thing.py,,\n")
    assert inside.distribution(folder) == {
        "path": str(folder),
        "name": "Thing.One",
        "version": "1.2+cu128",
        "license_expression": "",
        "license": "MIT",
        "classifiers": ["License :: OSI Approved :: MIT License"],
        "home_page": "https://example.org/thing",
        "requires": ["numpy>=2"],
        "record_sha256": "e40f5dab7b499b38d9a51248d476ea14d4c7a54fe7a82ab514f25ce4e04e785b",
    }


def test_every_kind_of_metadata_folder_is_found(tmp_path: Path) -> None:
    for name in ("opt/venv/a-1.dist-info", "usr/lib/b-1.egg-info", "proc/c-1.dist-info"):
        (tmp_path / name).mkdir(parents=True)
    old = tmp_path / "usr/lib/d-1.egg-info"
    old.write_text("Metadata-Version: 1.0\nName: d\nVersion: 1\n")
    found = sorted(path.name for path in inside.metadata_folders(tmp_path))
    assert found == ["a-1.dist-info", "b-1.egg-info", "d-1.egg-info"]
    assert inside.distribution(old)["name"] == "d"


def test_os_release_is_read_without_its_quotes(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_ID="12"\nBUG_REPORT_URL="x"\n')
    assert inside.os_release(tmp_path / "os-release") == {"ID": "debian", "VERSION_ID": "12"}


def test_checkpoints_are_found_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "image.json").write_text("{}")
    (tmp_path / "config" / "yolov8n.pt").write_bytes(b"weights")
    (path,) = inside.checkpoints(tmp_path)
    assert inside.checkpoint(path) == {
        "path": str(path),
        "size": 7,
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
    }


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "Invalid JSON"),
        (b"Traceback (most recent call last):", "Invalid JSON"),
        (b'{"format": 1}', "python: Field required"),
        (b"\xff\xfe{}", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
    ],
)
def test_garbage_is_refused_with_a_reason(said: bytes, why: str) -> None:
    with pytest.raises(BuildFailed, match=why) as caught:
        parse_inventory(said, ROW)
    assert caught.value.findings[0].place == ROW
    assert "can't be read" in caught.value.findings[0].what


def test_too_long_an_answer_is_refused() -> None:
    with pytest.raises(BuildFailed, match="says too much about itself: 8388609 bytes"):
        parse_inventory(b" " * (LONGEST + 1), ROW)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (spoil("format", value=2), "format: Input should be 1"),
        (spoil("extra", value=1), "extra: Extra inputs are not permitted"),
        (spoil("debian", 0, "name", value=""), "debian.0.name: String should have at least 1"),
        (spoil("debian", 1, "name", value="apt"), "named twice: apt:amd64"),
        (spoil("distributions", 0, "name", value="markupsafe"), "named twice: markupsafe"),
        (spoil("checkpoints", 0, "size", value=-1), "checkpoints.0.size: Input should be greater"),
        (spoil("checkpoints", 0, "sha256", value="x"), "checkpoints.0.sha256: String should match"),
        (spoil("distributions", 0, "path", value="etc"), "distributions.0.path: String should"),
        (spoil("python", value="3" * 201), "python: String should have at most 200"),
        (spoil("os", value={"ID": "debian"}), "os.VERSION_ID: Field required"),
    ],
)
def test_what_no_image_of_ours_prints_is_refused(
    root: Path, change: Callable[[Any], None], why: str
) -> None:
    planned = plan(root, ROW)
    with pytest.raises(BuildFailed, match=why):
        parse_inventory(document(planned, change), ROW)


def test_an_honest_image_contradicts_nothing(root: Path) -> None:
    for missing in ((), MISSING):
        planned = plan(root, ROW, missing)
        assert list(contradictions(inventory(planned), planned)) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (spoil("python", value="3.12.1"), "its image has Python 3.12.1, the row says 3.11"),
        (spoil("os", "VERSION_CODENAME", value="trixie"), "stands on debian trixie"),
        (spoil("os", "ID", value="ubuntu"), "stands on ubuntu bookworm"),
        (spoil("debian", value=[]), "names no Debian package"),
        (spoil("distributions", value=[]), "names no Python distribution"),
        (spoil("checkpoints", 0, "sha256", value="0" * 64), "yolov8n.pt has sha256 000"),
        (
            spoil("checkpoints", 0, "path", value="/opt/yolo/other.pt"),
            "other.pt is in its image but not planned",
        ),
    ],
)
def test_a_lie_that_can_be_noticed_is(root: Path, change: Callable[[Any], None], what: str) -> None:
    planned = plan(root, ROW)
    found = list(contradictions(inventory(planned, change), planned))
    assert what in found[0].what
    assert found[0].place == ROW
    assert found[0].todo


def test_all_contradictions_come_at_once(root: Path) -> None:
    planned = plan(root, ROW)

    def change(document: Any) -> None:
        document["python"] = "3.9.1"
        document["checkpoints"] = []

    found = [finding.what for finding in contradictions(inventory(planned, change), planned)]
    assert len(found) == 1 + len(planned.record.weights)


def ended(code: int, stdout: bytes = b"", stderr: bytes = b"") -> Result:
    return Result(argv=(), exit_code=code, stdout=stdout, stderr=stderr, seconds=1.0)


class Started:
    """In the place of a running container: ends as it is told to."""

    def __init__(self, result: Result) -> None:
        self.result = result

    def wait(self, *, timeout: float) -> Result:
        assert timeout == 180
        return self.result


def take(
    root: Path, monkeypatch: pytest.MonkeyPatch, outcome: Result | Exception
) -> tuple[Inventory, Request]:
    asked: list[Request] = []

    @contextmanager
    def running(client: object, request: Request, *, log: Path) -> Iterator[Started]:
        asked.append(request)
        if isinstance(outcome, Exception):
            raise outcome
        yield Started(outcome)

    monkeypatch.setattr("builder.inventory.running", running)
    image = SimpleNamespace(id="sha256:" + "1" * 64)
    found = take_inventory(cast("Any", None), cast("Any", image), plan(root, ROW), root / "log")
    return found, asked[0]


def test_the_image_is_asked_by_its_id_and_under_limits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(root, ROW)
    found, request = take(root, monkeypatch, ended(0, document(planned)))
    assert found == inventory(planned)
    assert request.image == "sha256:" + "1" * 64
    assert request.entrypoint == ("/opt/venv/bin/python", "-I", "-S", "/inventory.py")
    assert request.user == "12345:0"
    assert (request.limits.memory, request.limits.pids) == ("512m", 16)
    (mount,) = request.mounts
    assert not mount.writable
    assert mount.source == root / "builder" / "inside" / "inventory.py"


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (ended(124), "did not say what it holds within 180 s"),
        (ended(3, b"", b"ModuleNotFoundError: json"), "code 3(.|\n)*ModuleNotFoundError: json"),
        (ended(0, b""), "can't be read"),
        (StartRefused("exec: no such file"), "no such file(.|\n)*/opt/venv/bin/python is started"),
        (ContainerLost("over its limit", oom=True), "could not be asked what it holds: over its"),
    ],
)
def test_an_image_that_does_not_answer_fails_its_row(
    root: Path, monkeypatch: pytest.MonkeyPatch, outcome: Result | Exception, why: str
) -> None:
    with pytest.raises(BuildFailed, match=why) as caught:
        take(root, monkeypatch, outcome)
    assert caught.value.findings[0].place == ROW


def test_a_contradiction_fails_the_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = document(plan(root, ROW), spoil("python", value="3.9.1"))
    with pytest.raises(BuildFailed, match=r"has Python 3\.9\.1"):
        take(root, monkeypatch, ended(0, said))
