"""`locks/base-<suite>.txt`: the Debian packages of a bootstrapped base, as name=version.

A mirror serves what is current: it can't be asked for last month's packages (snapshot mirrors can).
So a base with other packages than the locked ones is still a base, with security fixes perhaps; but
its layer and all images on it have other digests than elsewhere, and whoever builds is told so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from builder.records import write_atomic

__all__ = ["drift", "lock_path", "parse_packages", "write_base_lock"]


def lock_path(locks: Path, suite: str) -> Path:
    """Where the packages of a suite's base are locked."""
    return locks / f"base-{suite}.txt"


def parse_packages(text: str) -> dict[str, str]:
    """Parse lines of name=version; comments are left out."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: version for name, _, version in pairs}


def write_base_lock(path: Path, packages: Mapping[str, str]) -> None:
    """Write the lock, sorted."""
    header = "# Written by: python3 build.py lock --upgrade base\n"
    lines = "".join(f"{name}={version}\n" for name, version in sorted(packages.items()))
    write_atomic(path, header + lines)


def drift(locked: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """Say for each package how `found` differs from `locked`."""
    for name in sorted(locked.keys() | found.keys()):
        if locked.get(name) != found.get(name):
            yield f"{name} {locked.get(name, '(none)')} -> {found.get(name, '(none)')}"
