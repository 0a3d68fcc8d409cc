from __future__ import annotations

from builder.commands.doctor import problems
from builder.doctor import Disk, Lacking, Report, RowReport, Source
from builder.errors import BuildFailed, EngineUnavailable, SourceUnreachable

GOOD = Report(
    engine={"docker": "26.1.5"},
    engine_problem=None,
    disks=(Disk(what="engine", place="/var/lib/docker", free=60 * 10**9, total=100 * 10**9),),
    memory_bytes=24 * 10**9,
    cores=2,
    sources=(
        Source(what="package index", place="https://index.example/torch/", reason=None),
        Source(what="base registry", place="docker.io/library/debian", reason="no answer"),
    ),
    rows=(
        RowReport(id="yolov8-cu128", built=False, lacks=(), unresolved=(), needs_bytes=24 * 10**9),
    ),
)
TENSORRT = Lacking(
    part="tensorrt", source="https://pypi.nvidia.com/x.whl", reason="no route", optional=True
)
TORCH = Lacking(
    part="torch", source="https://download.pytorch.org/t.whl", reason="no route", optional=False
)


def with_row(**changes: object) -> Report:
    return GOOD.model_copy(update={"rows": (GOOD.rows[0].model_copy(update=changes),)})


def test_a_dead_registry_stops_nothing_for_bases_are_bootstrapped() -> None:
    assert problems(GOOD, ()) is None


def test_without_an_engine_nothing_else_matters() -> None:
    error = problems(GOOD.model_copy(update={"engine_problem": "nobody answers"}), ())
    assert isinstance(error, EngineUnavailable)
    assert str(error).startswith("nobody answers\n    Run: make engine")


def test_a_lacking_part_is_an_error_unless_it_may_be_missing() -> None:
    report = with_row(lacks=(TENSORRT,))
    error = problems(report, ())
    assert isinstance(error, SourceUnreachable)
    assert "yolov8-cu128, step tensorrt: https://pypi.nvidia.com/x.whl: no route" in str(error)
    assert "--allow-missing tensorrt" in str(error)
    assert problems(report, {"tensorrt"}) is None


def test_torch_may_never_be_missing() -> None:
    error = problems(with_row(lacks=(TORCH,)), {"torch", "tensorrt"})
    assert isinstance(error, SourceUnreachable)
    assert "There is no image without this part." in str(error)


def test_a_dead_package_index_is_named_beside_everything_else() -> None:
    dead = Source(what="package index", place="https://index.example/torch/", reason="HTTP 502")
    report = with_row(lacks=(TENSORRT,)).model_copy(update={"sources": (dead,)})
    error = problems(report, ())
    assert isinstance(error, SourceUnreachable)
    assert len(error.findings) == 2
    assert "package index: https://index.example/torch/: HTTP 502" in str(error)


def test_a_row_that_does_not_fit_is_named_and_a_built_one_is_not() -> None:
    error = problems(with_row(needs_bytes=59 * 10**9), ())
    assert isinstance(error, BuildFailed)
    assert "yolov8-cu128: needs about 59.0 GB of disk, 60.0 GB are free" in str(error)
    assert problems(with_row(needs_bytes=59 * 10**9, built=True), ()) is None
