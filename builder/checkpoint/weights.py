"""The state dict of a model by names, shapes and types, walked as torch would walk it.

The rules are those of `torch.nn.Module.state_dict` (torch/nn/modules/module.py) and of the
functions that torch's pickles name for tensors (torch/_utils.py, torch/_tensor.py), all of 2.8.
State-dict hooks and `get_extra_state` are code, so they can't be followed; YOLO uses neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from builder.checkpoint.archive import Archive
from builder.checkpoint.graph import (
    MAX_DEPTH,
    CheckpointError,
    Node,
    Persistent,
    dotted,
    shown,
)

__all__ = ["Tensor", "Weights", "read_weights"]

MAX_ENTRIES = 30_000
"""Modules, parameters and buffers that are visited: yolo12x has 3,400. When each level of a graph
holds the next one twice, forty levels have more than there is time for."""

MAX_KEY = 500
"""Characters of a key: yolo12x's have 46 at most. Names of megabytes would add up."""

_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
# The classes by which torch names a storage's type; newer types have no class but a dtype.
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_TYPED = "torch._tensor._rebuild_from_type_v2"
_TENSOR_V3 = "torch._utils._rebuild_tensor_v3"
_TENSORS = {"torch._utils._rebuild_tensor_v2", _TENSOR_V3}
_REBUILDERS = _PARAMETERS | _TENSORS | {_TYPED}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor without its numbers; `dtype` is spelled as torch does, without `torch.`."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A state dict in its order, and the classes of the modules it was taken from."""

    tensors: Mapping[str, Tensor]
    modules: frozenset[str]


def read_weights(root: object, archive: Archive) -> Weights:
    """Return the weights in the graph `root`, whose storages are all in `archive`, whole.

    Those that ultralytics takes: `ema` when it is there, else `model`. Each may be a module or a
    state dict, and so may be `root` itself. Raises CheckpointError.
    """
    walk = _Walk(archive)
    fields = _fields(root)
    for candidate in (*(fields.get(key) for key in ("ema", "model", "state_dict")), root):
        if _is_module(candidate):
            walk.module(candidate, "", 0)
            break
        if any(_is_tensor(value) for value in _fields(candidate).values()):
            walk.state_dict(_fields(candidate))
            break
    else:
        keys = ", ".join(shown(key) for key in list(fields)[:8])
        raise CheckpointError(
            "it holds no weights",
            why=f"There is no module and no state dict in it{f', only {keys}' if keys else ''}.",
        )
    return walk.weights()


def _fields(value: object) -> dict[str, object]:
    """Return the entries of a dict in the graph; none of anything else."""
    return value.fields() if isinstance(value, Node) else {}


def _is_module(value: object) -> bool:
    return isinstance(value, Node) and {"_modules", "_parameters"} <= value.attributes().keys()


def _is_tensor(value: object) -> bool:
    return isinstance(value, Node) and value.called and dotted(value.maker) in _REBUILDERS


class _Walk:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tensors: dict[str, Tensor] = {}
        self._modules: set[str] = set()
        self._storages: dict[str, int] = {}
        self._problems: list[str] = []
        self._left = MAX_ENTRIES

    def weights(self) -> Weights:
        """Return what was found; CheckpointError when storages are not what they should be."""
        if self._problems:
            more = len(self._problems) - 3
            raise CheckpointError(
                "; ".join(self._problems[:3]) + (f"; and {more} more" if more > 0 else ""),
                why="The file is damaged or was put together by hand.",
                todo="Download it again.",
            )
        return Weights(tensors=self._tensors, modules=frozenset(self._modules))

    def module(self, node: object, prefix: str, depth: int) -> None:
        """Add the parameters, buffers and modules of `node`, in the order of a state dict."""
        if not isinstance(node, Node) or not _is_module(node):
            raise CheckpointError(f"{_at(prefix)} is no module")
        if depth > MAX_DEPTH:
            raise CheckpointError(f"its modules are nested too deep: more than {MAX_DEPTH} levels")
        self._modules.add(_name(node.maker))
        attributes = node.attributes()
        parts = [_fields(attributes.get(key)) for key in ("_parameters", "_buffers", "_modules")]
        unsaved = _members(attributes.get("_non_persistent_buffers_set"))
        self._spend(1 + len(unsaved) + sum(map(len, parts)))
        parameters, buffers, modules = parts
        hidden = {name for name in unsaved if isinstance(name, str)}
        kept = {name: value for name, value in buffers.items() if name not in hidden}
        for name, value in (*parameters.items(), *kept.items()):
            if value is not None:
                self._add(prefix + name, value)
        for name, value in modules.items():
            if value is not None:
                self.module(value, _key(f"{prefix}{name}."), depth + 1)

    def state_dict(self, fields: Mapping[str, object]) -> None:
        """Add the tensors of a plain state dict, leaving out what is none."""
        self._spend(len(fields))
        for name, value in fields.items():
            if _is_tensor(value):
                self._add(name, value)

    def _spend(self, entries: int) -> None:
        self._left -= entries
        if self._left < 0:
            raise CheckpointError(f"its model has too many parts: more than {MAX_ENTRIES}")

    def _add(self, key: str, value: object) -> None:
        self._tensors[_key(key)] = self._tensor(key, value)

    def _tensor(self, key: str, value: object) -> Tensor:
        maker, args = _rebuilt(value)
        newer = maker == _TENSOR_V3
        if maker not in _TENSORS or len(args) < (7 if newer else 6):
            raise CheckpointError(
                f"{_at(key)} is no plain tensor: made by {shown(maker) or 'nothing that is known'}"
            )
        reference, offset, shape, strides = args[:4]
        if not (_is_size(offset) and _is_sizes(shape) and _is_sizes(strides)):
            raise CheckpointError(f"{_at(key)} has a shape that is not made of sizes")
        if len(shape) != len(strides):
            raise CheckpointError(f"{_at(key)} has more sizes than strides, or fewer")
        dtype, count = self._storage(key, reference, args[6] if newer else None)
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if 0 not in shape and last >= count:
            raise CheckpointError(f"{_at(key)} is larger than its storage of {count} numbers")
        return Tensor(shape=shape, dtype=dtype)

    def _storage(self, key: str, reference: object, dtype: object) -> tuple[str, int]:
        """Return the type and the number of numbers in a storage, and note when it is not whole.

        A reference is `('storage', class, key, device, count)`; with an untyped storage the count
        is one of bytes, and the tensor names its `dtype`.
        """
        parts = reference.id if isinstance(reference, Persistent) else None
        if not isinstance(parts, tuple) or len(parts) != 5:
            raise CheckpointError(f"{_at(key)} does not refer to a storage")
        _, kind, name, _, count = parts
        if not isinstance(name, str) or not _is_size(count):
            raise CheckpointError(f"{_at(key)} does not refer to a storage")
        known = dotted(dtype).removeprefix("torch.") if dtype else _STORAGES.get(dotted(kind), "")
        if known not in _BYTES:
            raise CheckpointError(
                f"{_at(key)} has numbers of an unknown type: {_name(dtype or kind)}"
            )
        size = count if dtype else count * _BYTES[known]
        if name not in self._storages:
            self._storages[name] = size
            self._check(name, size)
        elif self._storages[name] != size:
            raise CheckpointError(f"{_at(key)} takes storage {shown(name)} for another size")
        return known, size // _BYTES[known]

    def _check(self, name: str, size: int) -> None:
        found = self._archive.storage_size(name)
        if found is None:
            self._problems.append(f"storage {shown(name)} is missing")
        elif found != size:
            self._problems.append(f"storage {shown(name)} has {found} bytes instead of {size}")


def _rebuilt(value: object) -> tuple[str, tuple[object, ...]]:
    """Return the function that makes a tensor, and its arguments, without what is wrapped around.

    A parameter is made from a tensor; a tensor with attributes names the function that makes it.
    """
    for _ in range(4):
        if not _is_tensor(value) or not isinstance(value, Node):
            break
        maker, args = dotted(value.maker), value.args if isinstance(value.args, tuple) else ()
        if maker in _PARAMETERS and args:
            value = args[0]
        elif maker == _TYPED and len(args) > 2:
            value = Node(args[0], args[2], called=True)
        else:
            return maker, args
    return (_name(value.maker) if isinstance(value, Node) else ""), ()


def _is_size(value: object) -> TypeGuard[int]:
    """Say whether this is a size as torch has them: 63 bits. True and False are none."""
    return type(value) is int and 0 <= value < 2**63


def _is_sizes(values: object) -> TypeGuard[tuple[int, ...]]:
    """Say whether these are the sizes of a tensor, which has 64 dimensions at most."""
    return isinstance(values, tuple) and len(values) <= 64 and all(map(_is_size, values))


def _members(value: object) -> list[object]:
    """Return the members of a set in the graph; protocol 2 makes one by calling it with a list."""
    if not isinstance(value, Node):
        return []
    if isinstance(value.args, tuple) and len(value.args) == 1 and isinstance(value.args[0], Node):
        return value.args[0].items
    return value.items


def _name(value: object) -> str:
    return shown(dotted(value)) or "something without a name"


def _key(text: str) -> str:
    if len(text) > MAX_KEY:
        raise CheckpointError(f"{_at(text)}: its key has more than {MAX_KEY} characters")
    if not text.isprintable():
        raise CheckpointError(f"{_at(text)}: its key is not printable")
    return text


def _at(key: str) -> str:
    return f"the model's {shown(key)}"
