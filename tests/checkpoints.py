"""Checkpoints of a few kilobytes that have the lineage of the real ones: a state dict, no model."""

from __future__ import annotations

import io
import zipfile

from builder.checkpoint import Lineage
from tests.unit.checkpoint_support import pickled, tensor

__all__ = ["small_checkpoint"]

# The layers that tell the lineages apart: how a C2f-like block changes the number of channels, and
# how attention makes queries, keys and values. Names and ratios are those of the real networks.
_BLOCK = {"model.2.cv1.conv.weight": (8, 8), "model.2.cv2.conv.weight": (8, 12)}
_KEPT = {**_BLOCK, "model.2.m.0.cv1.conv.weight": (4, 4)}
_HALVED = {**_BLOCK, "model.2.m.0.cv1.conv.weight": (2, 4)}
_LAYERS: dict[Lineage, dict[str, tuple[int, int]]] = {
    "yolov8": _KEPT,
    "yolo11": {**_HALVED, "model.10.m.0.attn.qkv.conv.weight": (8, 4)},
    "yolo12": {**_HALVED, "model.6.m.0.0.attn.qkv.conv.weight": (12, 4)},
    "turbo": {
        **_HALVED,
        "model.6.m.0.0.attn.qk.conv.weight": (8, 4),
        "model.6.m.0.0.attn.v.conv.weight": (4, 4),
    },
}


def small_checkpoint(lineage: Lineage, name: str = "") -> bytes:
    """Return a file in torch's format; `name` makes the bytes of two of them differ."""
    layers = _LAYERS[lineage]
    state = {key: tensor(*shape, 1, 1, key=str(n)) for n, (key, shape) in enumerate(layers.items())}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "data.pkl", pickled({"model": state, "date": name}))
        for n, (outputs, inputs) in enumerate(layers.values()):
            _add(archive, f"data/{n}", bytes(4 * outputs * inputs))
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, body: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(f"archive/{name}"), body)
