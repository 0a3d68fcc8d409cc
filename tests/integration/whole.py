"""A project whose rows lack nothing, in an environment that names played hosts, with passwords."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from builder.folders import Folders
from builder.lock import LockRecord
from builder.records import AnyRecord, BuildRecord, PlanRecord, read_record
from tests.integration.complete import matrix_text, play_hosts
from tests.servers.certificates import Certificate
from tests.servers.play import PlayServer, Seen, play_server

__all__ = ["ANY", "LOGINS", "WHOLE_ROWS", "Whole", "make_whole", "played", "secrets"]

WHOLE_ROWS = ("yolov12-whole", "yolov12-fork-whole", "yolov8-wholecpu")
LOGINS = {
    part: f"{part}-user:hunter2-{part}-secret"
    for part in (
        "index",
        "extra",
        "nvidia",
        "pytorch",
        "github",
        "weights",
        "wheels",
        "apt",
        "proxy",
    )
}
GUARDED = {
    "/simple/*": "index",
    "/files/*": "index",
    "/extra/*": "extra",
    "/nvidia/*": "nvidia",
    "/whl/*": "pytorch",
    "/Dao-AILab/*": "github",
    "/sunsmarterjie/*": "github",
    "/example/*": "github",
    "/weights/*": "weights",
    "/wheels/*": "wheels",
}
ANY = frozenset({"GET", "HEAD"})
_RUN = "import build, pathlib, sys; build.ROOT = pathlib.Path(sys.argv[1]); "
_RUN += "sys.exit(build.main(sys.argv[2:]))"


@dataclass(kw_only=True)
class Whole:
    """A project whose rows lack nothing, its hosts, and all that its commands said.

    `asked` is what the hosts saw of the first build, `first_locks` what it found.
    """

    folders: Folders
    play: PlayServer
    environment: Mapping[str, str]
    said: list[str] = field(default_factory=list)
    asked: list[Seen] = field(default_factory=list)
    first_locks: dict[str, LockRecord] = field(default_factory=dict)

    def lock(self, row: str) -> LockRecord:
        return self._read(self.folders.locks / f"{row}.json", LockRecord)

    def plan(self, row: str) -> PlanRecord:
        return self._read(self.folders.row(row) / "plan.json", PlanRecord)

    def record(self, row: str) -> BuildRecord:
        return self._read(self.folders.row(row) / "build.json", BuildRecord)

    def asked_for(self, path: str) -> list[Seen]:
        """What the first build downloaded, by a shell pattern on the path."""
        return [
            seen for seen in self.asked if seen.method == "GET" and fnmatchcase(seen.path, path)
        ]

    def _read(self, path: Path, kind: type[AnyRecord]) -> AnyRecord:
        record = read_record(path, kind)
        assert record is not None, path
        return record

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `build.py` on the project in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(self.folders.root), *words],
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        self.said += [done.stdout, done.stderr]
        return done


@contextmanager
def played(
    bridge: str, certificate: Certificate, setuptools: Path, nvidia: str = "/nvidia"
) -> Iterator[PlayServer]:
    """All hosts on one server, which is also the proxy that leads to them."""
    with play_server(bridge, certificate=certificate) as server:
        play_hosts(server, setuptools, nvidia)
        server.guards |= {path: LOGINS[part] for path, part in GUARDED.items()}
        server.proxy_login = LOGINS["proxy"]
        yield server


def make_whole(root: Path, folder: Path, play: PlayServer, certificate: Certificate) -> Whole:
    """The real Dockerfiles under a matrix of our own, and an environment that names the hosts."""
    folders = Folders(folder / "project")
    folders.root.mkdir()
    folders.matrix.write_text(matrix_text())
    shutil.copytree(root / "images", folders.images, ignore=shutil.ignore_patterns("__pycache__"))
    rootfs = Folders(root).cache / "rootfs"
    shutil.copytree(rootfs, folders.cache / "rootfs", copy_function=os.link)

    def named(part: str, path: str = "") -> str:
        return play.url_with(LOGINS[part]) + path

    ours = {
        "PIP_CONFIG_FILE": os.devnull,
        "YOLO_SOURCES_INDEX": named("index", "/simple/"),
        "YOLO_SOURCES_EXTRA_INDEXES": named("extra", "/extra/"),
        "YOLO_SOURCES_NVIDIA": named("nvidia", "/nvidia"),
        "YOLO_SOURCES_PYTORCH": named("pytorch", "/whl"),
        "YOLO_SOURCES_GITHUB": named("github"),
        "YOLO_SOURCES_WEIGHTS": named("weights", "/weights"),
        "YOLO_SOURCES_WHEELS": named("wheels", "/wheels"),
        "YOLO_SOURCES_APT": named("apt", "/debian"),
        "YOLO_SOURCES_PROXIES_HTTP": named("proxy"),
        "YOLO_SOURCES_PROXIES_HTTPS": named("proxy"),
        "YOLO_SOURCES_CA": str(certificate.path),
        "PYTHONPATH": str(root),
    }
    theirs = re.compile(r"PIP_|UV_|.*_PROXY$|SSL_CERT_|REQUESTS_CA|CURL_CA", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not theirs.match(name)}
    return Whole(folders=folders, play=play, environment={**kept, **ours})


def secrets(whole: Whole, certificate: Certificate) -> list[bytes]:
    """All that may be nowhere: passwords as they are and as they travel, and the CA bundle."""
    plain = [word for login in LOGINS.values() for word in login.split(":")]
    sent = [base64.b64encode(login.encode()).decode() for login in LOGINS.values()]
    pem = certificate.path.read_text().splitlines()[2]
    return [word.encode() for word in (*plain, *sent, pem)]
