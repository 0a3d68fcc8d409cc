"""Rows that lack nothing, from hosts that are played: TensorRT, flash-attn, checkpoints, the fork.

Every source has a password, and all are reached through a proxy that has one too: none of them may
be found in anything that is made.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import uuid
from pathlib import Path

import pytest
from docker import DockerClient

from tests.integration import leaks
from tests.integration.complete import FLASH_ATTN, TENSORRT, checkpoint
from tests.integration.whole import WHOLE_ROWS as ROWS
from tests.integration.whole import Whole, secrets
from tests.servers.certificates import Certificate


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
        assert after[name].status == "mirrored"
    # The name that was supposed is not the one that the index has.
    assert before["tensorrt-cu12-libs"].url != after["tensorrt-cu12-libs"].url
    assert str(after["tensorrt-cu12-libs"].url).startswith("https://pypi.nvidia.com/")


def test_each_file_was_downloaded_once(whole: Whole) -> None:
    """Two rows share TensorRT and flash-attn; a build asks no source twice."""
    for path in ("/nvidia/*.whl", "/signed/flash_attn*", "/signed/own-yolo12n.pt*", "/codeload/*"):
        whole_files = [seen for seen in whole.asked_for(path) if seen.range is None]
        assert len(whole_files) == 1, path


def test_passwords_go_to_their_own_hosts_only(whole: Whole) -> None:
    moved = [*whole.asked_for("/signed/*"), *whole.asked_for("/codeload/*")]
    assert {seen.host for seen in moved} == {"objects.example", "codeload.example"}
    assert all("authorization" not in seen.headers for seen in moved)
    assert all(seen.by_proxy for seen in whole.asked)


def test_a_second_build_asks_nobody(whole: Whole) -> None:
    whole.play.seen.clear()
    done = whole.run("build", "--base", "bootstrap")
    assert done.returncode == 0, done.stderr
    assert {record["status"] for record in json.loads(done.stdout)} == {"unchanged"}
    assert whole.play.requests() == []


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
