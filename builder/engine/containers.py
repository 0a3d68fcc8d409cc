"""One container under limits: started, used, its logs kept, and always removed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Ulimit
from docker.types import Mount as DockerMount
from docker.utils.socket import STDERR, frames_iter

from builder.engine.client import ContainerLost, EngineTrouble, engine_errors

__all__ = [
    "RUN_LABEL",
    "TOOLKIT_LABEL",
    "Limits",
    "Mount",
    "Request",
    "Result",
    "RunningContainer",
    "remove_leftovers",
    "running",
]

TOOLKIT_LABEL = "org.yolo-images.toolkit"
RUN_LABEL = "org.yolo-images.run"

_TMP = "/tmp"  # noqa: S108 - in the container
KILLED = 137
TIMED_OUT = 124
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the host in the container; read-only unless said otherwise."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one container may use. Sizes as Docker writes them: `6g`."""

    memory: str = "8g"
    pids: int = 1024
    cpus: float | None = None
    tmp: str = "3g"
    shm: str = "1g"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A container to run. `entrypoint` None keeps the image's own."""

    image: str
    command: Sequence[str] = ()
    entrypoint: Sequence[str] | None = None
    user: str = "12345:0"
    mounts: Sequence[Mount] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    gpus: bool = False
    limits: Limits = field(default_factory=Limits)
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended. `truncated` when it wrote more than was kept."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    truncated: bool = False

    @property
    def timed_out(self) -> bool:
        """Whether `timeout` ended it."""
        return self.exit_code == TIMED_OUT


class RunningContainer:
    """A started container; only `running` makes one."""

    def __init__(self, container: Container, client: DockerClient) -> None:
        self._container = container
        self._client = client
        self.started = time.time()

    @property
    def id(self) -> str:
        """The engine's id."""
        return str(self._container.id)

    def execute(
        self, argv: Sequence[str], *, timeout: int, workdir: str | None = None, keep: int = 8 << 20
    ) -> Result:
        """Run `argv` inside, at most `timeout` seconds; keep `keep` bytes of each stream.

        The limit is set inside the container: ending the client leaves the process alive there.
        """
        command = ["timeout", "-k", "5", str(timeout), *argv]
        begun = time.monotonic()
        with engine_errors(f"running {argv[0]} in the container"):
            api = self._client.api
            handle = api.exec_create(self.id, command, workdir=workdir)["Id"]
            with _stream(api.exec_start(handle, socket=True)) as frames:
                stdout, stderr, truncated = _collect(frames, keep)
            code = api.exec_inspect(handle)["ExitCode"]
        if code is None or code == KILLED:
            self._demand_alive(argv[0])
        return Result(
            argv=tuple(argv),
            exit_code=KILLED if code is None else int(code),
            stdout=stdout,
            stderr=stderr,
            seconds=time.monotonic() - begun,
            truncated=truncated,
        )

    def state(self) -> Mapping[str, Any]:
        """Return the engine's State of the container."""
        with engine_errors("asking for the container's state"):
            self._container.reload()
            state: Mapping[str, Any] = self._container.attrs["State"]
            return state

    def wait(self, *, timeout: float) -> Result:
        """Wait until the main process ends; past `timeout` kill it and answer as `timeout` does."""
        begun = time.monotonic()
        while (state := self.state())["Running"]:
            if time.monotonic() - begun > timeout:
                with engine_errors("killing the container"), suppress(ContainerLost):
                    self._container.kill()
                return self._ended(TIMED_OUT, time.monotonic() - begun)
            time.sleep(POLL_SECONDS)
        if state.get("OOMKilled"):
            raise ContainerLost("the container went over its memory limit", oom=True)
        return self._ended(int(state["ExitCode"]), time.monotonic() - begun)

    def stop(self, *, grace: int) -> Result:
        """Send SIGTERM, after `grace` seconds SIGKILL; say how it ended and how long it took."""
        begun = time.monotonic()
        with engine_errors("stopping the container"):
            self._container.stop(timeout=grace)
        seconds = time.monotonic() - begun
        return self._ended(int(self.state()["ExitCode"]), seconds)

    def logs(self, *, stdout: bool, stderr: bool) -> bytes:
        """Return what the main process wrote."""
        with engine_errors("reading the container's logs"):
            return bytes(self._container.logs(stdout=stdout, stderr=stderr))

    def _ended(self, code: int, seconds: float) -> Result:
        return Result(
            argv=(),
            exit_code=code,
            stdout=self.logs(stdout=True, stderr=False),
            stderr=self.logs(stdout=False, stderr=True),
            seconds=seconds,
        )

    def _demand_alive(self, doing: str) -> None:
        """Tell a command that was killed from a container that was."""
        state = self.state()
        if state.get("OOMKilled"):
            raise ContainerLost(f"{doing}: the container went over its memory limit", oom=True)
        if not state["Running"]:
            raise ContainerLost(f"{doing}: the container ended with code {state['ExitCode']}")


@contextmanager
def _stream(socket: Any) -> Iterator[Iterable[tuple[int, bytes]]]:
    """Yield the frames of an exec; the SDK's own streaming leaves its connection open."""
    with closing(socket):
        try:
            yield frames_iter(socket, tty=False)  # type: ignore[no-untyped-call]  # stubs
        finally:
            # Set by the SDK to keep the connection alive as long as the socket is.
            socket._response.close()  # noqa: SLF001


def _collect(frames: Iterable[tuple[int, bytes]], keep: int) -> tuple[bytes, bytes, bool]:
    """Drain the streams to the end, so that the writer never blocks; keep `keep` bytes of each."""
    stdout, stderr = bytearray(), bytearray()
    truncated = False
    for stream, chunk in frames:
        kept = stderr if stream == STDERR else stdout
        room = keep - len(kept)
        kept.extend(chunk[:room])
        truncated |= len(chunk) > room
    return bytes(stdout), bytes(stderr), truncated


@contextmanager
def running(client: DockerClient, request: Request, *, log: Path) -> Iterator[RunningContainer]:
    """Start a container as `request` says; on the way out keep its logs in `log` and remove it."""
    with engine_errors(f"creating a container of {request.image}"):
        container = client.containers.create(request.image, **_options(request))
    try:
        handle = RunningContainer(container, client)
        with engine_errors(f"starting a container of {request.image}"):
            container.start()
        yield handle
    finally:
        _dispose(container, log)


def _options(request: Request) -> dict[str, Any]:
    limits = request.limits
    options: dict[str, Any] = {
        "command": list(request.command),
        "user": request.user,
        "environment": dict(request.environment),
        "working_dir": request.workdir,
        "network_mode": "none",
        "read_only": True,
        # Without `exec`: it is what a plain `--tmpfs /tmp` gives users.
        "tmpfs": {_TMP: f"rw,nosuid,nodev,mode=1777,size={limits.tmp}"},
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,
        "pids_limit": limits.pids,
        "shm_size": limits.shm,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "mounts": [_mount(mount) for mount in request.mounts],
        "labels": {TOOLKIT_LABEL: "validate", RUN_LABEL: request.run},
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "16m"}),
    }
    if request.entrypoint is not None:
        options["entrypoint"] = list(request.entrypoint)
    if limits.cpus is not None:
        options["nano_cpus"] = int(limits.cpus * 1e9)
    if request.gpus:
        options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return options


def _mount(mount: Mount) -> DockerMount:
    return DockerMount(
        target=mount.target,
        source=str(mount.source.resolve()),
        type="bind",
        read_only=not mount.writable,
    )


def _dispose(container: Container, log: Path) -> None:
    """Keep the logs and remove the container, whatever state it or the engine is in."""
    with suppress(EngineTrouble), engine_errors("keeping the container's logs"):
        text = container.logs(stdout=True, stderr=True, timestamps=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(bytes(text))
    with suppress(EngineTrouble), engine_errors("removing the container"):
        container.remove(force=True, v=True)


def remove_leftovers(client: DockerClient, run: str) -> int:
    """Remove containers of a run whose process died before it could; return how many."""
    with engine_errors("looking for leftover containers"):
        found = client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={run}"})
    for container in found:
        with suppress(EngineTrouble), engine_errors("removing the container"):
            container.remove(force=True, v=True)
    return len(found)
