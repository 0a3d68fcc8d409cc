"""Make data/index.json: everything about compatibility that a package index can tell.

    python -m builder.compat.generate            show what would change
    python -m builder.compat.generate --write    and write it

A shrunken answer (a mirror that lost releases, an API that changed) must not shrink what we know:
each part has a floor.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from builder.compat.package_index import File, Index, PackageIndex, configured_index
from builder.records import write_atomic

__all__ = ["FLOORS", "generate", "main", "render"]

FLOORS: Mapping[str, int] = {
    "torch": 28,
    "torchvision": 29,
    "tensorrt_bindings": 60,
    "onnxruntime_gpu": 20,
    "ultralytics": 400,
}
"""The least number of entries a part had when it was last reviewed (2026-11-24)."""

_OLDEST: Mapping[str, str] = {"torch": "2.0.0", "torchvision": "0.15.0", "onnxruntime-gpu": "1.17"}
_MACHINES = ("x86_64", "aarch64")
_CPYTHON = re.compile(r"cp3(\d+)")
_GLIBC = re.compile(r"manylinux(?:_(\d+)_(\d+)|(1|2010|2014))_")
_LEGACY = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}  # PEP 600's table of the old names

Part = dict[str, Any]


def generate(index: Index) -> dict[str, Part]:
    """Return the whole table; ValueError when a part is below its floor."""
    parts: dict[str, Part] = {
        "torch": _torch(index),
        "torchvision": _torchvision(index),
        "tensorrt_bindings": _tensorrt(index),
        "onnxruntime_gpu": _onnxruntime(index),
        "ultralytics": _ultralytics(index),
    }
    for name, floor in FLOORS.items():
        if len(parts[name]) < floor:
            raise ValueError(f"{name}: {len(parts[name])} entries, expected at least {floor}")
    return parts


def _releases(index: Index, project: str) -> dict[Version, list[File]]:
    oldest = Version(_OLDEST.get(project, "0"))
    found: dict[Version, list[File]] = {}
    for file in index.wheels(project):
        if file.version >= oldest and not file.version.is_prerelease:
            found.setdefault(file.version, []).append(file)
    return dict(sorted(found.items()))


def _linux(files: Iterable[File], machine: str) -> list[File]:
    return [f for f in files if any(_fits(tag[2], machine) for tag in f.tags)]


def _fits(platform: str, machine: str) -> bool:
    return platform == "any" or (platform.startswith("manylinux") and platform.endswith(machine))


def _pythons(files: Iterable[File]) -> list[str]:
    """Return the interpreters as `3.13` and, free-threaded, `3.13t`; `py3` for any of them."""
    names = {_python(interpreter, abi) for f in files for interpreter, abi, _ in f.tags}
    return sorted(names - {""}, key=lambda n: (int(re.sub(r"\D", "", n.partition(".")[2]) or 0), n))


def _python(interpreter: str, abi: str) -> str:
    if interpreter == "py3":
        return "py3"
    match = _CPYTHON.fullmatch(interpreter)
    if match is None:
        return ""
    return f"3.{match[1]}t" if abi.endswith("t") else f"3.{match[1]}"


def _glibc(files: Iterable[File]) -> str | None:
    """Return the lowest glibc that some wheel's tag accepts."""
    floors = []
    for _, _, platform in (tag for file in files for tag in file.tags):
        match = _GLIBC.match(platform)
        if match:
            floors.append(_LEGACY[match[3]] if match[3] else (int(match[1]), int(match[2])))
    return ".".join(map(str, min(floors))) if floors else None


def _per_machine(files: list[File]) -> Part:
    found: Part = {}
    for machine in _MACHINES:
        wheels = _linux(files, machine)
        if wheels:
            found[machine] = {"python": _pythons(wheels), "glibc": _glibc(wheels)}
    return found


def _pin(lines: Iterable[str], machine: str, names: re.Pattern[str]) -> str | None:
    """Return the version that the first requirement on `names` pins on Linux `machine`."""
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if names.fullmatch(requirement.name) and _applies(requirement, machine):
            return next((s.version for s in requirement.specifier if s.operator == "=="), None)
    return None


def _applies(requirement: Requirement, machine: str) -> bool:
    if requirement.marker is None:
        return True
    linux = {
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "python_version": "3.12",
        "extra": "",
    }
    return requirement.marker.evaluate(linux)


_CUDART = re.compile(r"nvidia-cuda-runtime(-cu\d+)?|cuda-toolkit")
_CUDNN = re.compile(r"nvidia-cudnn-cu\d+")


def _torch(index: Index) -> Part:
    found: Part = {}
    for version, files in _releases(index, "torch").items():
        entry = _per_machine(files)
        for machine in entry:
            lines = index.requires(min(_linux(files, machine), key=lambda f: f.name))
            cudart = _pin(lines, machine, _CUDART)
            entry[machine]["cuda"] = None if cudart is None else ".".join(cudart.split(".")[:2])
            entry[machine]["cudnn"] = _pin(lines, machine, _CUDNN)
        found[str(version)] = entry
    return found


def _torchvision(index: Index) -> Part:
    found: Part = {}
    for version, files in _releases(index, "torchvision").items():
        wheels = _linux(files, "x86_64")
        if not wheels:
            continue
        entry = _per_machine(files)
        lines = index.requires(min(wheels, key=lambda f: f.name))
        specs = [Requirement(line).specifier for line in lines if re.match(r"torch\b", line)]
        entry["torch"] = str(specs[0]) if specs else ""
        entry["requires_python"] = wheels[0].requires_python
        entry["yanked"] = wheels[0].yanked
        found[str(version)] = entry
    return found


def _tensorrt(index: Index) -> Part:
    found: Part = {}
    for project in ("cu11", "cu12", "cu13"):
        for version, files in _releases(index, f"tensorrt-{project}-bindings").items():
            found[f"{project} {version}"] = _per_machine(files)
    return found


def _onnxruntime(index: Index) -> Part:
    releases = _releases(index, "onnxruntime-gpu")
    return {str(v): _per_machine(files) for v, files in releases.items() if _per_machine(files)}


def _ultralytics(index: Index) -> Part:
    releases = _releases(index, "ultralytics")
    return {
        str(v): next((f.yanked for f in files if f.yanked), None) for v, files in releases.items()
    }


def render(parts: Mapping[str, Part]) -> str:
    """Return the table as JSON, one line an entry, so that a change reads as a changed line."""
    sections = []
    for name, part in parts.items():
        rows = [f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in part.items()]
        sections.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n  }")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _diff(old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), "committed", "index", n=0, lineterm=""
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None, *, connect: Callable[[], Index] | None = None) -> int:
    """Show, and with --write apply, what the index says now. Exit 1 when there is a difference."""
    parser = argparse.ArgumentParser(prog="builder.compat.generate", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write data/index.json")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data/index.json")
    options = parser.parse_args(arguments)
    text = render(generate((connect or _connect)()))
    path: Path = options.output
    difference = _diff(path.read_text("utf-8") if path.exists() else "", text)
    if difference:
        print(difference)
    if options.write:
        write_atomic(path, text)
    return 1 if difference and not options.write else 0


def _connect() -> Index:
    retrying = httpx.HTTPTransport(retries=3)
    client = httpx.Client(timeout=60, follow_redirects=True, transport=retrying)
    return PackageIndex(configured_index(), client)


if __name__ == "__main__":
    sys.exit(main())
