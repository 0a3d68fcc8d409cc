"""Checkpoints without torch: recorded ones, and pickles put together by hand."""

from __future__ import annotations

import json
import lzma
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded" / "checkpoints"


@dataclass(frozen=True)
class Recorded:
    """What torch wrote (`pickle`), and what torch says about it."""

    pickle: bytes
    keys: list[tuple[str, tuple[int, ...], str]]
    storages: dict[str, int]


def recorded(name: str) -> Recorded:
    said = json.loads(lzma.decompress((RECORDED / f"{name}.json.xz").read_bytes()))
    path = RECORDED / f"{name}.pkl.xz"
    return Recorded(
        pickle=lzma.decompress(path.read_bytes()) if path.exists() else b"",
        keys=[(key, tuple(shape), dtype) for key, shape, dtype in said["keys"]],
        storages=said["storages"],
    )


def write_zip(
    path: Path,
    pickle: bytes,
    storages: Mapping[str, int] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a checkpoint with these storages, in bytes of zeros."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle)
        for key, size in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", bytes(size))
    return path


# A pickle by hand: plain values are themselves, and the classes below stand for the rest.


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """`function(*args)`"""

    function: object
    args: object = ()


@dataclass(frozen=True)
class New:
    """`cls.__new__(cls)`, filled with `state`."""

    cls: object
    state: object


@dataclass(frozen=True)
class Outside:
    """A persistent id."""

    id: object


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


def pickled(value: object) -> bytes:
    return b"\x80\x02" + code(value) + b"."


def code(value: Any) -> bytes:  # noqa: PLR0911, PLR0912, C901 - one line per kind reads best
    match value:
        case Raw():
            return value.code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case str():
            text = value.encode()
            return b"X" + len(text).to_bytes(4, "little") + text
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}(" + b"".join(code(part) for pair in value.items() for part in pair) + b"u"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return code(value.function) + code(value.args) + b"R"
        case New():
            return code(value.cls) + b")\x81" + code(value.state) + b"b"
        case Outside():
            return code(value.id) + b"Q"
        case _:
            raise TypeError(value)


def tensor(
    *shape: int,
    key: str = "0",
    count: int | None = None,
    kind: str = "FloatStorage",
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
) -> Call:
    """A contiguous tensor, unless `strides` say otherwise, as torch pickles it."""
    numbers = 1
    steps: list[int] = []
    for size in reversed(shape):
        steps.insert(0, numbers)
        numbers *= size
    storage = ("storage", Global("torch", kind), key, "cpu", numbers if count is None else count)
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"),
        (Outside(storage), offset, shape, tuple(steps) if strides is None else strides, False, {}),
    )


def module(cls: str, **state: object) -> New:
    """An nn.Module of the class `torch.nn.modules...` or `ultralytics...`, with `state`."""
    path, _, name = cls.rpartition(".")
    return New(Global(path, name), {"_parameters": {}, "_buffers": {}, "_modules": {}, **state})
