"""The build key: everything that decides an image's content, by name, and the hash of it all.

Kept by name in the build record, so that a changed key can be explained: see `differences`.
Revision and repository URL are labels that move with each commit; they don't force a rebuild.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from builder.requirements import Locked, step_of
from builder.spec import ImageSpec

__all__ = ["build_key", "differences", "key_inputs"]

_MOVING = {"org.opencontainers.image.revision", "org.opencontainers.image.source"}
_SHARED_FOLDERS = {"base", "stack", "runtime"}


def key_inputs(
    row: ImageSpec,
    *,
    epoch: int,
    base: str,
    files: Mapping[str, str],
    entries: Iterable[Locked],
    image_json: str,
    labels: Mapping[str, str],
    random_weights: Sequence[str],
) -> dict[str, str]:
    """Name every input of a build. `files` maps paths below images/ to hashes of their content."""
    named = {
        "epoch": str(epoch),
        "python": row.stack.python,
        "base": base,
        "image.json": _sha256(image_json),
        "random checkpoints": " ".join(random_weights),
    }
    named.update(
        (f"images/{path}", value)
        for path, value in files.items()
        if path.partition("/")[0] in _SHARED_FOLDERS | {row.image}
    )
    named.update((f"package {entry.name}", _package(entry)) for entry in entries)
    named.update((f"label {name}", text) for name, text in labels.items() if name not in _MOVING)
    return dict(sorted(named.items()))


def _package(entry: Locked) -> str:
    """Version, step and hashes: a package that moves to another step moves to another layer."""
    hashes = _sha256(" ".join(sorted(entry.hashes)))[:12]
    return f"{entry.version} in step {step_of(entry.name)}, hashes {hashes}"


def build_key(inputs: Mapping[str, str]) -> str:
    """Return the hash of all inputs."""
    return _sha256(json.dumps(inputs, sort_keys=True))


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Say what changed, in the order of the names; derived inputs only when nothing else did."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    telling = [name for name in names if name not in _DERIVED]
    for name in telling or names:
        yield f"{name}: {_shown(name, old)} -> {_shown(name, new)}"


# These say in other words what the named inputs say.
_DERIVED = {"image.json", "label org.yolo-images.lock"}


def _shown(name: str, inputs: Mapping[str, str]) -> str:
    if name not in inputs:
        return "(none)"
    value = inputs[name] or '""'
    return (
        value[:12]
        if len(value) == 64 and name.startswith(("images/", "image.", "label"))
        else value
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
