"""Rows that lack nothing, from hosts that are played: TensorRT, flash-attn, checkpoints, the fork.

Every source has a password, and all are reached through a proxy that has one too: none of them may
be found in anything that is made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from docker import DockerClient

from builder.errors import BuildFailed, SourceUnreachable
from builder.folders import Folders
from builder.lock import LockRecord
from builder.records import AnyRecord, BuildRecord, PlanRecord, read_record
from tests.integration import leaks
from tests.integration.complete import FLASH_ATTN, TENSORRT, checkpoint, matrix_text, play_hosts
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.faults import Cut, Fault, Flip, Say
from tests.servers.play import PlayServer, play_server

ROWS = ("yolov12-whole", "yolov12-fork-whole", "yolov8-wholecpu")
LOGINS = {
    part: f"{part}-user:hunter2-{part}-secret"
    for part in ("index", "extra", "nvidia", "pytorch", "github", "weights", "wheels", "proxy")
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
    """A project whose rows lack nothing, its hosts, and all that its commands said."""

    folders: Folders
    play: PlayServer
    environment: Mapping[str, str]
    said: list[str] = field(default_factory=list)
    first_locks: dict[str, LockRecord] = field(default_factory=dict)

    def lock(self, row: str) -> LockRecord:
        return self._read(self.folders.locks / f"{row}.json", LockRecord)

    def plan(self, row: str) -> PlanRecord:
        return self._read(self.folders.row(row) / "plan.json", PlanRecord)

    def record(self, row: str) -> BuildRecord:
        return self._read(self.folders.row(row) / "build.json", BuildRecord)

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


@pytest.fixture(scope="module")
def setuptools_wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real setuptools, as locked: TensorRT's metapackage and the fork are built with it."""
    lock = (root / "locks" / "yolov12-cu128.txt").read_text()
    (line,) = (line for line in lock.splitlines() if line.startswith("setuptools=="))
    folder = tmp_path_factory.mktemp("setuptools")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*argv, "-d", str(folder), line.split()[0]], check=True, timeout=120)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="module")
def bridge(client: DockerClient) -> str:
    """The address under which builds and this machine see each other."""
    (config,) = client.networks.get("bridge").attrs["IPAM"]["Config"]
    return str(config["Gateway"])


@pytest.fixture(scope="module")
def certificate(bridge: str, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    names = (f"IP:{bridge}", "DNS:github.com", "DNS:pypi.nvidia.com", "DNS:download.pytorch.org")
    return make_certificate(tmp_path_factory.mktemp("certificate"), *names)


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


@pytest.fixture(scope="module")
def whole(
    root: Path,
    bridge: str,
    certificate: Certificate,
    setuptools_wheel: Path,
    client: DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Whole]:
    """The three rows, locked before their hosts answer, and built when they do."""
    folder = tmp_path_factory.mktemp("whole")
    with played(bridge, certificate, setuptools_wheel) as server:
        made = make_whole(root, folder, server, certificate)
        for path in ("/nvidia/*", "/whl/*", "/Dao-AILab/*"):
            server.faults.append(Fault(path=path, what=Say(503), times=None, methods=ANY))
        done = made.run("lock")
        assert done.returncode == 0, done.stderr
        made.first_locks = {row: made.lock(row) for row in ROWS}
        server.faults.clear()
        done = made.run("build", "--base", "bootstrap")
        assert done.returncode == 0, done.stderr
        yield made
    assert not server.errors
    for row in ROWS:
        for image in client.images.list(filters={"label": f"org.yolo-images.row={row}"}):
            client.images.remove(str(image.id), force=True)


def make_whole(root: Path, folder: Path, play: PlayServer, certificate: Certificate) -> Whole:
    """The real Dockerfiles under a matrix of our own, and an environment that names the hosts."""
    folders = Folders(folder / "project")
    folders.root.mkdir()
    folders.matrix.write_text(matrix_text())
    shutil.copytree(root / "images", folders.images, ignore=shutil.ignore_patterns("__pycache__"))
    rootfs = root / ".cache" / "rootfs"
    if rootfs.is_dir():
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
        "YOLO_SOURCES_PROXIES_HTTP": named("proxy"),
        "YOLO_SOURCES_PROXIES_HTTPS": named("proxy"),
        "YOLO_SOURCES_CA": str(certificate.path),
        "PYTHONPATH": str(root),
    }
    theirs = re.compile(r"PIP_|UV_|.*_PROXY$|SSL_CERT_|REQUESTS_CA|CURL_CA", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not theirs.match(name)}
    return Whole(folders=folders, play=play, environment={**kept, **ours})


def test_the_rows_are_whole(whole: Whole, client: DockerClient) -> None:
    for row in ROWS:
        record = whole.record(row)
        assert record.status == "built"
        assert record.reference == f"yolo-images/{row}:local"
        assert record.missing == ()
        labels = client.images.get(record.reference).labels
        assert labels["org.yolo-images.missing"] == ""
        assert "random" not in labels["org.yolo-images.weights"]


INSTALLED = {
    "yolov12-whole": {
        "tensorrt_cu12": TENSORRT,
        "tensorrt_cu12_bindings": TENSORRT,
        "tensorrt_cu12_libs": TENSORRT,
        "flash_attn": FLASH_ATTN,
        "einops": "0.8.1",
        "torch": "2.7.1",
        "ultralytics": "8.4.190",
    },
    "yolov12-fork-whole": {"ultralytics": "8.3.63", "flash_attn": FLASH_ATTN},
    "yolov8-wholecpu": {"torch": "2.6.0+cpu", "torchvision": "0.21.0+cpu", "onnxruntime": "1.23.2"},
}
_LIST = """\
import importlib.metadata as m, json, pathlib
print(json.dumps({
    "packages": {d.name.replace("-", "_"): d.version for d in m.distributions()},
    "weights": sorted(p.name for p in pathlib.Path("/opt/yolo").glob("*.pt")),
    "notes": [str(p) for p in pathlib.Path("/opt/venv").rglob("direct_url.json")],
}))
"""


@pytest.mark.parametrize("row", ROWS)
def test_all_parts_are_in_the_image(whole: Whole, client: DockerClient, row: str) -> None:
    said = client.containers.run(
        whole.record(row).reference,
        ["-c", _LIST],
        entrypoint="python",
        remove=True,
        network_mode="none",
        read_only=True,
        user="12345:0",
    )
    inside = json.loads(said)
    assert inside["packages"].items() >= INSTALLED[row].items()
    assert inside["packages"].keys() == {
        name.replace("-", "_") for name in whole.plan(row).packages
    }
    assert inside["weights"] == [weight.file for weight in whole.plan(row).weights]
    assert inside["notes"] == []


def test_the_plan_says_what_is_inside(whole: Whole) -> None:
    plan = whole.plan("yolov12-whole")
    assert (plan.tensorrt, plan.flash_attn) == (TENSORRT, FLASH_ATTN)
    assert plan.missing == ()
    (weight,) = plan.weights
    assert weight.official
    assert weight.sha256 == hashlib.sha256(checkpoint("own-yolo12n.pt")).hexdigest()


def test_what_was_unresolved_is_locked_by_the_build(whole: Whole) -> None:
    for row in ROWS:
        assert all(item.sha256 for item in whole.lock(row).artifacts)
    before = {item.name: item for item in whole.first_locks["yolov12-whole"].artifacts}
    after = {item.name: item for item in whole.lock("yolov12-whole").artifacts}
    for name in ("tensorrt-cu12-libs", "flash-attn"):
        assert before[name].status == "unresolved"
        assert before[name].sha256 is None
        assert after[name].status == "computed"
    # The name that was supposed is not the one that the index has.
    assert before["tensorrt-cu12-libs"].url != after["tensorrt-cu12-libs"].url
    assert str(after["tensorrt-cu12-libs"].url).startswith("https://pypi.nvidia.com/")


def test_each_file_was_downloaded_once(whole: Whole) -> None:
    """Two rows share TensorRT and flash-attn; a build asks no source twice."""
    for path in ("/nvidia/*.whl", "/signed/flash_attn*", "/signed/own-yolo12n.pt*", "/codeload/*"):
        whole_files = [seen for seen in whole.play.requests(path) if seen.range is None]
        assert len(whole_files) == 1, path


def test_passwords_go_to_their_own_hosts_only(whole: Whole) -> None:
    moved = [*whole.play.requests("/signed/*"), *whole.play.requests("/codeload/*")]
    assert {seen.host for seen in moved} == {"objects.example", "codeload.example"}
    assert all("authorization" not in seen.headers for seen in moved)
    assert all(seen.by_proxy for seen in whole.play.requests())


def test_a_second_build_asks_nobody(whole: Whole) -> None:
    whole.play.seen.clear()
    done = whole.run("build", "--base", "bootstrap")
    assert done.returncode == 0, done.stderr
    assert {record["status"] for record in json.loads(done.stdout)} == {"unchanged"}
    assert whole.play.requests() == []


@pytest.fixture
def elsewhere(root: Path, tmp_path: Path, whole: Whole, certificate: Certificate) -> Whole:
    """The same rows and locks in another checkout, with an empty store."""
    made = make_whole(root, tmp_path, whole.play, certificate)
    shutil.copytree(whole.folders.locks, made.folders.locks)
    return made


OFFICIAL = {
    f"YOLO_SOURCES_{key}": "" for key in ("NVIDIA", "PYTORCH", "GITHUB", "WEIGHTS", "WHEELS")
}


def test_official_addresses_through_a_proxy_give_the_same_image(
    elsewhere: Whole, whole: Whole, bridge: str, certificate: Certificate, setuptools_wheel: Path
) -> None:
    """No mirrors, but a proxy that wants a password, shows its own certificate and breaks off."""
    row = ROWS[0]
    with played(bridge, certificate, setuptools_wheel, nvidia="") as proxy:
        proxy.faults += [
            Fault(path="*/tensorrt_cu12_libs*.whl", what=Cut(100)),
            Fault(path="/signed/flash_attn*", what=Say(503)),
        ]
        login = proxy.url_with(LOGINS["proxy"])
        proxies = {"YOLO_SOURCES_PROXIES_HTTP": login, "YOLO_SOURCES_PROXIES_HTTPS": login}
        index = {"YOLO_SOURCES_INDEX": proxy.url_with(LOGINS["index"]) + "/simple/"}
        done = elsewhere.run(
            "build", row, "--base", "bootstrap", **{**OFFICIAL, **proxies, **index}
        )
        assert done.returncode == 0, done.stderr
        hosts = {seen.path for seen in proxy.requests(method="CONNECT")}
        assert hosts == {"github.com:443", "pypi.nvidia.com:443"}
        # A busy answer to the first question is not a host that can't be reached.
        assert len(proxy.requests("/signed/flash_attn*")) == 3
        parts = [seen.range for seen in proxy.requests("*/tensorrt_cu12_libs*.whl")]
        assert parts == [None, "bytes=100-"]
    assert elsewhere.record(row).digest == whole.record(row).digest
    assert leaks.in_folder(elsewhere.folders.out, secrets(whole, certificate)) == []
    assert not any(word in "".join(elsewhere.said) for word in LOGINS.values())


def test_a_source_that_does_not_answer_is_named_before_anything_is_built(
    elsewhere: Whole, whole: Whole
) -> None:
    faults = [
        Fault(path=path, what=Say(503), times=None, methods=ANY)
        for path in ("/nvidia/*", "/tensorrt-cu12-libs/*", "/signed/own-yolo12n*")
    ]
    whole.play.faults += faults
    try:
        done = elsewhere.run("build", ROWS[0], "--base", "bootstrap")
    finally:
        whole.play.faults.clear()
    assert done.returncode == SourceUnreachable.exit_code
    assert "step tensorrt: https://pypi.nvidia.com/tensorrt-cu12-libs/" in done.stderr
    assert "step weights: https://github.com/example/checkpoints" in done.stderr
    assert "step flash-attn" not in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""
    assert not elsewhere.folders.row(ROWS[0]).exists()


def test_a_file_with_another_hash_than_the_lock_is_refused_everywhere(
    elsewhere: Whole, whole: Whole
) -> None:
    """The mirror and the official address are asked once each, and neither is believed."""
    whole.play.seen.clear()
    whole.play.faults.append(Fault(path="/signed/flash_attn*", what=Flip(200), times=None))
    try:
        done = elsewhere.run("build", ROWS[0], "--base", "bootstrap")
    finally:
        whole.play.faults.clear()
    assert done.returncode == SourceUnreachable.exit_code
    assert done.stderr.count("its sha256 is ") == 2
    assert "hunter2" not in done.stderr
    downloads = whole.play.requests("/signed/flash_attn*")
    assert len([seen for seen in downloads if seen.range != "bytes=0-0"]) == 2
    assert not list(elsewhere.folders.files.rglob("flash_attn*.whl"))


def test_a_file_with_another_hash_than_public_locks_know_is_refused(
    root: Path, tmp_path: Path, whole: Whole, certificate: Certificate
) -> None:
    """The index serves 2.8.3 of flash-attn, whose hash everybody knows, with other bytes."""
    made = make_whole(root, tmp_path, whole.play, certificate)
    made.folders.matrix.write_text(matrix_text(flash_attn="2.8.3"))
    done = made.run("lock", ROWS[0])
    assert done.returncode == 0, done.stderr
    (flash,) = (item for item in made.lock(ROWS[0]).artifacts if item.name == "flash-attn")
    assert flash.status in {"single", "verified"}
    done = made.run("build", ROWS[0], "--base", "bootstrap")
    assert done.returncode == SourceUnreachable.exit_code
    # The mirror and the official address: the size says already that neither has the file.
    assert done.stderr.count(f"instead of {flash.size}") == 2


def test_a_failing_installation_tells_no_secret(
    elsewhere: Whole, whole: Whole, certificate: Certificate
) -> None:
    """What the installer says about an address that does not answer ends in the log."""
    row = "yolov8-wholecpu"
    whole.play.faults.append(Fault(path="/files/matplotlib*", what=Say(404), times=None))
    try:
        done = elsewhere.run("build", row, "--base", "bootstrap", "--no-cache")
    finally:
        whole.play.faults.clear()
    assert done.returncode == BuildFailed.exit_code
    log = (elsewhere.folders.row(row) / "build.log").read_text()
    assert "matplotlib" in log
    words = secrets(whole, certificate)
    assert leaks.in_folder(elsewhere.folders.root, words) == []
    assert [word for word in words if word in (done.stdout + done.stderr).encode()] == []


def secrets(whole: Whole, certificate: Certificate) -> list[bytes]:
    """All that may be nowhere: passwords as they are and as they travel, and the CA bundle."""
    plain = [word for login in LOGINS.values() for word in login.split(":")]
    sent = [base64.b64encode(login.encode()).decode() for login in LOGINS.values()]
    pem = certificate.path.read_text().splitlines()[2]
    return [word.encode() for word in (*plain, *sent, pem)]


def test_no_secret_and_no_mirror_is_in_the_images(
    whole: Whole, certificate: Certificate, client: DockerClient
) -> None:
    here = [str(whole.folders.root).encode(), whole.play.url.encode()]
    references = [whole.record(row).reference for row in ROWS]
    assert leaks.in_images(client, references, [*secrets(whole, certificate), *here]) == []


def test_no_secret_is_in_what_is_said_and_recorded(whole: Whole, certificate: Certificate) -> None:
    words = secrets(whole, certificate)
    said = "".join(whole.said).encode()
    assert len(said) > 1000
    assert [word for word in words if word in said] == []
    assert (whole.folders.row(ROWS[0]) / "build.log").stat().st_size > 1000
    for folder in (whole.folders.out, whole.folders.locks, whole.folders.cache):
        assert leaks.in_folder(folder, words) == []


# The quotes keep the words out of the history: only the layers have them.
PLANTED = """\
FROM {base}
USER 0
RUN echo hunter2-hid""den > /planted
RUN rm /planted
RUN touch /tmp/hunter2-na""me
RUN : hunter2-history
ENV PLANTED=hunter2-variable
LABEL planted=hunter2-label
"""


def test_the_search_finds_what_is_planted(
    whole: Whole, client: DockerClient, tmp_path: Path
) -> None:
    """Also in a file that a later layer hides."""
    tag = f"yolo-images-test/planted:{uuid.uuid4().hex[:12]}"
    base = whole.record("yolov8-wholecpu").reference
    (tmp_path / "Dockerfile").write_text(PLANTED.format(base=base))
    argv = ["docker", "buildx", "build", "--network=none", "--load", "-t", tag, str(tmp_path)]
    subprocess.run(argv, check=True, timeout=120, capture_output=True)
    words = [f"hunter2-{how}" for how in ("hidden", "name", "history", "variable", "label")]
    try:
        found = "\n".join(leaks.in_images(client, [tag], [word.encode() for word in words]))
    finally:
        client.images.remove(tag, force=True)
    assert [word for word in words if word not in found] == []
    (tmp_path / "said.log").write_text("hunter2-said")
    assert leaks.in_folder(tmp_path, [b"hunter2-said"]) == ["said.log: b'hunter2-said'"]
