"""Whether a checkpoint is what the matrix says it is: its lineage, read off its tensors."""

from __future__ import annotations

from pathlib import Path

from builder.checkpoint import CheckpointError, lineage_of, read_checkpoint
from builder.errors import Finding, InvalidInput
from builder.folders import Folders
from builder.lock import LockRecord
from builder.records import read_record, write_record
from builder.spec import ImageSpec, Weight

__all__ = ["check_lineage", "note_lineages"]


def check_lineage(weight: Weight, path: Path) -> None:
    """Raise InvalidInput unless the checkpoint at `path` has the lineage that `weight` declares."""
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise InvalidInput(error.finding(f"weights.{weight.name}")) from error
    found = lineage_of(checkpoint)
    if found == weight.lineage:
        return
    strangers = ", ".join(sorted(checkpoint.strangers)[:5])
    raise InvalidInput(
        Finding(
            place=f"weights.{weight.name}",
            what=f"the matrix says lineage {weight.lineage}, its tensors {found or 'no known one'}",
            why=f"It names what no YOLO checkpoint needs: {strangers}."
            if strangers
            else "Code of one lineage loads the other's checkpoint and fails when it predicts.",
            todo="Correct url and sha256, or lineage, in matrix.yaml.",
        )
    )


def note_lineages(row: ImageSpec, folders: Folders) -> bool:
    """Note in the row's lock that the lineages have been read; return whether that was new."""
    path = folders.locks / f"{row.id}.json"
    record = read_record(path, LockRecord)
    if record is None or all(item.lineage_from == "checkpoint" for item in record.weights):
        return False
    read = tuple(item.model_copy(update={"lineage_from": "checkpoint"}) for item in record.weights)
    write_record(path, record.model_copy(update={"weights": read}))
    return True
