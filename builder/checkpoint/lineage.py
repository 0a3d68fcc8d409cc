"""Which code can load a checkpoint, from the names and shapes of its tensors.

YOLO12 exists twice: yolov12n.pt of the original repository's v1.1 ("turbo") has the same file name
as its v1.0, and only the layers tell them apart. Code of one kind fails on weights of the other
with "'AAttn' object has no attribute 'qk'", or 'qkv', when it predicts, not when it loads:
https://github.com/sunsmarterjie/yolov12/issues/127, read 2026-11-23.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal

from builder.checkpoint.read import Checkpoint

__all__ = ["Lineage", "lineage_of"]

Lineage = Literal["yolov8", "yolo11", "yolo12", "turbo"]

_Shapes = Mapping[str, tuple[int, ...]]

# `model.6.m.0.1.attn.qk.conv.weight` belongs to layer 6. A wrapped model has words in front.
_LAYER = re.compile(r"(?:(?:module|model)\.)*(\d+)\.(.+)")
_ATTENTION = re.compile(r"((?:.+\.)?(?:self_)?attn\.)[^.]+.*")
_AREA_BLOCK = re.compile(r"m\.\d+\.\d+\.attn\.")
_PSA_BLOCK = re.compile(r"m\.\d+\.attn\.")
_INNER = re.compile(r"(m\.\d+\.)cv1\.conv\.weight")

# What a network has: its kinds of attention, and how wide the bottlenecks of its C2f-like layers
# are. YOLOv8's keep their channels (C2f), those of YOLO11 and YOLO12 halve them (C3k2, C3k).
_LINEAGES: dict[tuple[frozenset[str], frozenset[str]], Lineage] = {
    (frozenset(), frozenset({"kept"})): "yolov8",
    (frozenset({"psa"}), frozenset({"halved"})): "yolo11",
    (frozenset({"area qkv"}), frozenset({"halved"})): "yolo12",
    (frozenset({"area qk, v"}), frozenset({"halved"})): "turbo",
}
# The class that has to be there when the checkpoint holds modules, not only a state dict.
_CLASSES = {"yolov8": "C2f", "yolo11": "C2PSA", "yolo12": "AAttn", "turbo": "AAttn"}


def lineage_of(checkpoint: Checkpoint) -> Lineage | None:
    """Return the lineage of `checkpoint`; None when it is none of the four, or contradicts itself.

    None, too, when loading it would import or call what no YOLO checkpoint needs. The task does not
    matter: yolov8n-seg.pt has the lineage yolov8. v1.0 of the original YOLOv12 has upstream's
    layers, so its lineage is yolo12, and upstream loads it. YOLO26's classifiers are YOLO11's
    networks, key for key, so they count as such.
    """
    if checkpoint.strangers:
        return None
    layers = _layers(checkpoint)
    attentions = frozenset(kind for layer in layers for kind in _attentions(layer))
    bottlenecks = frozenset(kind for layer in layers for kind in _bottlenecks(layer))
    lineage = _LINEAGES.get((attentions, bottlenecks))
    if lineage is None or not checkpoint.modules:
        return lineage
    classes = {name.rpartition(".")[2] for name in checkpoint.modules}
    return lineage if _CLASSES[lineage] in classes else None


def _layers(checkpoint: Checkpoint) -> list[_Shapes]:
    """Return the tensors of each layer: their shapes by what follows the layer's number."""
    layers: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for key, tensor in checkpoint.tensors.items():
        if match := _LAYER.fullmatch(key):
            layers[match[1]][match[2]] = tensor.shape
    return list(layers.values())


def _attentions(layer: _Shapes) -> Iterator[str]:
    """Yield the kinds of attention in a layer; `other` is one that none of the lineages has."""
    places = {match[1] for name in layer if (match := _ATTENTION.fullmatch(name))}
    for place in places:
        parts = {
            part: layer[weight]
            for part in ("qkv", "qk", "v")
            if (weight := f"{place}{part}.conv.weight") in layer
        }
        # How many times the channels come out of each convolution.
        ratios = {part: shape[0] / shape[1] for part, shape in parts.items() if _is_conv(shape)}
        if _AREA_BLOCK.fullmatch(place) and ratios == {"qkv": 3}:
            yield "area qkv"
        elif _AREA_BLOCK.fullmatch(place) and ratios == {"qk": 2, "v": 1}:
            yield "area qk, v"
        elif _PSA_BLOCK.fullmatch(place) and ratios.keys() == {"qkv"}:
            yield "psa"
        else:
            yield "other"


def _bottlenecks(layer: _Shapes) -> Iterator[str]:
    """Yield how the inner blocks of a C2f-like layer change the number of channels, if it is one.

    C3, which has the same names, has a third convolution; YOLOv5 is made of it.
    """
    if not {"cv1.conv.weight", "cv2.conv.weight"} <= layer.keys() or "cv3.conv.weight" in layer:
        return
    for name, shape in layer.items():
        if _INNER.fullmatch(name) and _is_conv(shape):
            ratio = shape[0] / shape[1]
            yield {1.0: "kept", 0.5: "halved"}.get(ratio, "other")


def _is_conv(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and 0 not in shape
