"""Which tools build here, for the record."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess

from docker import DockerClient

from builder.engine.client import engine_version

__all__ = ["tool_versions"]

_BUILDX = re.compile(r"^\S*buildx\s+v?(\S+)", re.MULTILINE)
_BUILDKIT = re.compile(r"^BuildKit version:\s*v?(\S+)", re.MULTILINE)


def tool_versions(client: DockerClient) -> dict[str, str]:
    """Return the versions of engine, buildx, BuildKit and uv, as far as they say one.

    BuildKit is part of the engine; Debian's says `v0.0.0+unknown`, which is left out.
    """
    found = {
        "docker": engine_version(client),
        "buildx": _first(_BUILDX, "docker", "buildx", "version"),
        "buildkit": _first(_BUILDKIT, "docker", "buildx", "inspect"),
        "uv": importlib.metadata.version("uv"),
    }
    return {name: text for name, text in found.items() if text and "unknown" not in text}


def _first(pattern: re.Pattern[str], *argv: str) -> str:
    env = {**os.environ, "BUILDX_BUILDER": "default"}  # as builds do
    try:
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = pattern.search(done.stdout)
    return match[1] if match else ""
