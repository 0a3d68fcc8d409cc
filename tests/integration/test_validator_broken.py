"""An image with one thing wrong fails the check for that thing, and only that one."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from builder.engine.client import inspect_image
from builder.records import BuildRecord, Outcome, PlanRecord, ValidationRecord
from validate.run import validate_image

BuiltRow = tuple[PlanRecord, BuildRecord, Path]
Derive = Callable[[str], ValidationRecord]

# Checks that need no prediction: enough to see whether a break is found by the right one.
QUICK = ("S13", "S16", "C01", "C02", "C05", "C12")

WRONG_VERSION = """\
RUN sed -i 's/^Version: .*/Version: 8.3.41/' \
    /opt/venv/lib/python3*/site-packages/ultralytics-*.dist-info/METADATA
"""

# A byte in the middle lies in the largest tensor, whose archive member has a CRC.
WRONG_BYTE = """\
RUN ["python", "-c", "\\
import glob; \\
path = sorted(glob.glob('/opt/yolo/*.pt'))[0]; \\
file = open(path, 'r+b'); \\
middle = file.seek(0, 2) // 2; \\
file.seek(middle); \\
byte = file.read(1)[0]; \\
file.seek(middle); \\
file.write(bytes([byte ^ 1])); \\
file.close()"]
"""


@pytest.fixture
def derive(built_row: BuiltRow, client: DockerClient, tmp_path: Path) -> Iterator[Derive]:
    """Add one step to the built image, and validate what comes out."""
    plan, build, out = built_row
    tag = f"yolo-images-test/broken:{uuid.uuid4().hex[:12]}"

    def validate(step: str) -> ValidationRecord:
        context = tmp_path / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {build.reference}\nUSER 0\n{step}\n")
        argv = ["docker", "buildx", "build", "--network=none", "--load", "-t", tag, str(context)]
        subprocess.run(argv, check=True, timeout=120)
        broken = build.model_copy(update={"digest": inspect_image(client, tag).digest})
        return validate_image(plan, broken, out, only=QUICK)

    yield validate
    client.images.remove(tag, force=True)


def failures(record: ValidationRecord) -> dict[str, str]:
    return {item.id: item.saw for item in record.checks if item.outcome is not Outcome.PASSED}


def test_nothing_wrong(derive: Derive) -> None:
    """The control: the way these images are made breaks nothing by itself."""
    record = derive("USER 10001:0")
    assert failures(record) == {}
    assert record.verdict is Outcome.PASSED


def test_another_version(derive: Derive) -> None:
    record = derive(f"{WRONG_VERSION}USER 10001:0")
    assert set(failures(record)) == {"C02"}
    assert "ultralytics 8.3.41 is installed" in failures(record)["C02"]
    assert record.verdict is Outcome.FAILED


def test_one_byte_of_a_checkpoint(derive: Derive) -> None:
    record = derive(f"{WRONG_BYTE}USER 10001:0")
    assert set(failures(record)) == {"C05"}
    assert "is damaged at" in failures(record)["C05"]


def test_root(derive: Derive) -> None:
    record = derive("")
    assert set(failures(record)) == {"S16"}
    assert failures(record)["S16"] == "USER is root"
