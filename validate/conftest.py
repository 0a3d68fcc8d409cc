"""Fixtures of the checks: each collects its facts once, when the first check asks for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import testinfra
from docker import DockerClient

from builder.engine.client import ImageFacts, StartRefused, connect, inspect_image
from builder.engine.containers import RunningContainer
from builder.errors import Finding, InvalidInput
from builder.records import BuildRecord, PlanRecord, read_record, write_record
from validate import collect
from validate.collect import Session
from validate.facts import (
    Attempt,
    Cold,
    CommandRun,
    Comparison,
    Environment,
    Facts,
    Gpu,
    Packages,
    ProbeAnswer,
    Steady,
    Stop,
    Weights,
    document_of,
    parse_probe,
)
from validate.plugin import tell

COLD_STARTS = 3


class Seen:
    """Gathers facts as they come in, for facts.json."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def keep(self, answer: ProbeAnswer[Any], name: str) -> None:
        """Keep a section's facts; what its process tried to reach is the same for its sections."""
        self.values[name] = answer.facts
        for kind in ("network", "installers"):
            known = self.values.setdefault(kind, ())
            new = tuple(item for item in getattr(answer, kind) if item not in known)
            self.values[kind] = known + new


def _option(config: pytest.Config, name: str) -> str:
    return str(config.getoption(f"--validate-{name}"))


@pytest.fixture(scope="session")
def plan(pytestconfig: pytest.Config) -> PlanRecord:
    """The row, as it was planned."""
    record = read_record(path := Path(_option(pytestconfig, "plan")), PlanRecord)
    if record is None:
        raise InvalidInput(Finding(place=str(path), what="no such plan record"))
    return record


@pytest.fixture(scope="session")
def build(pytestconfig: pytest.Config) -> BuildRecord:
    """The build that is validated."""
    record = read_record(path := Path(_option(pytestconfig, "build")), BuildRecord)
    if record is None:
        raise InvalidInput(Finding(place=str(path), what="no such build record"))
    return record


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    """The engine."""
    with closing(connect()) as connected:
        yield connected


@pytest.fixture(scope="session")
def image(client: DockerClient, build: BuildRecord, seen: Seen) -> ImageFacts:
    """What the engine says about the image."""
    found = inspect_image(client, build.digest or build.reference)
    seen.values["image"] = found
    return found


@pytest.fixture(scope="session")
def seen(pytestconfig: pytest.Config, plan: PlanRecord, build: BuildRecord) -> Iterator[Seen]:
    """The record of facts; written at the end, whatever was collected by then."""
    gathered = Seen()
    yield gathered
    facts = Facts(id=plan.id, digest=build.digest or "", **gathered.values)
    write_record(Path(_option(pytestconfig, "out"), "facts.json"), facts)


@pytest.fixture(scope="session")
def session(
    pytestconfig: pytest.Config, client: DockerClient, plan: PlanRecord, image: ImageFacts
) -> Iterator[Session]:
    """Where and how containers are started."""
    with tempfile.TemporaryDirectory(prefix="validate-", ignore_cleanup_errors=True) as scratch:
        # The engine, and through it any uid, reads from this folder.
        Path(scratch).chmod(0o755)
        collect.stage_probes(Path(scratch))
        yield Session(
            client=client,
            plan=plan,
            image=image,
            logs=Path(_option(pytestconfig, "out"), "logs"),
            scratch=Path(scratch),
            run=_option(pytestconfig, "run"),
            talk=lambda line: tell(f"  {line}"),
        )


@pytest.fixture(scope="session")
def container(session: Session) -> Iterator[RunningContainer]:
    """The container of the cpu tier."""
    with collect.workbench(session) as started:
        yield started


@pytest.fixture(scope="session")
def host(container: RunningContainer) -> Any:
    """Testinfra's view into the container; each call is a `docker exec`."""
    return testinfra.get_host(f"docker://{container.id}")


@pytest.fixture(scope="session")
def still(session: Session, container: RunningContainer) -> bytes:
    """The cheap probes: nothing is loaded or predicted but the checkpoints themselves."""
    return collect.probe(session, container, "environment", "packages", "weights", timeout=120)


@pytest.fixture(scope="session")
def packages(still: bytes, seen: Seen) -> Packages:
    """The Python environment."""
    seen.keep(answer := parse_probe(still, "packages", Packages), "packages")
    return answer.facts


@pytest.fixture(scope="session")
def weights(still: bytes, seen: Seen) -> Weights:
    """The checkpoints."""
    seen.keep(answer := parse_probe(still, "weights", Weights), "weights")
    return answer.facts


@pytest.fixture(scope="session")
def work(session: Session, container: RunningContainer, still: bytes) -> bytes:  # noqa: ARG001 - goes first
    """The probes that work with a model, after the still ones."""
    collect.main_weight(session.plan)
    return collect.probe(session, container, "steady", "export", timeout=240)


@pytest.fixture(scope="session")
def steady(work: bytes, seen: Seen) -> Steady:
    """One hundred pictures in a row."""
    seen.keep(answer := parse_probe(work, "steady", Steady), "steady")
    return answer.facts


@pytest.fixture(scope="session")
def export(work: bytes, seen: Seen) -> Comparison:
    """A checkpoint and its ONNX export on the same pictures."""
    seen.keep(answer := parse_probe(work, "export", Comparison), "export")
    return answer.facts


@pytest.fixture(scope="session")
def network(still: bytes, work: bytes) -> tuple[Attempt, ...]:
    """What the probes tried to reach over the network, once all of them ran."""
    both = (parse_probe(still, "packages", Packages), parse_probe(work, "steady", Steady))
    return tuple(item for answer in both for item in answer.network)


@pytest.fixture(scope="session")
def installers(still: bytes, work: bytes) -> tuple[Attempt, ...]:
    """What the probes started to install something."""
    both = (parse_probe(still, "packages", Packages), parse_probe(work, "steady", Steady))
    return tuple(item for answer in both for item in answer.installers)


@pytest.fixture(scope="session")
def environments(
    still: bytes,
    work: bytes,  # noqa: ARG001 - goes between
    session: Session,
    container: RunningContainer,
    seen: Seen,
) -> tuple[Environment, Environment]:
    """The environment before and after predicting and exporting."""
    before = parse_probe(still, "environment", Environment)
    document = collect.probe(session, container, "environment", timeout=60)
    after = parse_probe(document, "environment", Environment)
    seen.keep(before, "environment_before")
    seen.keep(after, "environment_after")
    return before.facts, after.facts


@pytest.fixture(scope="session")
def cold(session: Session, seen: Seen) -> tuple[tuple[float, Cold], ...]:
    """Cold starts, each in a fresh container."""
    found = tuple(collect.cold_start(session, number) for number in range(1, COLD_STARTS + 1))
    seen.values["cold"] = tuple(item for _, item in found)
    return found


def _command(session: Session, seen: Seen, argv: list[str], name: str) -> CommandRun:
    run = collect.run_image(session, argv, name=name, save=name == "detect")
    seen.values["commands"] = (*seen.values.get("commands", ()), run)
    return run


@pytest.fixture(scope="session")
def usage(session: Session, seen: Seen) -> CommandRun:
    """The image without arguments."""
    return _command(session, seen, [], "usage")


@pytest.fixture(scope="session")
def detect(session: Session, seen: Seen) -> CommandRun:
    """Boxes of the bundled picture, saved to a folder of the caller."""
    return _command(session, seen, ["detect", "--json", "--save", "/out"], "detect")


@pytest.fixture(scope="session")
def detect_cuda(session: Session, seen: Seen) -> CommandRun:
    """The same with a GPU demanded where there is none."""
    return _command(session, seen, ["detect", "--device", "cuda:0"], "detect-cuda")


@pytest.fixture(scope="session")
def info(session: Session, seen: Seen) -> dict[str, Any]:
    """The image's own `info --json`."""
    run = _command(session, seen, ["info", "--json"], "info")
    return document_of(run)


@pytest.fixture(scope="session")
def stops(session: Session, seen: Seen) -> tuple[Stop, ...]:
    """SIGTERM while sleeping and while detecting."""
    found = (collect.stop_sleeping(session), collect.stop_detecting(session))
    seen.values["stops"] = found
    return found


@pytest.fixture(scope="session")
def gpu_container(pytestconfig: pytest.Config, session: Session) -> Iterator[RunningContainer]:
    """The container of the gpu tier; without a GPU there is none, and a reason."""
    starting = collect.workbench(session, gpus=True)
    try:
        started = starting.__enter__()
    except StartRefused as error:
        has_gpu = bool(_option(pytestconfig, "host-gpu"))
        collect.gpu_or_not_measured(error, host_has_gpu=has_gpu)
        raise
    try:
        yield started
    finally:
        starting.__exit__(None, None, None)


@pytest.fixture(scope="session")
def gpu(session: Session, gpu_container: RunningContainer, seen: Seen) -> Gpu:
    """Kernels, and a TensorRT export, on the GPU."""
    # Building an engine is a search over kernels: minutes on a small GPU.
    document = collect.probe(session, gpu_container, "gpu", timeout=540, device="cuda:0")
    seen.keep(answer := parse_probe(document, "gpu", Gpu), "gpu")
    return answer.facts


@pytest.fixture(scope="session")
def gpu_weights(session: Session, gpu_container: RunningContainer) -> Weights:
    """The checkpoints as they lie on the GPU host."""
    document = collect.probe(session, gpu_container, "weights", timeout=120)
    return parse_probe(document, "weights", Weights).facts


@pytest.fixture(scope="session")
def gpu_cold(
    session: Session,
    gpu_container: RunningContainer,  # noqa: ARG001 - gives the reason when there is none
) -> tuple[tuple[float, Cold], ...]:
    """Cold starts on the GPU; the idle container only proves that one can be started."""
    return tuple(
        collect.cold_start(session, number, device="cuda:0") for number in range(1, COLD_STARTS + 1)
    )
