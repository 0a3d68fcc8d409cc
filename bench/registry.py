"""A real registry on the loopback, and which bytes a push brought to its disk.

What a push costs is read from the registry's storage: every blob lies there once, whoever sent it.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.process import end_group
from bench.scenario import NotMeasured
from builder.errors import EngineUnavailable, Finding
from builder.records import write_atomic

__all__ = ["Pushed", "Registry", "read_blobs", "read_pushed"]

_PROGRAMS = ("docker-registry", "registry")
_START_SECONDS = 20.0
# JSON is YAML, and needs no rules about quoting.
_BLOBS = Path("docker/registry/v2/blobs")
_REPOSITORIES = Path("docker/registry/v2/repositories")


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push added, in bytes: the image's lowest layer, its other layers, and its papers.

    Papers are manifest and configuration.
    """

    base: int
    layers: int
    papers: int

    @property
    def total(self) -> int:
        """All bytes that the push added."""
        return self.base + self.layers + self.papers


def read_blobs(storage: Path) -> dict[str, int]:
    """Return the size of each blob in a registry's storage, by digest."""
    # .../blobs/sha256/ab/abcd.../data
    return {
        f"{path.parents[2].name}:{path.parent.name}": path.stat().st_size
        for path in (storage / _BLOBS).glob("*/*/*/data")
    }


def read_pushed(storage: Path, name: str, tag: str, before: Mapping[str, int]) -> Pushed:
    """Split the blobs that `storage` has beyond `before` by their role in the image `name:tag`."""
    new = {digest: size for digest, size in read_blobs(storage).items() if digest not in before}
    layers = [layer["digest"] for layer in _manifest(storage, name, tag)["layers"]]
    base = new.get(layers[0], 0)
    others = sum(new.get(digest, 0) for digest in set(layers[1:]) - {layers[0]})
    return Pushed(base=base, layers=others, papers=sum(new.values()) - base - others)


def _manifest(storage: Path, name: str, tag: str) -> dict[str, list[dict[str, str]]]:
    """Return the image manifest; of an index, the manifest of its first platform."""
    link = storage / _REPOSITORIES / name / "_manifests" / "tags" / tag / "current" / "link"
    document = _blob(storage, link.read_text())
    while "layers" not in document:
        document = _blob(storage, document["manifests"][0]["digest"])
    return document


def _blob(storage: Path, digest: str) -> dict[str, list[dict[str, str]]]:
    algorithm, _, value = digest.strip().partition(":")
    path = storage / _BLOBS / algorithm / value[:2] / value / "data"
    found: dict[str, list[dict[str, str]]] = json.loads(path.read_text())
    return found


class Registry:
    """Debian's docker-registry (CNCF distribution) with its storage in `folder`/storage."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.storage = folder.absolute() / "storage"
        self._folder = folder.absolute()
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> None:
        """Start it, empty, on a free port of the loopback; NotMeasured where there is none."""
        self.close()
        program = _find(self._programs)
        self.storage.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = self._folder / "config.json"
        write_atomic(config, json.dumps(_config(self.storage, self.address)))
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_up()

    def close(self) -> None:
        """Stop it and delete what it stored."""
        if self._process is not None:
            end_group(self._process)
            self._process = None
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _wait_until_up(self) -> None:
        assert self._process is not None
        limit = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > limit:
                text = (self._folder / "log").read_text(errors="replace")
                raise EngineUnavailable(
                    Finding(
                        place="docker-registry", what="it does not start", why=text.strip()[-800:]
                    )
                )
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/v2/", trust_env=False).is_success
        except httpx.HTTPError:
            return False


def _config(storage: Path, address: str) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": address},
    }


def _find(programs: Path) -> str:
    """Return the registry's program: an installed one, or Debian's, unpacked but not installed."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    unpacked = programs / "usr" / "bin" / _PROGRAMS[0]
    if not unpacked.is_file():
        _unpack(programs)
    return str(unpacked)


def _unpack(programs: Path) -> None:
    """Download the package and unpack it: to install it would start a service on this machine."""
    programs.mkdir(parents=True, exist_ok=True)
    for argv in (
        ["apt-get", "-q", "update"],
        ["apt-get", "-q", "download", _PROGRAMS[0]],
    ):
        _or_not_measured(argv, programs)
    for package in programs.glob("*.deb"):
        _or_not_measured(["dpkg-deb", "--extract", str(package), str(programs)], programs)
        package.unlink()


def _or_not_measured(argv: list[str], folder: Path) -> None:
    try:
        subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotMeasured(
            f"no registry program: `{' '.join(argv[:3])}` failed; put docker-registry on PATH"
        ) from error
