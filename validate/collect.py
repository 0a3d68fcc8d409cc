"""Everything that starts a container: runs probes and commands, and returns typed facts.

Order and number of starts are the time budget of a validation, so they are decided here; checks
only read what was seen.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import DockerClient

from builder.engine.client import ImageFacts, StartRefused
from builder.engine.containers import Mount, Request, RunningContainer, running
from builder.records import PlanRecord, WeightRecord
from validate.checks import failed, not_measured
from validate.facts import Cold, CommandRun, Output, Stop, parse_probe

__all__ = [
    "MODELS",
    "Session",
    "cold_start",
    "main_weight",
    "probe",
    "run_image",
    "stage_probes",
    "stop_detecting",
    "stop_sleeping",
    "workbench",
]

MODELS = "/opt/yolo"
PROBES = "/probes"
# Not `validate.probes`: nothing else of the validator goes into the image, not even its name.
PACKAGE = "image_probes"
LAST_LINES = 2_000


@dataclass(frozen=True, kw_only=True)
class Session:
    """One validation of one image: `run` labels its containers, `scratch` is gone afterwards."""

    client: DockerClient
    plan: PlanRecord
    image: ImageFacts
    logs: Path
    scratch: Path
    run: str
    talk: Callable[[str], None]

    @property
    def user(self) -> str:
        """The caller's uid, so that outputs are the caller's; never root, which may do anything."""
        return f"{os.getuid() or 12345}:0"


def stage_probes(scratch: Path) -> Path:
    """Copy the probes to where any uid can read them, whatever the umask of the checkout was."""
    target = scratch / "probes"
    package = target / PACKAGE
    package.mkdir(parents=True)
    for path in (Path(__file__).parent / "probes").glob("*.py"):
        shutil.copy(path, package)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def main_weight(plan: PlanRecord) -> WeightRecord:
    """Return the row's first checkpoint: the one that is measured."""
    if not plan.weights:
        not_measured("nothing is known about the checkpoints of this image")
    return plan.weights[0]


def probe_options(plan: PlanRecord, device: str) -> dict[str, Any]:
    """Return what every probe section may ask for."""
    options: dict[str, Any] = {
        "models": MODELS,
        "device": device,
        "pictures": 100,
        "work": "/tmp/work",  # noqa: S108 - the container's own tmpfs
        "engine": plan.tensorrt is not None and all(m.part != "tensorrt" for m in plan.missing),
    }
    if plan.weights:
        weight = plan.weights[0]
        options |= {
            "model": f"{MODELS}/{weight.file}",
            "architecture": f"{Path(weight.model).stem}.yaml",
            "official": weight.official,
        }
    return options


@contextmanager
def workbench(session: Session, *, gpus: bool = False) -> Iterator[RunningContainer]:
    """Keep one container idle, for probes and for testinfra."""
    request = Request(
        image=session.image.id,
        entrypoint=["sleep"],
        command=["infinity"],
        user=session.user,
        mounts=[Mount(source=session.scratch / "probes", target=PROBES)],
        gpus=gpus,
        run=session.run,
    )
    name = "workbench-gpu" if gpus else "workbench"
    with running(session.client, request, log=session.logs / f"{name}.log") as container:
        yield container


def probe(
    session: Session,
    container: RunningContainer,
    *sections: str,
    timeout: int,
    device: str = "cpu",
) -> bytes:
    """Run probe sections in one process and return their JSON document."""
    session.talk(f"probing {', '.join(sections)}")
    options = json.dumps(probe_options(session.plan, device))
    argv = ["python", "-m", PACKAGE, options, *sections]
    result = container.execute(argv, timeout=timeout, workdir=PROBES)
    _keep(session, f"probe-{'-'.join(sections)}", result.stderr)
    if result.exit_code:
        ended = f"did not end within {timeout} s" if result.timed_out else _ending(result.exit_code)
        failed(f"the image's Python {ended} in probe {', '.join(sections)}: {_tail(result.stderr)}")
    return result.stdout


def cold_start(session: Session, number: int, *, device: str = "cpu") -> tuple[float, Cold]:
    """Start a fresh container up to its first boxes; return the seconds before Python ran, too."""
    session.talk(f"cold start {number}")
    main_weight(session.plan)
    options = json.dumps(probe_options(session.plan, device) | _cold_options())
    request = Request(
        image=session.image.id,
        entrypoint=["python"],
        command=["-m", PACKAGE, options, "cold"],
        user=session.user,
        mounts=[Mount(source=session.scratch / "probes", target=PROBES)],
        workdir=PROBES,
        gpus=device != "cpu",
        run=session.run,
    )
    begun = time.time()
    log = session.logs / f"cold-{number}.log"
    with running(session.client, request, log=log) as container:
        result = container.wait(timeout=180)
    if result.exit_code:
        failed(f"cold start {number} {_ending(result.exit_code)}: {_tail(result.stderr)}")
    seen = parse_probe(result.stdout, "cold", Cold).facts
    return seen.started - begun, seen


def _cold_options() -> dict[str, Any]:
    # The audit hook costs a little on every import, and a cold start is mostly imports.
    return {"audit": False}


def run_image(
    session: Session, argv: Sequence[str], *, name: str, save: bool = False
) -> CommandRun:
    """Start the image as users do, with its own entrypoint; `save` gives it a folder `/out`."""
    session.talk(f"running {' '.join(argv) or 'the image without arguments'}")
    folder = _open_folder(session.scratch / name)
    mounts = [Mount(source=folder, target="/out", writable=True)] if save else []
    request = Request(
        image=session.image.id,
        command=argv,
        user=session.user,
        mounts=mounts,
        run=session.run,
    )
    with running(session.client, request, log=session.logs / f"{name}.log") as container:
        result = container.wait(timeout=120)
    return CommandRun(
        argv=tuple(argv),
        exit_code=result.exit_code,
        seconds=result.seconds,
        stdout=_text(result.stdout),
        stderr=_text(result.stderr),
        outputs=tuple(_outputs(folder)),
    )


def stop_sleeping(session: Session) -> Stop:
    """Send SIGTERM to the image while it serves a long command."""
    session.talk("stopping a sleeping container")
    request = Request(
        image=session.image.id, command=["sleep", "3600"], user=session.user, run=session.run
    )
    with running(session.client, request, log=session.logs / "stop-sleep.log") as container:
        # The entrypoint is Python: give it the time to hand over to the command.
        _wait_until(lambda: b"sleep" in _processes(container), seconds=10)
        result = container.stop(grace=10)
    return Stop(doing="sleep", exit_code=result.exit_code, seconds=result.seconds)


def stop_detecting(session: Session) -> Stop:
    """Send SIGTERM to the image in the middle of finding boxes on many pictures."""
    session.talk("stopping a detecting container")
    pictures = _many_pictures(session.scratch / "pictures")
    out = _open_folder(session.scratch / "interrupted")
    request = Request(
        image=session.image.id,
        command=["detect", "/in", "--save", "/out"],
        user=session.user,
        mounts=[
            Mount(source=pictures, target="/in"),
            Mount(source=out, target="/out", writable=True),
        ],
        run=session.run,
    )
    with running(session.client, request, log=session.logs / "stop-detect.log") as container:
        busy = _wait_until(lambda: any(out.rglob("*.*")) or not container.state()["Running"], 20)
        if not container.state()["Running"]:
            result = container.wait(timeout=1)
            failed(
                f"`detect /in --save /out` {_ending(result.exit_code)} before it could be stopped: "
                f"{_tail(result.stderr)}"
            )
        result = container.stop(grace=10)
    doing = "detect" if busy else "detect (no picture saved within 20 s)"
    return Stop(doing=doing, exit_code=result.exit_code, seconds=result.seconds)


def gpu_or_not_measured(error: StartRefused, *, host_has_gpu: bool) -> None:
    """Tell a machine without a GPU from one whose engine can't hand it over."""
    text = str(error)
    no_device = "could not select device driver" in text or "no known GPU vendor" in text
    if no_device and not host_has_gpu:
        not_measured("this machine has no NVIDIA GPU, or its engine can't reach one")


def _processes(container: RunningContainer) -> bytes:
    return container.execute(["sh", "-c", "cat /proc/[0-9]*/comm"], timeout=5).stdout


def _wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(0.1)
    return False


def _open_folder(path: Path) -> Path:
    """Make a folder that any uid may write to: an engine with user namespaces maps ours away."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    return path


def _many_pictures(folder: Path) -> Path:
    """Make one 640 x 640 bitmap under 400 names: enough work to be interrupted in."""
    folder.mkdir()
    folder.chmod(0o755)
    side = 640
    header = struct.pack("<2sIHHI", b"BM", 54 + 3 * side * side, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    first = folder / "000.bmp"
    first.write_bytes(header + bytes(range(256)) * (3 * side * side // 256))
    first.chmod(0o644)
    for number in range(1, 400):
        os.link(first, folder / f"{number:03}.bmp")
    return folder


def _outputs(folder: Path) -> Iterator[Output]:
    for path in sorted(folder.rglob("*"))[:1000]:
        stat = path.lstat()
        name = str(path.relative_to(folder))
        yield Output(path=name, uid=stat.st_uid, gid=stat.st_gid, size=stat.st_size)


def _keep(session: Session, name: str, data: bytes) -> None:
    session.logs.mkdir(parents=True, exist_ok=True)
    (session.logs / f"{name}.log").write_bytes(data)


def _ending(code: int) -> str:
    """Say how a process ended; codes above 128 are signals."""
    return f"died of signal {code - 128}" if code > 128 else f"ended with code {code}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")[:200_000]


def _tail(data: bytes) -> str:
    return _text(data[-LAST_LINES:]).strip()
