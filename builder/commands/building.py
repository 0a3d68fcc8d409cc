"""`build.py plan` and `build`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from builder.bakefile import bake_definition
from builder.bases import BaseChoice
from builder.build import Builder, BuildOptions, Origin
from builder.commands.checking import refuse_incompatible
from builder.disk import FLOOR, parse_bytes
from builder.flash_compile import announce, local_machine
from builder.folders import Folders
from builder.matrix import load_matrix, select
from builder.preflight import parse_allowed
from builder.room import DiskOptions
from builder.sources import Sources, load_sources
from builder.spec import ImageSpec
from builder.talk import Talk

__all__ = [
    "build_rows",
    "builder_of",
    "compatible_rows",
    "machine_sources",
    "make_builder",
    "print_plan",
]


def machine_sources(root: Path) -> Sources:
    """This machine's sources, with what matrix.yaml and the environment name in their place."""
    return load_sources(os.environ, load_matrix(Folders(root).matrix).sources)


def print_plan(arguments: argparse.Namespace, root: Path) -> int:
    """Print the plan: our records, or the bake file that the builder gets."""
    builder = builder_of(arguments, root)
    plans = builder.plan(compatible_rows(root, arguments.pattern), complete=False)
    wheels = [plan.wheel for plan in plans if plan.wheel is not None]
    for compilation in dict.fromkeys(w.compilation for w in wheels if w.sha256 is None):
        announce(compilation, local_machine(), builder.talk)
    if arguments.format == "bake":
        print(json.dumps(bake_definition(plans, builder.folders.layout()), indent=2))
    else:
        print(json.dumps([plan.record.model_dump(mode="json") for plan in plans], indent=2))
    return 0


def build_rows(arguments: argparse.Namespace, root: Path) -> int:
    """Build the selected rows and print their records."""
    builder = builder_of(arguments, root)
    records = builder.build(builder.plan(compatible_rows(root, arguments.pattern)))
    print(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
    return 0


def compatible_rows(root: Path, pattern: str | None) -> tuple[ImageSpec, ...]:
    """Return the selected rows; Incompatible when one of them can't work."""
    matrix = load_matrix(Folders(root).matrix)
    rows = select(matrix.rows, pattern)
    refuse_incompatible(rows, matrix)
    return rows


def builder_of(arguments: argparse.Namespace, root: Path) -> Builder:
    """Return the builder that the command line asks for."""
    return make_builder(
        root,
        Talk(),
        allow_missing=arguments.allow_missing,
        base=arguments.base,
        no_cache=getattr(arguments, "no_cache", False),
        disk=_disk_options(arguments),
        wait=not getattr(arguments, "no_wait", False),
    )


def _disk_options(arguments: argparse.Namespace) -> DiskOptions:
    def size(option: str) -> int | None:
        text = getattr(arguments, option.strip("-").replace("-", "_"), None)
        return None if text is None else parse_bytes(text, option)

    min_free = size("--min-free")
    return DiskOptions(
        min_free=FLOOR if min_free is None else min_free,
        row_space=size("--row-space"),
        cache_budget=size("--cache-budget"),
    )


def make_builder(
    root: Path,
    talk: Talk,
    *,
    allow_missing: str | None,
    base: BaseChoice = "auto",
    no_cache: bool = False,
    disk: DiskOptions | None = None,
    wait: bool = True,
) -> Builder:
    """Return a Builder with this machine's sources and this checkout's origin."""
    return Builder(
        folders=Folders(root),
        sources=machine_sources(root),
        origin=_origin(root),
        options=BuildOptions(
            allow_missing=parse_allowed(allow_missing),
            base=base,
            no_cache=no_cache,
            disk=disk or DiskOptions(),
            wait=wait,
        ),
        talk=talk,
    )


def _origin(root: Path) -> Origin:
    """Revision and public URL of the checkout; `unknown` and "" outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    revision = git("rev-parse", "HEAD") or "unknown"
    if git("status", "--porcelain"):
        revision += "-dirty"
    parts = urlsplit(git("config", "--get", "remote.origin.url"))
    # A path of this machine or a password in the URL must not end in a label.
    public = parts.scheme in {"http", "https"} and parts.hostname
    source = f"{parts.scheme}://{parts.hostname}{parts.path}" if public else ""
    return Origin(revision=revision, source=source)
