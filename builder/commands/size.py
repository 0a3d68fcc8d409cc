"""`build.py size`: where the bytes of a built image are."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from docker import DockerClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from builder.engine.client import EngineTrouble, connect
from builder.engine.export import diff_ids, read_image
from builder.errors import EngineUnavailable, Finding, InvalidInput
from builder.folders import Folders
from builder.layers import Look, printable
from builder.matrix import load_matrix, select
from builder.records import BuildRecord, read_record
from builder.size import UNNAMED, Group, LayerSize, SizeReport, account, names_owner
from builder.spec import ImageSpec
from builder.talk import human_bytes

__all__ = ["engine_answers", "one_row", "size"]

_PLAIN_WIDTH = 160
_HOW_TO_READ = (
    "Compressed bytes are exact and known for whole layers only: a layer is one compressed stream. "
    "What is in a layer is given in unpacked bytes."
)


def size(arguments: argparse.Namespace, root: Path) -> int:
    """Print where the bytes of a row's image are, as it was built; nothing is started."""
    if arguments.top < 1:
        raise InvalidInput(
            Finding(place="--top", what=f"{arguments.top} is not 1 or more", todo="Leave it out.")
        )
    folders = Folders(root)
    row = one_row(folders, arguments.row)
    digest = _recorded(folders, row.id)
    with engine_answers(), closing(connect()) as client:
        image = read_image(client, digest, look=Look(keep=names_owner))
        others = dict(_others(client, folders, row.id))
    report = account(image, top=arguments.top, others=others)
    if arguments.json:
        print(json.dumps({"id": row.id, **asdict(report)}, indent=2))
    else:
        _print(row.id, report)
    return 0


def one_row(folders: Folders, row_id: str) -> ImageSpec:
    """Return the row of this id; InvalidInput for a pattern of several rows."""
    rows = select(load_matrix(folders.matrix).rows, row_id)
    if len(rows) > 1:
        found = ", ".join(row.id for row in rows)
        raise InvalidInput(
            Finding(place=row_id, what=f"it names {len(rows)} rows: {found}", todo="Name one.")
        )
    return rows[0]


@contextmanager
def engine_answers() -> Iterator[None]:
    """Turn an engine that fails in the middle of something into an error of the command line."""
    try:
        yield
    except EngineTrouble as error:
        raise EngineUnavailable(
            Finding(place="", what=str(error), todo="Look at the engine's log, and try again.")
        ) from error


def _recorded(folders: Folders, row: str) -> str:
    path = folders.row(row) / "build.json"
    record = read_record(path, BuildRecord)
    if record is None or record.digest is None:
        raise InvalidInput(
            Finding(
                place=str(path.relative_to(folders.root)),
                what=f"it names no image of {row}",
                why="The last build failed." if record else "The row was not built here.",
                todo=f"Run: python3 build.py build {row}",
            )
        )
    return record.digest


def _others(
    client: DockerClient, folders: Folders, row: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the other rows whose images the engine still has, and their layers."""
    for path in sorted(folders.out.glob("*/build.json")):
        record = read_record(path, BuildRecord)
        if record is None or record.digest is None or record.id == row:
            continue
        if layers := diff_ids(client, record.digest):
            yield record.id, layers


def _print(row: str, report: SizeReport) -> None:
    table = Table(box=None, header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("layer", justify="right")
    table.add_column("compressed", justify="right", no_wrap=True)
    table.add_column("unpacked", justify="right", no_wrap=True)
    table.add_column("files", justify="right")
    table.add_column("what", overflow="fold")
    for number, layer in enumerate(report.layers, start=1):
        _add_layer(table, number, layer)
    table.add_section()
    table.add_row(
        "all", human_bytes(report.compressed), human_bytes(report.unpacked), "", _total(report),
        style="bold",
    )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    console.print(f"{row}  {report.digest}\n{_HOW_TO_READ}\n", soft_wrap=True)
    console.print(table)


def _add_layer(table: Table, number: int, layer: LayerSize) -> None:
    notes = [
        *([f"also in {', '.join(layer.shared)}"] if layer.shared else []),
        *([f"{human_bytes(layer.hidden)} replaced by later layers"] if layer.hidden else []),
    ]
    what = printable(layer.step or "(no history)") + (f"  [{'; '.join(notes)}]" if notes else "")
    table.add_row(
        str(number), human_bytes(layer.compressed), human_bytes(layer.unpacked), "", escape(what),
        style="bold",
    )  # fmt: skip
    for group in layer.groups:
        _add_group(table, group)
    if layer.rest.size:
        _add_group(table, layer.rest)


def _add_group(table: Table, group: Group) -> None:
    kind = {"python": "", "debian": " (Debian)", "folder": "", "archive": ""}[group.kind]
    files = str(group.files or "")
    what = f"  {printable(group.name)}{kind}"
    table.add_row("", "", human_bytes(group.size), files, escape(what))
    for file in group.biggest:
        if file.size >= UNNAMED:
            table.add_row("", "", human_bytes(file.size), "", escape(f"    {printable(file.path)}"))


def _total(report: SizeReport) -> str:
    shared = (
        f", {human_bytes(report.shared)} of it in layers of other rows" if report.shared else ""
    )
    return f"{len(report.layers)} layers{shared}"
