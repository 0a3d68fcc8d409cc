"""`build.py list` and `build.py schema`: what matrix.yaml says, and how it may be said."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from builder.folders import Folders
from builder.matrix import load_matrix, select
from builder.matrix_model import MatrixModel
from builder.records import write_atomic
from builder.spec import ImageSpec

__all__ = ["list_rows", "schema"]

_PLAIN_WIDTH = 160


def list_rows(arguments: argparse.Namespace, root: Path) -> int:
    """Print the rows, as a table or as JSON."""
    rows = select(load_matrix(Folders(root).matrix).rows, arguments.pattern)
    if arguments.json:
        print(json.dumps([_summary(row) for row in rows], indent=2))
        return 0
    table = Table(box=None, header_style="bold")
    for name in ("row", "python", "cuda", "torch", "tensorrt", "flash-attn", "ultralytics", "GPUs"):
        table.add_column(name)
    for row in rows:
        stack = row.stack
        table.add_row(
            row.id,
            stack.python,
            stack.cuda or "-",
            stack.torch,
            stack.tensorrt.version if stack.tensorrt else "-",
            str(row.flash_attn or "-"),
            row.ultralytics + (" (fork)" if row.archive else ""),
            ", ".join(stack.gpus) or "-",
        )
    Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH).print(table)
    return 0


def _summary(row: ImageSpec) -> dict[str, object]:
    stack = row.stack
    return {
        "id": row.id,
        "family": row.family,
        "distribution": row.distribution,
        "stack": stack.name,
        "platform": row.platform,
        "python": stack.python,
        "cuda": stack.cuda,
        "torch": stack.torch,
        "torchvision": stack.torchvision,
        "tensorrt": stack.tensorrt.version if stack.tensorrt else None,
        "flash_attn": row.flash_attn.version if row.flash_attn else None,
        "ultralytics": row.ultralytics,
        "onnxruntime": stack.onnxruntime,
        "weights": [weight.name for weight in row.weights],
        "gpus": list(stack.gpus),
    }


def schema(arguments: argparse.Namespace, root: Path) -> int:
    """Write the JSON schema of matrix.yaml, for editors."""
    del arguments
    write_atomic(root / "docs" / "matrix.schema.json", schema_text())
    return 0


def schema_text() -> str:
    """Return the JSON schema of matrix.yaml as it is committed."""
    return json.dumps(MatrixModel.model_json_schema(), indent=2, sort_keys=True) + "\n"
