"""uv resolves requirements into a hash lock, for an image's Python and Debian, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uv

from builder.errors import Finding, InvalidInput, SourceUnreachable, ToolkitError
from builder.sources import Sources

__all__ = ["Resolution", "resolve"]

_GLIBC = {"bookworm": "2_36", "trixie": "2_40"}


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What to resolve, and for what.

    `preferences` is an earlier lock, `overrides` and `constraints` are requirement lists as uv
    takes them. `archives` (name -> version) are locked as source archives, unbuilt: they are taken
    to need nothing. `place` is what an error is about.
    """

    place: str
    requirements: Sequence[str]
    python: str
    suite: str
    preferences: str = ""
    overrides: str = ""
    constraints: str = ""
    archives: Mapping[str, str] = field(default_factory=dict)
    upgrade: Sequence[str] = ()


def resolve(wanted: Resolution, sources: Sources) -> str:
    """Return the lock as text: a requirement list with hashes.

    Raises SourceUnreachable when the index does not answer, InvalidInput when no versions fit.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "in.txt").write_text("".join(f"{line}\n" for line in wanted.requirements))
        (work / "overrides.txt").write_text(wanted.overrides)
        (work / "constraints.txt").write_text(wanted.constraints)
        if wanted.preferences:
            (work / "out.txt").write_text(wanted.preferences)
        # The one configuration file that uv reads: no other, of the user or the system.
        (work / "uv.toml").write_text(_metadata(wanted.archives))
        done = subprocess.run(
            _argv(wanted, sources),
            cwd=work,
            env={
                **_inherited(os.environ),
                **sources.uv_environment(),
                "UV_CONFIG_FILE": str(work / "uv.toml"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise _failure(wanted.place, done.stderr)
        return (work / "out.txt").read_text(encoding="utf-8")


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would make a lock hang on this machine: uv's own variables and files.

    What of it says where packages come from is in the sources. Cache and time-outs stay.
    """
    harmless = ("UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_CONCURRENT_")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("UV_") or name.startswith(harmless)
    }


def _argv(wanted: Resolution, sources: Sources) -> list[str]:
    argv = [
        uv.find_uv_bin(), "pip", "compile", "in.txt", "--override", "overrides.txt",
        "--constraint", "constraints.txt", "--output-file", "out.txt",
        "--python-version", wanted.python,
        "--python-platform", f"x86_64-manylinux_{_GLIBC[wanted.suite]}",
        "--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate", "--quiet",
    ]  # fmt: skip
    argv += [word for archive in wanted.archives for word in ("--no-binary", archive)]
    argv += sources.uv_options()
    return argv + [word for package in wanted.upgrade for word in ("--upgrade-package", package)]


def _metadata(archives: Mapping[str, str]) -> str:
    """Tell uv what it would otherwise build an archive to find out."""
    entries = (
        f"[[dependency-metadata]]\nname = {json.dumps(name)}\n"
        f"version = {json.dumps(version)}\nrequires-dist = []\n"
        for name, version in archives.items()
    )
    return "\n".join(entries)


def _failure(place: str, stderr: str) -> ToolkitError:
    tail = "\n    ".join(line.strip() for line in stderr.strip().splitlines()[-12:])
    offline = ("error sending request", "dns error", "Failed to fetch", "tcp connect")
    if any(sign in stderr for sign in offline):
        return SourceUnreachable(
            Finding(
                place=place,
                what="the package index does not answer",
                why=tail,
                todo="Check the network, proxies and the index that pip or uv is configured with.",
            )
        )
    return InvalidInput(Finding(place=place, what="no set of versions fits", why=tail))
