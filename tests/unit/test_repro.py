"""Two images that differ in one thing: the layer, the file and the cause are named."""

from __future__ import annotations

import json
import os
import py_compile
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.archive import read_archive
from builder.commands.repro import _lines
from builder.layers import Image, Look
from builder.repro import (
    FileChange,
    LayerChange,
    ReproRecord,
    compare_config,
    compare_layers,
    findings_of,
)
from tests.unit.archive_support import EPOCH, Archive, Item, layer_tar

SITE = "opt/venv/lib/python3.11/site-packages"
SAME = Item(path="opt/same", content=b"same")


def image_of(*layers: Sequence[Item], keep: bool = True, **more: Any) -> Image:
    look = Look(hashes=True, keep=lambda _: keep)
    return read_archive(Archive(*layers, **more).stream(), look=look)


def only_file(first: Item | None, second: Item | None, *, keep: bool = True) -> FileChange:
    """The one file that differs between two layers that are alike but for one item."""
    images = [
        image_of([SAME], [SAME, *([item] if item else [])], keep=keep) for item in (first, second)
    ]
    (layer,) = compare_layers(*images)
    assert (layer.number, layer.change, layer.step) == (2, "files", "RUN step 1")
    (file,) = layer.files
    return file


def test_equal_images_have_no_difference() -> None:
    first, second = image_of([SAME]), image_of([SAME])
    assert first == second
    assert compare_layers(first, second) == ()
    assert compare_config(first, second) == ()


BASE = Item(path="opt/file", content=b"x")


@pytest.mark.parametrize(
    ("other", "change", "cause", "detail"),
    [
        ({"mtime": EPOCH + 9}, "mtime", "not clamped", f"time {EPOCH} -> {EPOCH + 9}"),
        ({"mode": 0o600}, "mode", "umask", "mode 0o644 -> 0o600"),
        ({"uid": 1000}, "owner", "who ran the step", "owner 0:0 -> 1000:0"),
        ({"pax": {"SCHILY.xattr.user.a": "b"}}, "xattr", "extended", "notes  -> SCHILY.xattr"),
    ],
)
def test_what_differs_beside_the_content(
    other: dict[str, Any], change: str, cause: str, detail: str
) -> None:
    file = only_file(BASE, replace(BASE, **other))
    assert file.changes == (change,)
    assert cause in file.cause
    assert detail in file.detail


def test_links_kinds_and_files_of_one_build_only() -> None:
    link = Item(path="opt/file", type=tarfile.SYMTYPE, target="a")
    assert only_file(link, replace(link, target="b")).changes == ("link",)
    assert "type" in only_file(link, BASE).changes
    added = only_file(None, BASE)
    assert added.changes == ("added",)
    assert added.detail == "file, 1 bytes"
    assert "only one build wrote it" in added.cause
    assert only_file(BASE, None).changes == ("removed",)


@pytest.mark.parametrize(
    ("path", "first", "second", "cause"),
    [
        ("opt/stamp", b"Wed Nov 25 03:13:45 UTC 2026", b"Wed Nov 25 03:13:59 UTC 2026", "a date"),
        ("opt/stamp", b"1764040000\n", b"1764040011\n", "a date or time"),
        (
            "opt/id",
            b"id=6f1b1b2e-0000-4000-8000-000000000001",
            b"id=6f1b1b2e-0000-4000-8000-000000000002",
            "random id",
        ),
        ("opt/log", b"built in /tmp/tmpabc", b"built in /tmp/tmpxyz", "temporary file"),
        ("opt/list", b"b\na\n", b"a\nb\n", "order of its lines"),
        ("opt/a.json", b'{"a": 1, "b": 2}', b'{"a": 1, "b": 3}', "the keys b"),
        ("opt/a.json", b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}', "how the same JSON is written"),
        ("opt/yolo/config/settings.json", b'{"uuid": "a"}', b'{"uuid": "b"}', "an id of its own"),
        ("etc/hostname", b"one", b"two", "which machine"),
        ("etc/machine-id", b"one", b"two", "which machine"),
        ("var/log/dpkg.log", b"one", b"two", "log or cache"),
        ("var/lib/apt/lists/x_InRelease", b"one", b"two", "log or cache"),
        ("var/lib/dpkg/status", b"one", b"two", "Debian packages"),
        ("var/cache/ldconfig/aux-cache", b"one", b"two", "inode numbers"),
        ("tmp/x", b"one", b"two", "temporary or cached"),
        (f"{SITE}/a-1.dist-info/RECORD", b"one", b"two", "installer's list of files"),
        (f"{SITE}/a-1.dist-info/uv_cache.json", b"{}", b"[]", "a note that the installer made"),
        (f"{SITE}/a-1.dist-info/direct_url.json", b"{}", b"[]", "a note that the installer made"),
        ("opt/yolo/yolov8n-random.pt", b"\0\1", b"\0\2", "without a fixed seed"),
        ("opt/a.tar.gz", b"\0\1", b"\0\2", "an archive that keeps the times"),
        ("opt/a.so", b"\0\1", b"\0\2", "compiled in the build"),
        ("opt/what", b"\0\1", b"\0\2", "unknown"),
    ],
)
def test_what_the_content_and_the_place_say(
    path: str, first: bytes, second: bytes, cause: str
) -> None:
    file = only_file(Item(path=path, content=first), Item(path=path, content=second))
    assert file.changes == ("content",)
    assert cause in file.cause


def test_content_is_never_quoted() -> None:
    first, second = b"token=secret-1 12:00:01", b"token=secret-2 12:00:02"
    file = only_file(Item(path="a", content=first), Item(path="a", content=second))
    assert "secret" not in file.model_dump_json()


def test_a_time_beside_the_content_is_told_too() -> None:
    file = only_file(Item(path="a", content=b"1"), Item(path="a", content=b"2", mtime=EPOCH + 1))
    assert file.changes == ("content", "mtime")
    assert file.cause.endswith("; and its time is not clamped")


def byte_code(
    folder: Path, mode: py_compile.PycInvalidationMode, text: str = "x = 1\n", mtime: int = EPOCH
) -> bytes:
    source = folder / "m.py"
    source.write_text(text)
    os.utime(source, (mtime, mtime))
    target = folder / "m.pyc"
    py_compile.compile(str(source), cfile=str(target), doraise=True, invalidation_mode=mode)
    return target.read_bytes()


def test_byte_code_tells_time_source_and_order_apart(tmp_path: Path) -> None:
    timed, hashed = (
        py_compile.PycInvalidationMode.TIMESTAMP,
        py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    path = f"{SITE}/a/__pycache__/m.cpython-311.pyc"

    def cause(first: bytes, second: bytes, *, keep: bool = True) -> str:
        items = (Item(path=path, content=each) for each in (first, second))
        return only_file(*items, keep=keep).cause

    early, late = (byte_code(tmp_path, timed, mtime=EPOCH + each) for each in (0, 60))
    assert "keeps the time of its source: compile it with unchecked-hash" in cause(early, late)
    one, other = (byte_code(tmp_path, hashed, text) for text in ("x = 1\n", "x = 2\n"))
    assert "byte code of another source" in cause(one, other)
    assert "another order or by several" in cause(one, one + b"\0")
    assert "; or it keeps the time" in cause(one, one + b"\0", keep=False)
    only = only_file(None, Item(path=path, content=one))
    assert "only one build wrote" in only.cause


def test_another_version_of_a_package_explains_all_of_its_files() -> None:
    def installed(version: str) -> list[Item]:
        return [
            Item(path=f"{SITE}/some_lib/a.py", content=version.encode()),
            Item(path=f"{SITE}/some_lib-{version}.dist-info/RECORD"),
        ]

    (layer,) = compare_layers(image_of(installed("1.0")), image_of(installed("1.1")))
    assert len(layer.files) == 3
    assert {file.cause for file in layer.files} == {
        "another version of some_lib was installed: 1.0 -> 1.1; lock it"
    }
    assert layer.cause == layer.files[0].cause


def test_order_compression_and_headers_are_told_apart() -> None:
    items = [Item(path=name, content=name.encode() * 999) for name in ("a", "b")]
    first = image_of(items)

    def only_layer(second: Image) -> LayerChange:
        (layer,) = compare_layers(first, second)
        assert layer.files == ()
        return layer

    assert only_layer(image_of(items[::-1])).change == "order"
    packed = only_layer(image_of(items, compression="gzip"))
    assert packed.change == "compression"
    assert "compressor" in packed.cause
    padded = Archive(layer_tar(items) + bytes(10_240))
    look = Look(hashes=True)
    assert only_layer(read_archive(padded.stream(), look=look)).change == "headers"


def test_a_layer_that_only_one_build_has_is_found_by_its_step() -> None:
    steps = ["ADD base", "RUN empty", "RUN last"]
    first = image_of([SAME], [], [BASE], steps=steps)
    second = image_of([SAME], [BASE], steps=[steps[0], steps[2]])
    (layer,) = compare_layers(first, second)
    assert (layer.number, layer.step, layer.change) == (2, "RUN empty", "missing")
    assert layer.second is None
    (other,) = compare_layers(second, first)
    assert (other.number, other.first) == (2, None)


def test_keys_of_the_configuration_are_named() -> None:
    base: dict[str, Any] = {"created": "2026-01-01T00:00:00Z", "config": {"Labels": {"a": "1"}}}
    other: dict[str, Any] = {"created": "2026-11-25T03:00:00Z", "config": {"Labels": {"b": "1"}}}
    changes = compare_config(image_of([SAME], config=base), image_of([SAME], config=other))
    assert [(each.key, each.first, each.second) for each in changes] == [
        ("config.Labels.a", "1", "absent"),
        ("config.Labels.b", "absent", "1"),
        ("created", "2026-01-01T00:00:00Z", "2026-11-25T03:00:00Z"),
    ]
    assert "SOURCE_DATE_EPOCH" in changes[2].cause
    assert "label" in changes[0].cause


def record_of(first: Image, second: Image) -> ReproRecord:
    return ReproRecord(
        id="row",
        build_key="0" * 64,
        identical=False,
        first=first.digest,
        second=second.digest,
        seconds=(1.0, 2.0),
        config=compare_config(first, second),
        layers=compare_layers(first, second),
        engine="26.1",
        finished="2026-11-25T00:00:00+00:00",
    )


def test_findings_name_layer_files_and_cause_in_few_words() -> None:
    def built(second: int) -> Image:
        stamps = [Item(path=f"opt/s{n}", content=b"12:00:%02d" % second) for n in range(9)]
        folder = Item(path="opt", type=tarfile.DIRTYPE, mtime=EPOCH + second)
        return image_of([SAME], [folder, *stamps], config={"created": f"at {second}"})

    record = record_of(built(1), built(2))
    layer, config = findings_of(record)
    assert layer.place == config.place == "row"
    assert layer.what.startswith("layer 2 differs (RUN step 1): opt/s0 (content); opt/s1 (content)")
    assert layer.what.endswith("; and 5 more")
    assert "a date or time" in layer.why
    assert "out/row/repro.json" in layer.todo
    assert config.what == "the configuration differs in created"
    # The record survives its own format.
    assert ReproRecord.model_validate(json.loads(record.model_dump_json())) == record


def test_the_text_names_digests_files_and_causes_and_obeys_no_name() -> None:
    first = image_of([Item(path="opt/\x1b[31mred", content=b"1")], config={"created": "a"})
    second = image_of([Item(path="opt/\x1b[31mred", content=b"2")], config={"created": "b"})
    record = record_of(first, second)
    text = "\n".join(_lines(record))
    assert "\x1b" not in text
    assert not any("\x1b" in str(finding) for finding in findings_of(record))
    for words in (
        f"row: two builds without any cache (1.0 s and 2.0 s), two digests:\n    {first.digest}\n",
        "layer 1: RUN step 0: unknown",
        r"    opt/\x1b[31mred: content: unknown",
        "configuration: created: a -> b: the time of the build",
    ):
        assert words in text
    (line,) = _lines(record.model_copy(update={"identical": True}))
    assert line.endswith(f"one digest: {first.digest}")
