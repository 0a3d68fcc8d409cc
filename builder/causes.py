"""Why a file of one build differs from the same file of another, in plain words.

What is known best comes first: what changed, then what the content shows, then where the file lies.
A cause is a suspicion that fits what was seen; the text says what to do about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from builder.layers import Entry

__all__ = ["Pair", "config_cause", "file_cause", "versions_of"]

_PYC_TIMESTAMP = 0  # PEP 552: the flags of byte code that is checked by its source's time
_DIST_INFO = re.compile(r"(?:.*/)?(?P<name>[^/]+?)-(?P<version>[^/-]+)\.dist-info(?:/.*)?")
_NOTES = ("uv_cache.json", "uv_build.json", "direct_url.json", "INSTALLER", "REQUESTED")
_TIME = re.compile(
    rb"(?:19|20)\d\d-?[01]\d-?[0-3]\d"  # 2026-11-25, 20261125
    rb"|[0-2]\d:[0-5]\d:[0-5]\d"
    rb"|(?<!\d)1[6-9]\d{8}(?!\d)"  # seconds since 1970, from 2020 to 2033
)
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TEMPORARY = re.compile(rb"/tmp/[^\s\"']+")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One path in two builds; `changes` as in `repro.ChangeKind`, `versions` see `versions_of`."""

    path: str
    changes: tuple[str, ...]
    before: Entry | None
    after: Entry | None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def contents(self) -> tuple[bytes, bytes] | None:
        """Both contents, where they were kept."""
        first = self.before.content if self.before else None
        second = self.after.content if self.after else None
        return None if first is None or second is None else (first, second)


def versions_of(before: Iterable[Entry], after: Iterable[Entry]) -> dict[str, str]:
    """Map each distribution whose version differs to `old -> new`, by its normalized name."""
    first, second = _installed(before), _installed(after)
    return {
        name: f"{first.get(name, 'absent')} -> {second.get(name, 'absent')}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    }


def _installed(entries: Iterable[Entry]) -> dict[str, str]:
    found = (_DIST_INFO.fullmatch(entry.path) for entry in entries)
    return {_normal(match["name"]): match["version"] for match in found if match is not None}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def file_cause(pair: Pair) -> str:
    """Return the likely cause of a difference; it always says something."""
    cause = next(cause for rule in _RULES if (cause := rule(pair)))
    # What the step wrote anew has a time of its own; clamping alone would not make it equal.
    also = {"content", "mtime"} <= set(pair.changes)
    return f"{cause}; and its time is not clamped" if also else cause


def _attributes(pair: Pair) -> str:
    """What differs besides the content, when the content is the same."""
    if {"added", "removed", "content", "type"} & set(pair.changes):
        return ""
    words = {
        "mtime": "its time is not clamped to SOURCE_DATE_EPOCH: end the step with install.py, "
        "or touch what it wrote",
        "mode": "its mode depends on the umask or on what the file was copied from: set it",
        "owner": "its owner depends on who ran the step: set it",
        "link": "the link's target has a name that changes: a time, a random name, or a version",
        "xattr": "extended attributes or other notes of the file system went into the layer",
        "device": "a device node was made with other numbers",
    }
    return "; ".join(words[change] for change in pair.changes if change in words)


def _versions(pair: Pair) -> str:
    parts = [_normal(part) for part in pair.path.split("/")]
    if (found := _DIST_INFO.fullmatch(pair.path)) is not None:
        parts.append(_normal(found["name"]))
    for name, change in pair.versions.items():
        if name in parts:
            return f"another version of {name} was installed: {change}; lock it"
    return ""


def _byte_code(pair: Pair) -> str:
    if not pair.name.endswith(".pyc"):
        return ""
    if "content" not in pair.changes:
        return "byte code that only one build wrote: a program ran and cached what it imported"
    headers = [content[:16] for content in pair.contents or ()]
    flags = {int.from_bytes(header[4:8], "little") for header in headers}
    if flags == {_PYC_TIMESTAMP} and len({header[8:] for header in headers}) > 1:
        return "byte code that keeps the time of its source: compile it with unchecked-hash"
    if headers and len({header[8:] for header in headers}) > 1:
        return "byte code of another source: look at the .py file"
    order = "byte code compiled in another order or by several processes: one process, sorted"
    return order if headers else f"{order}; or it keeps the time of its source: unchecked-hash"


def _installer(pair: Pair) -> str:
    if ".dist-info/" not in f"{pair.path}/":
        return ""
    if pair.name in _NOTES:
        return "a note that the installer made about itself (when, from where): remove it"
    if pair.name == "RECORD":
        return (
            "the installer's list of files: it follows the files, or names a note of the installer"
        )
    return ""


def _place(pair: Pair) -> str:
    for pattern, cause in _PLACES:
        if pattern.search(pair.path):
            return cause
    return ""


_PLACES = tuple(
    (re.compile(pattern), cause)
    for pattern, cause in (
        (
            r"^var/cache/ldconfig/",
            "ldconfig's cache holds inode numbers and times: remove it (aux-cache)",
        ),
        (
            r"^var/(log|cache)/|^var/lib/apt/|^var/lib/dpkg/[^/]*-old$",
            "a log or cache that apt, dpkg or another tool leaves: remove it in the same step",
        ),
        (
            r"^var/lib/dpkg/(status|available|info/)",
            "other Debian packages or versions of them were installed: take the base by digest",
        ),
        (
            r"^etc/(hostname|hosts|resolv\.conf|machine-id|mtab)$|^var/lib/(dbus|systemd)/",
            "it says on which machine it was built: remove it",
        ),
        (
            r"^(tmp|var/tmp|root|run)/|/\.cache/|^home/[^/]+/\.",
            "a temporary or cached file that a tool left: remove it in the same step",
        ),
        (
            r"(^|/)settings\.(json|ya?ml)$",
            "settings that a program writes at its first start, with an id of its own: fix the id",
        ),
    )
)  # fmt: skip


def _content(pair: Pair) -> str:
    """What the bytes show that differ; the bytes themselves may be secret and are not quoted."""
    if "content" not in pair.changes or pair.contents is None:
        return ""
    first, second = pair.contents
    shown = (_json_keys(first, second), *_traces(first, second))
    found = [words for words in shown if words]
    return f"it differs in {', and in '.join(found)}" if found else ""


def _json_keys(first: bytes, second: bytes) -> str:
    try:
        left, right = json.loads(first), json.loads(second)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(left, dict) or not isinstance(right, dict):
        return ""
    keys = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    return f"the keys {', '.join(keys[:8])}" if keys else "how the same JSON is written"


def _traces(first: bytes, second: bytes) -> Iterable[str]:
    for pattern, words in (
        (_UUID, "a random id (UUID): make it from something fixed"),
        (_TIME, "a date or time: write SOURCE_DATE_EPOCH instead"),
        (_TEMPORARY, "the name of a temporary file"),
    ):
        if pattern.findall(first) != pattern.findall(second):
            yield words
            return
    if sorted(first.splitlines()) == sorted(second.splitlines()):
        yield "the order of its lines: sort what is written from a set or a folder"


def _kind_of_file(pair: Pair) -> str:
    if "content" not in pair.changes:
        return ""
    for endings, cause in _ENDINGS.items():
        if pair.name.endswith(endings):
            return cause
    return ""


_ENDINGS: Mapping[tuple[str, ...], str] = {
    (".pt", ".pth", ".onnx", ".safetensors", ".npy", ".npz", ".engine"): (
        "numbers that were made without a fixed seed, or an archive with the times of its members"
    ),
    (".gz", ".zip", ".whl", ".jar", ".tar", ".xz"): (
        "an archive that keeps the times of its members, or when it was made (gzip -n)"
    ),
    (".so", ".a", ".o"): (
        "compiled in the build: a time, a path or a random id ended in the binary"
    ),
    (".py",): "generated source: a time, or the order of a set",
}


def _only_in_one(pair: Pair) -> str:
    if not {"added", "removed"} & set(pair.changes):
        return ""
    return (
        "only one build wrote it: a random or dated name, a cache, or a step that depends on time"
    )


def _kind(pair: Pair) -> str:
    if "type" in pair.changes:
        return "it is another kind of file: the step went another way"
    return ""


def _unknown(_pair: Pair) -> str:
    return "unknown: time, randomness or order in the step that writes it"


_RULES: tuple[Callable[[Pair], str], ...] = (
    _attributes,
    _versions,
    _byte_code,
    _installer,
    _place,
    _content,
    _kind_of_file,
    _only_in_one,
    _kind,
    _unknown,
)


def config_cause(key: str) -> str:
    """Return the likely cause of a difference in the configuration or the manifest."""
    for pattern, cause in _CONFIG:
        if re.search(pattern, key):
            return cause
    return "the builder wrote it: another version of it, or other options"


_CONFIG = (
    (r"(^|\.)created$", "the time of the build: SOURCE_DATE_EPOCH did not reach the builder"),
    (r"created_by$", "a build argument that changes from build to build is part of the step"),
    (r"Labels\.", "a label that does not come from the plan"),
    (r"Env\b", "an environment variable that a step took from the builder"),
    (r"annotations", "an annotation of the builder: a time or a version"),
    (r"rootfs\.diff_ids|history", "another number of layers: an empty one was kept in one build"),
)
