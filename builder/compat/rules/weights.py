"""Checkpoints: which code can load them, which bytes a release tag has, which tasks exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from packaging.version import Version

from builder.compat.facts import load
from builder.compat.rule import fail, rule, warn
from builder.compat.rules.code import after
from builder.compat.verdict import Conflict

_FIRST_YOLO12 = Version("8.3.78")
_BROKEN_YOLO12 = (Version("8.4.34"), Version("8.4.35"))
_FORK = "yolov12-fork"
_FORK_TAGS = {"turbo", "v1.0", "seg", "cls"}
_LINEAGES = "sunsmarterjie/yolov12 issues 104, 109, 111, 127"
_NAME = re.compile(
    r"(yolov?\d+)([a-z])(?:-(seg|pose|cls|obb|oiv7|world\w*))?\.(pt|yaml|onnx|engine)"
)
_TASKS = {
    "seg": "segment",
    "segment": "segment",
    "pose": "pose",
    "cls": "classify",
    "classify": "classify",
    "obb": "obb",
    "detect": "detect",
}


class Checkpoint(NamedTuple):
    """A file name taken apart: `yolo12n-seg.pt` is (yolo12, n, segment, pt)."""

    family: str
    size: str
    task: str
    kind: str

    @property
    def trained(self) -> bool:
        """Whether the file holds trained parameters: a .yaml is only an architecture."""
        return self.kind != "yaml"


def checkpoint(weights: str) -> Checkpoint | None:
    """Return what a file name says; None for a name that is nobody's (`best.pt`)."""
    match = _NAME.fullmatch(weights.replace("\\", "/").rpartition("/")[2].lower())
    if match is None:
        return None
    return Checkpoint(match[1], match[2], _TASKS.get(match[3] or "detect", "detect"), match[4])


def _lineage(weights: str, lineage: str | None, distribution: str | None) -> str | None:
    """Return whose code the checkpoint needs: upstream, v1.0 (the same), turbo; None is unknown."""
    if lineage in {"turbo", "v1.0"}:
        return lineage
    found = checkpoint(weights)
    if found is None:
        return None
    if found.family == "yolov12":
        # The fork's own downloader fetches any name with "v12" from its turbo release.
        return "turbo" if distribution == _FORK and lineage is None else None
    return "upstream"


@rule("weights-family", "this ultralytics knows the model family")
def weights_family(
    code: Version, weights: str, lineage: str | None = None, distribution: str | None = None
) -> Iterator[Conflict]:
    """Judge the first release of each family, and the releases that broke YOLO12."""
    found = checkpoint(weights)
    if found is None or distribution == _FORK:
        return
    family = found.family
    if family == "yolov12":
        if lineage != "v1.0":
            return
        family = "yolo12"
    row = load("ultralytics")["families"].get(family)
    if row is None:
        return
    first = Version(row["first"])
    if code < first:
        yield fail(
            f"{weights} needs ultralytics {first} or newer, the first with {family}; {code} "
            "can't load it",
            "code weights",
            fix=f"Use ultralytics {first} or newer.",
            source=load("ultralytics")["sources"]["releases"],
            instead={"ultralytics": after(first)[:4]},
        )
    elif family == "yolo12" and code in _BROKEN_YOLO12 and found.trained:
        yield fail(
            f"ultralytics {code} can't run released YOLO12 checkpoints: 'AAttn' object has no "
            "attribute 'all_head_dim' (8.4.35 repairs it and was withdrawn)",
            "code weights",
            fix="Use 8.4.36 or newer, or 8.3.253.",
            source="code of 8.4.33 to 8.4.36 (inferred)",
            instead={"ultralytics": after(Version("8.4.36"))[:3]},
        )


@rule("weights-fork", "the code and the checkpoint come from the same line of YOLOv12")
def weights_fork(
    weights: str,
    code: Version | None = None,
    lineage: str | None = None,
    distribution: str | None = None,
) -> Iterator[Conflict]:
    """Judge upstream and v1.0 (one qkv) against turbo (qk and v apart)."""
    found = checkpoint(weights)
    which = _lineage(weights, lineage, distribution)
    yolo12 = (found is not None and found.family in {"yolo12", "yolov12"}) or which in {
        "turbo",
        "v1.0",
    }
    if not yolo12 or (code is None and distribution is None):
        return
    keys = "weights lineage" if lineage else "weights"
    if distribution == _FORK:
        yield from _in_fork(weights, which, keys)
    elif which == "turbo":
        yield fail(
            f"{weights} is a turbo checkpoint: ultralytics {code or ''} fails with 'AAttn' "
            "object has "
            "no attribute 'qkv'",
            f"{keys} {'code' if code else 'distribution'}",
            fix=f"Use yolo12*.pt, or the distribution {_FORK}.",
            source=f"{_LINEAGES}; ultralytics PR 19728 was closed without support",
            instead={
                "weights_lineage": ["v1.0"],
                "weights": [weights.replace("yolov12", "yolo12")],
                "distribution": [_FORK],
            },
        )
    elif which is None and found is not None and found.family == "yolov12":
        yield warn(
            f"{weights} is the name of two incompatible files, v1.0 and turbo; only v1.0 loads "
            "here",
            f"weights {'code' if code else 'distribution'}",
            fix="Say which with weights_lineage, or use yolo12*.pt.",
            source=_LINEAGES,
            instead={"weights_lineage": ["v1.0"]},
        )


def _in_fork(weights: str, which: str | None, keys: str) -> Iterator[Conflict]:
    if which in {"upstream", "v1.0"}:
        origin = "an upstream" if which == "upstream" else "a v1.0"
        yield fail(
            f"{weights} is {origin} checkpoint: the fork's main branch fails with 'AAttn' "
            "object has "
            "no attribute 'qk'",
            f"{keys} distribution",
            fix="Use the fork's turbo checkpoints, or the distribution ultralytics.",
            source=_LINEAGES,
            instead={
                "weights_lineage": ["turbo"],
                "weights": [weights.replace("yolo12", "yolov12")],
                "distribution": ["ultralytics"],
            },
        )


@rule("weights-hash", "the hash is that of the named file under the named tag")
def weights_hash(
    weights: str, sha256: str, asset_tag: str | None = None, weights_lineage: str | None = None
) -> Iterator[Conflict]:
    """Judge file x bytes x tag."""
    name = weights.replace("\\", "/").rpartition("/")[2]
    rows = load("weights")["weights"]
    same_name = [row for row in rows if row["name"] == name]
    owners = sorted({row["name"] for row in rows if row["sha256"] == sha256})
    source = load("weights")["sources"]["weights"]
    if owners and name not in owners and checkpoint(name) is not None:
        yield fail(
            f"this sha256 belongs to {', '.join(owners)}, not to {name}",
            "weights sha256",
            fix=f"Name {owners[0]}.",
            source=source,
            instead={"weights": owners, "sha256": [row["sha256"] for row in same_name]},
        )
        return
    tag = asset_tag or (weights_lineage if weights_lineage in {"turbo", "v1.0"} else None)
    matching = [row for row in same_name if row["sha256"] == sha256]
    if tag is None:
        yield from _without_tag(name, same_name, matching, source)
        return
    keys = "weights sha256 asset_tag" if asset_tag else "weights sha256 weights_lineage"
    tagged = [row for row in same_name if tag in row["tags"]]
    if any(tag in row["tags"] for row in matching):
        if all(row["status"] == "unverified" for row in matching if tag in row["tags"]):
            yield warn(
                f"that {name} of {tag} has these bytes was not verified", keys, source=source
            )
    elif tagged and not (matching and not matching[0]["tags"] and tag in {"v0.0.0", "v8.1.0"}):
        other = (
            f"; these are the bytes of {', '.join(matching[0]['tags'])}"
            if matching and matching[0]["tags"]
            else ""
        )
        yield fail(
            f"{name} of {tag} has sha256 {tagged[0]['sha256'][:12]}..., not "
            f"{sha256[:12]}...{other}",
            keys,
            fix="Pin the hash of the tag that is downloaded.",
            source=source,
            instead={
                "sha256": [row["sha256"] for row in tagged],
                "asset_tag": matching[0]["tags"] if matching else [],
            },
        )
    else:
        yield warn(f"the bytes of {name} of {tag} are not known", keys, source=source)


def _without_tag(
    name: str, same_name: list[dict[str, str]], matching: list[dict[str, str]], source: str
) -> Iterator[Conflict]:
    if not same_name or any(row["status"] != "unverified" for row in matching):
        return
    if matching:
        yield warn(f"that {name} has these bytes was not verified", "weights sha256", source=source)
    elif name.startswith(("yolov8", "yolov12")):
        yield warn(
            f"this sha256 is none of the {len(same_name)} known ones of {name}; not all "
            "releases of it "
            "are known",
            "weights sha256",
            source=source,
            instead={"sha256": [row["sha256"] for row in same_name]},
        )
    else:
        yield fail(
            f"this is not the sha256 of {name}: {same_name[0]['sha256'][:12]}... in every release",
            "weights sha256",
            fix="A file of one's own needs a name of its own.",
            source=source,
            instead={"sha256": [row["sha256"] for row in same_name]},
        )


@rule("weights-tag", "the release tag has the named file")
def weights_tag(weights: str, asset_tag: str) -> Iterator[Conflict]:
    """Judge file x tag."""
    found = checkpoint(weights)
    known = load("weights")["asset_tags"]
    if found is None or not found.trained:
        return
    if asset_tag in _FORK_TAGS:
        if found.family != "yolov12":
            yield fail(
                f"the YOLOv12 repository's release {asset_tag} has yolov12*.pt, not {weights}",
                "weights asset_tag",
                fix="Use a tag of ultralytics/assets, such as v8.4.0.",
                source=_LINEAGES,
                instead={"asset_tag": ["v8.4.0"]},
            )
    elif found.family == "yolov12":
        yield fail(
            f"{weights} is not in ultralytics/assets: it is the YOLOv12 repository's, tags v1.0 "
            "and turbo",
            "weights asset_tag",
            fix="Use yolo12*.pt, or the tag v1.0 or turbo.",
            source=_LINEAGES,
            instead={"asset_tag": ["v1.0", "turbo"]},
        )
    elif asset_tag not in known:
        yield from _unknown_tag(asset_tag, known)
    else:
        first = (load("ultralytics")["families"].get(found.family) or {}).get("first_tag")
        if first and known.index(asset_tag) < known.index(first):
            yield fail(
                f"{weights} came with {first}: {asset_tag} does not have it",
                "weights asset_tag",
                fix=f"Use {known[-1]}.",
                source=load("weights")["sources"]["weights"],
                instead={"asset_tag": [known[-1], first]},
            )


def _unknown_tag(tag: str, known: list[str]) -> Iterator[Conflict]:
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)", tag)
    newest = Version(known[-1])
    if match and newest < Version(tag) < Version("v10"):
        yield warn(f"the tag {tag} is newer than the data, which end at {known[-1]}", "asset_tag")
    else:
        yield fail(
            f"ultralytics/assets has no tag {tag[:40]!a} with checkpoints",
            "asset_tag",
            fix=f"Use one of {', '.join(known)}.",
            instead={"asset_tag": known[::-1]},
        )


@rule("weights-default-tag", "the hash is what this ultralytics would download itself")
def weights_default_tag(
    ultralytics: Version,
    weights: str,
    sha256: str,
    asset_tag: str | None = None,
    distribution: str | None = None,
) -> Iterator[Conflict]:
    """Without a tag, the release's own default tag is what fetches."""
    if asset_tag is not None or distribution == _FORK:
        return
    tags = [
        row["tag"]
        for row in load("ultralytics")["default_tag"]
        if Version(row["from"]) <= ultralytics
        and (row["to"] is None or ultralytics <= Version(row["to"]))
    ]
    rows = [row for row in load("weights")["weights"] if row["name"] == weights]
    here = [row["sha256"] for row in rows if tags and tags[0] in row["tags"]]
    if here and sha256 not in here and any(row["sha256"] == sha256 for row in rows):
        yield warn(
            f"ultralytics {ultralytics} downloads {weights} from {tags[0]}, which has other "
            "bytes than "
            "this sha256",
            "ultralytics weights sha256",
            fix="Ship the file in the image, or pin the other hash.",
            source=load("weights")["sources"]["weights"],
            instead={"sha256": here},
        )


@rule("weights-task", "trained parameters exist for this task")
def weights_task(weights: str, task: str | None = None) -> Iterator[Conflict]:
    """Of YOLO12 only detection was released."""
    found = checkpoint(weights)
    if found is None or not found.trained:
        return
    wanted = _TASKS.get(task or "", task) or found.task
    missing = found.task if found.task != "detect" else wanted
    if found.family == "yolo12" and missing != "detect":
        yield fail(
            f"there are no released YOLO12 checkpoints for {missing}, only for detect",
            "weights task" if found.task == "detect" else "weights",
            fix="Use detect, or yolo11*-seg.pt and the like.",
            source="ultralytics documentation, yolo12 (official)",
            instead={
                "task": ["detect"],
                "weights": [
                    f"yolo11{found.size}{_suffix(missing)}.pt",
                    f"yolo12{found.size}.pt",
                ],
            },
        )
    elif wanted != found.task:
        right = f"{found.family}{found.size}{_suffix(wanted)}.pt"
        yield warn(
            f"{weights} is a checkpoint for {found.task}: ultralytics ignores task={task}",
            "weights task",
            fix=f"Use {right}.",
            instead={"task": [found.task], "weights": [right]},
        )


def _suffix(task: str | None) -> str:
    return {"segment": "-seg", "pose": "-pose", "classify": "-cls", "obb": "-obb"}.get(
        task or "", ""
    )


@rule("weights-size", "the model size is one that was released")
def weights_size(weights: str) -> Iterator[Conflict]:
    """Sizes are n, s, m, l, x."""
    found = checkpoint(weights)
    if (
        found
        and found.family in {"yolov8", "yolo11", "yolo12", "yolov12", "yolo26"}
        and found.size not in "nsmlx"
    ):
        yield fail(
            f"there is no {weights}: sizes are n, s, m, l and x",
            "weights",
            source=load("weights")["sources"]["weights"],
            instead={
                "weights": [
                    weights.lower().replace(f"{found.family}{found.size}", f"{found.family}n", 1)
                ]
            },
        )
