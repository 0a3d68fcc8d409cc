"""What is done to the validator from outside never becomes a verdict about the image."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from docker import DockerClient

from builder.engine.client import ContainerLost
from builder.engine.containers import TOOLKIT_LABEL, Request, running
from builder.records import BuildRecord, Outcome, PlanRecord
from validate.run import validate_image

BuiltRow = tuple[PlanRecord, BuildRecord, Path]


def ours(client: DockerClient, digest: str) -> list[str]:
    """Containers that a validation of `digest` has started."""
    found = client.containers.list(all=True, filters={"label": f"{TOOLKIT_LABEL}=validate"})
    return [item.id for item in found if item.id and item.attrs["Image"] == digest]


def kill_first(client: DockerClient, digest: str, probing: threading.Event) -> None:
    """Kill the container once a probe runs in it."""
    if not probing.wait(60):
        return
    # The probe has been announced; a moment later its process is at work.
    time.sleep(1.5)
    for identifier in ours(client, digest):
        client.api.kill(identifier)


def test_a_killed_container_is_no_verdict(built_row: BuiltRow, client: DockerClient) -> None:
    plan, build, out = built_row
    assert build.digest is not None
    probing = threading.Event()
    killer = threading.Thread(target=kill_first, args=(client, build.digest, probing))
    killer.start()

    def talk(line: str) -> None:
        if "probing" in line:
            probing.set()

    record = validate_image(plan, build, out, talk=talk, only=("S16", "C01", "C03", "C12"))
    killer.join()
    outcomes = {item.id: item.outcome for item in record.checks}
    assert outcomes.pop("S16") is Outcome.PASSED
    assert set(outcomes.values()) <= {Outcome.INFRA, Outcome.ERROR}
    assert record.verdict in {Outcome.INFRA, Outcome.ERROR}
    assert ours(client, build.digest) == []
    assert (out / plan.id / "logs" / "pytest.log").exists()


def test_a_container_is_removed_whatever_happens(
    built_row: BuiltRow, client: DockerClient, tmp_path: Path
) -> None:
    _, build, _ = built_row
    request = Request(
        image=build.reference, entrypoint=["sh"], command=["-c", "echo here; sleep 99"]
    )
    log = tmp_path / "kept.log"

    def interrupted() -> None:
        with running(client, request, log=log) as container:
            container.execute(["sleep", "1"], timeout=5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert build.digest is not None
    assert ours(client, build.digest) == []
    assert "here" in log.read_text()


def test_commands_are_bounded(built_row: BuiltRow, client: DockerClient, tmp_path: Path) -> None:
    _, build, _ = built_row
    request = Request(image=build.reference, entrypoint=["sleep"], command=["99"])
    with running(client, request, log=tmp_path / "x.log") as container:
        assert container.execute(["sleep", "30"], timeout=1).timed_out
        loud = container.execute(["sh", "-c", "yes | head -c 100000"], timeout=10, keep=1000)
        assert (len(loud.stdout), loud.truncated, loud.exit_code) == (1000, True, 0)
        client.api.kill(container.id)
        with pytest.raises(ContainerLost):
            container.execute(["true"], timeout=5)
