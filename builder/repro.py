"""What two builds of one row have in common, and where they part: a pure comparison.

Images are compared from the outside in: digest, configuration, layers, entries of a layer. What is
equal is not looked into any further.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from builder.causes import Pair, config_cause, file_cause, versions_of
from builder.errors import Finding
from builder.layers import Entry, Image, Layer, printable
from builder.oci import short_step
from builder.records import Record

__all__ = [
    "ChangeKind",
    "ConfigChange",
    "FileChange",
    "LayerChange",
    "ReproRecord",
    "compare_config",
    "compare_layers",
    "findings_of",
]

ChangeKind = Literal[
    "added", "removed", "type", "content", "mode", "owner", "mtime", "link", "xattr", "device"
]
DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]

_SHOWN = 5
_COMPRESSION = (
    "the same content, compressed otherwise: another version, level or number of threads of the "
    "compressor"
)
_ORDER = "the same entries in another order: the builder lists a folder as the disk has it"
_HEADERS = "the same entries; only how the tar format writes them differs"
_ONE_SIDED = (
    "only one build has this layer: an empty layer that was kept once and dropped once, or another "
    "Dockerfile"
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileChange(_Part):
    """One path that differs. `detail` gives values, never content."""

    path: str
    changes: tuple[ChangeKind, ...]
    detail: str
    cause: str


class LayerChange(_Part):
    """One layer that differs; `number` counts from 1 in the first build, or the one that has it.

    `change` is `files` when entries differ (then they are listed), `order`, `headers` or
    `compression` when only that does, `missing` when one build has no such layer.
    """

    number: int
    step: str
    first: DigestText | None
    second: DigestText | None
    change: Literal["files", "order", "headers", "compression", "missing"]
    cause: str
    files: tuple[FileChange, ...] = ()


class ConfigChange(_Part):
    """One key that differs in the configuration, or, as `manifest.KEY`, in the manifest."""

    key: str
    first: str
    second: str
    cause: str


class ReproRecord(Record):
    """Two builds of one plan without any cache. `seconds` is how long each took.

    The base and the files that lie on this machine are inputs, known by their hashes; they are not
    made again.
    """

    id: str
    build_key: str
    identical: bool
    first: DigestText
    second: DigestText
    seconds: tuple[float, float]
    config: tuple[ConfigChange, ...]
    layers: tuple[LayerChange, ...]
    engine: str
    finished: str


def compare_config(first: Image, second: Image) -> tuple[ConfigChange, ...]:
    """Return the keys that differ, without what merely follows from other layers."""
    left, right = _described(first), _described(second)
    return tuple(
        ConfigChange(
            key=key,
            first=_short(left.get(key)),
            second=_short(right.get(key)),
            cause=config_cause(key),
        )
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    )


def _described(image: Image) -> dict[str, object]:
    config = {key: value for key, value in image.config.items() if key != "rootfs"}
    others = {
        key: value for key, value in image.manifest.items() if key not in {"config", "layers"}
    }
    return dict(_flat(config)) | {f"manifest.{key}": value for key, value in _flat(others)}


def _flat(document: Any, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield each leaf of a document by its dotted key."""
    if isinstance(document, Mapping):
        items = ((str(name), value) for name, value in document.items())
    elif isinstance(document, list):
        items = ((str(index), value) for index, value in enumerate(document))
    else:
        yield key, document
        return
    for name, value in items:
        yield from _flat(value, f"{key}.{name}" if key else name)


def _short(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def compare_layers(first: Image, second: Image) -> tuple[LayerChange, ...]:
    """Return the layers that differ, from the lowest to the highest.

    Both images must have been read with `hashes`, at least in the layers that differ.
    """
    changes = []
    for number, left, right in _aligned(first.layers, second.layers):
        if left is None or right is None:
            changes.append(_one_sided(number, left, right))
        elif left.digest != right.digest:
            changes.append(_compare(number, left, right))
    return tuple(changes)


def _aligned(
    first: Sequence[Layer], second: Sequence[Layer]
) -> Iterator[tuple[int, Layer | None, Layer | None]]:
    """Yield layers of the same step together."""
    matcher = SequenceMatcher(
        None, [layer.step for layer in first], [layer.step for layer in second], autojunk=False
    )
    # As many layers: one for one, even where a build argument made another step of it.
    whole = [("equal", 0, len(first), 0, len(second))]
    opcodes = whole if len(first) == len(second) else matcher.get_opcodes()
    for _, start, end, other_start, other_end in opcodes:
        pairs = zip_longest(first[start:end], second[other_start:other_end])
        for offset, (left, right) in enumerate(pairs):
            yield (start if left else other_start) + offset + 1, left, right


def _one_sided(number: int, left: Layer | None, right: Layer | None) -> LayerChange:
    step = left.step if left else right.step if right else ""
    return LayerChange(
        number=number,
        step=short_step(step),
        first=left.digest if left else None,
        second=right.digest if right else None,
        change="missing",
        cause=_ONE_SIDED,
    )


def _compare(number: int, left: Layer, right: Layer) -> LayerChange:
    files: tuple[FileChange, ...] = ()
    change: Literal["files", "order", "headers", "compression"] = "compression"
    cause = _COMPRESSION
    if left.diff_id != right.diff_id:
        files = tuple(_files(left.entries or (), right.entries or ()))
        if files:
            change, cause = "files", _main_cause(files)
        elif [e.path for e in left.entries or ()] != [e.path for e in right.entries or ()]:
            change, cause = "order", _ORDER
        else:
            change, cause = "headers", _HEADERS
    return LayerChange(
        number=number,
        step=short_step(left.step),
        first=left.digest,
        second=right.digest,
        change=change,
        cause=cause,
        files=files,
    )


def _main_cause(files: Sequence[FileChange]) -> str:
    """Return the cause of most files; folders whose time changed because of them don't count."""
    counted = Counter(file.cause for file in files if file.changes != ("mtime",))
    return (counted or Counter(file.cause for file in files)).most_common(1)[0][0]


def _files(left: Sequence[Entry], right: Sequence[Entry]) -> Iterator[FileChange]:
    before = {entry.path: entry for entry in left}
    after = {entry.path: entry for entry in right}
    versions = versions_of(left, right)
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        changes = tuple(_changes(old, new))
        if changes:
            pair = Pair(path=path, changes=changes, before=old, after=new, versions=versions)
            yield FileChange(
                path=path, changes=changes, detail=_detail(old, new), cause=file_cause(pair)
            )


def _changes(old: Entry | None, new: Entry | None) -> Iterator[ChangeKind]:
    if old is None or new is None:
        yield "added" if old is None else "removed"
        return
    pairs: tuple[tuple[ChangeKind, object, object], ...] = (
        ("type", old.kind, new.kind),
        ("content", (old.size, old.sha256), (new.size, new.sha256)),
        ("mode", old.mode, new.mode),
        ("owner", _owner(old), _owner(new)),
        ("mtime", old.mtime, new.mtime),
        ("link", old.target, new.target),
        ("xattr", dict(old.pax), dict(new.pax)),
        ("device", old.device, new.device),
    )
    yield from (kind for kind, one, other in pairs if one != other)


def _owner(entry: Entry) -> str:
    names = f" ({entry.owner}:{entry.group})" if entry.owner or entry.group else ""
    return f"{entry.uid}:{entry.gid}{names}"


def _detail(old: Entry | None, new: Entry | None) -> str:
    if old is None or new is None:
        entry = old or new
        return f"{entry.kind}, {entry.size} bytes" if entry else ""
    pairs = (
        ("", old.kind, new.kind),
        ("bytes", old.size, new.size),
        ("mode", oct(old.mode), oct(new.mode)),
        ("owner", _owner(old), _owner(new)),
        ("time", f"{old.mtime:.0f}", f"{new.mtime:.0f}"),
        ("target", old.target, new.target),
        ("notes", ",".join(sorted(old.pax)), ",".join(sorted(new.pax))),
        ("device", old.device, new.device),
    )
    return "; ".join(
        f"{name} {one} -> {other}".strip() for name, one, other in pairs if one != other
    )


def findings_of(record: ReproRecord) -> list[Finding]:
    """Return what makes the two builds differ, the first differing layer first."""
    place = f"out/{record.id}/repro.json"
    found = [
        Finding(
            place=record.id,
            what=f"layer {layer.number} differs ({printable(layer.step) or 'no history'}): "
            f"{_listed(layer)}",
            why=f"Likely cause: {layer.cause}.",
            todo=f"Everything that differs is in {place}.",
        )
        for layer in record.layers
    ]
    if record.config:
        causes = dict.fromkeys(change.cause for change in record.config)
        found.append(
            Finding(
                place=record.id,
                what="the configuration differs in "
                + ", ".join(printable(change.key) for change in record.config),
                why=f"Likely cause: {'; '.join(causes)}.",
                todo=f"The values are in {place}.",
            )
        )
    return found


def _listed(layer: LayerChange) -> str:
    if not layer.files:
        return {"order": "order of entries", "missing": "in one build only"}.get(
            layer.change, f"{layer.change} only"
        )
    # Files before the folders that changed along with them.
    files = sorted(layer.files, key=lambda file: file.changes == ("mtime",))
    shown = [f"{printable(file.path)} ({', '.join(file.changes)})" for file in files[:_SHOWN]]
    more = len(files) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
