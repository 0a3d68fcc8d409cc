"""Every byte of a layer ends in a group, and the groups say whose it is."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.archive import read_archive
from builder.commands import size as command
from builder.commands.size import size
from builder.errors import InvalidInput, NothingSelected
from builder.layers import Image, Look
from builder.records import BuildRecord, write_record
from builder.size import UNNAMED, Group, SizeReport, account, names_owner
from tests.unit.archive_support import Archive, Item

SITE = "opt/venv/lib/python3.11/site-packages"
RECORD = b"""torch/__init__.py,sha256=x,10
"torch/a, b.py",,
../../../bin/torchrun,sha256=x,5
torch-2.8.0+cu128.dist-info/RECORD,,
"""
DPKG = b"/.\n/usr\n/lib/x86_64-linux-gnu/libc.so.6\n/usr/share/doc/libc6/copyright\n"


def image_of(*layers: list[Item]) -> Image:
    return read_archive(Archive(*layers).stream(), look=Look(keep=names_owner))


def groups_of(report: SizeReport, layer: int = 0) -> dict[str, Group]:
    return {group.name: group for group in report.layers[layer].groups}


def test_files_belong_to_the_package_that_lists_them() -> None:
    image = image_of(
        [
            Item(path=f"{SITE}/torch/__init__.py", content=b"x" * 10),
            Item(path=f"{SITE}/torch/__pycache__/__init__.cpython-311.pyc", content=b"x" * 7),
            Item(path=f"{SITE}/torch/a, b.py", content=b"x" * 3),
            Item(path="opt/venv/bin/torchrun", content=b"x" * 5),
            Item(path=f"{SITE}/torch-2.8.0+cu128.dist-info/RECORD", content=RECORD),
            Item(path=f"{SITE}/stray/module.py", content=b"x" * 2),
            Item(path="var/lib/dpkg/info/libc6:amd64.list", content=DPKG),
            Item(path="usr/lib/x86_64-linux-gnu/libc.so.6", content=b"x" * 9),
            Item(path="opt/yolo/model.pt", content=b"x" * 4),
            Item(path="top", content=b"x"),
        ]
    )
    groups = groups_of(account(image))
    sizes = {name: (group.kind, group.size, group.files) for name, group in groups.items()}
    overhead = sizes.pop("tar headers and padding")
    assert sizes == {
        "torch 2.8.0+cu128": ("python", 10 + 7 + 3 + 5 + len(RECORD), 5),
        "libc6": ("debian", 9, 1),
        "var/lib": ("folder", len(DPKG), 1),
        f"{SITE}/stray": ("folder", 2, 1),
        "opt/yolo": ("folder", 4, 1),
        "/": ("folder", 1, 1),
    }
    assert overhead[0] == "archive"


def test_everything_adds_up_to_the_unpacked_bytes() -> None:
    report = account(image_of([Item(path=f"a{n}/f", content=b"x" * n) for n in range(30)]), top=3)
    (layer,) = report.layers
    assert len(layer.groups) == 3
    assert layer.rest.size > 0
    assert sum(group.size for group in layer.groups) + layer.rest.size == layer.unpacked
    assert report.unpacked == layer.unpacked
    assert [file.path for file in layer.biggest] == ["a29/f", "a28/f", "a27/f"]


def grown(image: Image, sizes: dict[str, int]) -> Image:
    """The image as if its files had these sizes."""
    (layer,) = image.layers
    assert layer.entries is not None
    entries = tuple(replace(entry, size=sizes[entry.path]) for entry in layer.entries)
    return replace(
        image,
        layers=(replace(layer, entries=entries, unpacked=sum(sizes.values()) + 1_000),),
    )


def test_lists_go_on_until_less_than_the_bound_is_unnamed() -> None:
    sizes = {f"folder{n:02}/f": 20_000_000 for n in range(40)} | {"folder00/g": UNNAMED}
    image = grown(image_of([Item(path=path) for path in sizes]), sizes)
    (layer,) = account(image, top=5).layers
    assert layer.rest.size < UNNAMED
    assert layer.rest.size + layer.groups[-1].size >= UNNAMED
    assert len(layer.groups) == 38


def test_every_file_from_the_bound_on_is_named() -> None:
    sizes = {"a/one": 3 * UNNAMED, "a/two": UNNAMED, "a/three": UNNAMED - 1, "b/only": 5}
    groups = groups_of(account(grown(image_of([Item(path=path) for path in sizes]), sizes)))
    assert [file.path for file in groups["a"].biggest] == ["a/one", "a/two"]
    assert [file.path for file in groups["b"].biggest] == ["b/only"]


def test_what_later_layers_replace_or_remove_is_hidden() -> None:
    image = image_of(
        [Item(path=f"a/{name}", content=b"x" * 10) for name in ("kept", "replaced", "removed")],
        [Item(path="a/replaced", content=b"y"), Item(path="a/.wh.removed")],
    )
    assert [layer.hidden for layer in account(image).layers] == [20, 0]


def test_layers_of_other_rows_are_named_and_counted() -> None:
    image = image_of([Item(path="a")], [Item(path="b")])
    shared = image.layers[0]
    report = account(image, others={"one": [shared.diff_id], "two": [], "three": [shared.diff_id]})
    assert [layer.shared for layer in report.layers] == [("one", "three"), ()]
    assert report.shared == shared.size
    assert report.compressed == image.size


@pytest.mark.parametrize(
    "record", [b"\xff\xfe\n", b'"open', b"../../../../../../../../etc/passwd,,\n", b",,\n\n"]
)
def test_a_list_that_is_nonsense_is_no_trouble(record: bytes) -> None:
    image = image_of([Item(path=f"{SITE}/x-1.dist-info/RECORD", content=record)])
    assert sum(group.size for group in account(image).layers[0].groups) > 0


def arguments(row: str, **more: object) -> argparse.Namespace:
    return argparse.Namespace(**{"row": row, "json": False, "top": 10, **more})


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Path:
    (tmp_path / "matrix.yaml").write_text((root / "matrix.yaml").read_text())
    return tmp_path


def record(image: Image) -> BuildRecord:
    return BuildRecord(
        id="yolov8-cu128",
        status="built",
        digest=image.digest,
        build_key="0" * 64,
        reference="yolo-images/yolov8-cu128:local",
        seconds=1,
        size_bytes=1,
        missing=(),
        finished="2026-11-25T00:00:00+00:00",
    )


def test_a_row_that_was_not_built_is_named(project: Path) -> None:
    with pytest.raises(InvalidInput, match=r"build\.json: it names no image(.|\n)*build\.py build"):
        size(arguments("yolov8-cu128"), project)
    with pytest.raises(NothingSelected):
        size(arguments("no-such-row"), project)
    with pytest.raises(InvalidInput, match=r"yolov8-\*: it names \d+ rows"):
        size(arguments("yolov8-*"), project)
    with pytest.raises(InvalidInput, match="--top"):
        size(arguments("yolov8-cu128", top=0), project)


def test_the_table_obeys_no_name_in_the_image(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = image_of([Item(path="a\x1b[31m/[bold]f", content=b"x" * 10)])
    write_record(project / "out" / "yolov8-cu128" / "build.json", record(image))

    monkeypatch.setattr(command, "connect", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(command, "read_image", lambda *_, **__: image)
    assert size(arguments("yolov8-cu128"), project) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert r"a\x1b[31m" in printed
    assert image.digest in printed
