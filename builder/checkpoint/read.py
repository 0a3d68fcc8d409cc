"""A checkpoint file, read without loading it.

Loading runs what the file's pickle says, and needs the code that wrote it. Reading needs neither:
`graph` makes the objects' graph, `weights` walks it as torch would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.checkpoint.archive import open_archive
from builder.checkpoint.graph import Graph, Name, Node, dotted, read_pickle, shown
from builder.checkpoint.weights import Tensor, read_weights

__all__ = ["Checkpoint", "read_checkpoint"]

Setting = str | int | float | bool | None

# What the pickles of YOLO's checkpoints name: layers, what a trainer keeps beside them, and the few
# functions that put tensors and plain values together. Only those of `_CALLED` may be called. About
# what ultralytics' own safe loading allows: `_SafeLoad` in nn/tasks.py of 8.4.190, and torch's
# `_get_allowed_globals` in _weights_only_unpickler.py of 2.8.
_REBUILD = re.compile(r"torch\._utils\._rebuild_(parameter|parameter_with_state|tensor_v[23])")
_CALLED = re.compile(
    _REBUILD.pattern + r"|torch\._tensor\._rebuild_from_type_v2|torch\.(Size|device)"
    r"|collections\.(OrderedDict|defaultdict)|builtins\.(set|getattr)|_codecs\.encode"
    r"|numpy\.dtype|numpy\._?core\.multiarray\.scalar"
    r"|pathlib\.(_local\.)?(Posix|Windows)Path|datetime\.(datetime|date|timedelta|timezone)"
    # Before 8.0.44 everything lay under ultralytics.yolo.
    r"|ultralytics\.(yolo\.)?utils\.IterableSimpleNamespace|types\.SimpleNamespace"
    r"|torchvision\.transforms\.functional\.InterpolationMode"
)
_NAMED = re.compile(
    _CALLED.pattern + r"|torch\.nn\.modules\.\w+\.\w+|torch\.nn\.parameter\.Parameter"
    r"|torch\.\w+Storage|torch\.storage\.UntypedStorage|torch\.Tensor"
    r"|torch\.((b?float|u?int|complex)\d\w*|bool)"
    r"|ultralytics\.nn\.(tasks|modules(\.\w+)?)\.\w+"
    r"|ultralytics\.(yolo\.)?utils\.(loss|tal)\.\w+"
    r"|torchvision\.transforms\.transforms\.(Compose|Normalize|Resize|CenterCrop|ToTensor)"
)
# Fused models keep a bound method, classifiers the way their pictures are scaled.
_ATTRIBUTES = ("forward", "forward_fuse")
_SCALING = "torchvision.transforms.functional.InterpolationMode"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says about itself; all of it is the word of whoever wrote the file.

    `tensors` are the keys of the state dict, in its order. `modules` are the classes of its
    modules, none when it holds a state dict only. `strangers` are globals and calls that no YOLO
    checkpoint needs: loading would import and could run them. No strangers does not mean safe. The
    rest is what the trainer notes; text that is longer than 200 characters or not printable is left
    out.
    """

    tensors: Mapping[str, Tensor]
    modules: frozenset[str]
    strangers: frozenset[str]
    version: str | None
    date: str | None
    license: str | None
    epoch: int | None
    train_args: Mapping[str, Setting]


def read_checkpoint(path: Path, *, verify: bool = False) -> Checkpoint:
    """Read the checkpoint at `path`; with `verify` all of its bytes, to check their CRCs.

    Raises CheckpointError unless it is a whole checkpoint, OSError when the file can't be opened.
    """
    with open_archive(path) as archive:
        graph = read_pickle(archive.pickle())
        weights = read_weights(graph.root, archive)
        if verify:
            archive.verify()
    notes = graph.root.fields() if isinstance(graph.root, Node) else {}
    settings = notes.get("train_args")
    return Checkpoint(
        tensors=weights.tensors,
        modules=weights.modules,
        strangers=frozenset(_strangers(graph)),
        version=_text(notes.get("version")),
        date=_text(notes.get("date")),
        license=_text(notes.get("license")),
        epoch=_number(notes.get("epoch")),
        train_args=dict(_settings(settings)),
    )


def _strangers(graph: Graph) -> Iterator[str]:
    """Yield what loading would import or call, and no YOLO checkpoint needs."""
    for name in graph.names:
        if not _NAMED.fullmatch(str(name)):
            yield shown(str(name))
    allowed = {name: _CALLED.fullmatch(str(name)) is not None for name in graph.names}
    for node in graph.made:
        if not isinstance(node.maker, Name):
            yield "a call of something computed"
        elif node.called and not (allowed[node.maker] and _fits(node, str(node.maker))):
            yield f"a call of {shown(str(node.maker))}"


def _fits(node: Node, maker: str) -> bool:
    """Say whether a function that may be called gets what it gets in YOLO's checkpoints."""
    args = node.args if isinstance(node.args, tuple) else ()
    if maker == "builtins.getattr":
        return len(args) == 2 and (args[1] in _ATTRIBUTES or dotted(args[0]) == _SCALING)
    if maker == "torch._tensor._rebuild_from_type_v2":
        # Its first argument is a function that it calls.
        return bool(args) and _REBUILD.fullmatch(dotted(args[0])) is not None
    return True


def _settings(value: object) -> Iterator[tuple[str, Setting]]:
    """Yield the plain ones of a trainer's arguments: a dict, or in 8.0 a namespace."""
    if not isinstance(value, Node):
        return
    for key, setting in {**value.fields(), **value.attributes()}.items():
        if _text(key) is None:
            continue
        if setting is None or isinstance(setting, (bool, float)):
            yield key, setting
        elif (
            plain := _number(setting) if isinstance(setting, int) else _text(setting)
        ) is not None:
            yield key, plain


def _text(value: object) -> str | None:
    if isinstance(value, str) and len(value) <= 200 and value.isprintable():
        return value
    return None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and abs(value) < 2**63 else None
