"""A pytest plugin that turns what checks come to into CheckResults.

PASSED needs a check that ran to its end. A skip, an xfail or a plain exception is never a pass: the
first two don't exist for checks, the last is ERROR, because then the check broke, not the image.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from builder.engine.client import ContainerLost, EngineTrouble
from builder.records import CheckResult, Measurement, Outcome, write_atomic
from validate.checks import Check, CheckFailed, Inconclusive, Measurements, NotMeasured, check_of
from validate.verdict import TIERS, Tier

__all__ = ["OPTIONS", "Collected", "classify", "results_key"]

OPTIONS = ("plan", "build", "out", "run", "results", "only", "host-gpu")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a run of the suite left: also the file by which it crosses to the parent process."""

    checks: list[CheckResult] = field(default_factory=list)
    measurements: dict[str, Measurement] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomic(path, _ADAPTER.dump_json(self, indent=2).decode() + "\n")

    @classmethod
    def load(cls, path: Path) -> Collected:
        """Read what `save` wrote."""
        return _ADAPTER.validate_json(path.read_bytes())


_ADAPTER: TypeAdapter[Collected] = TypeAdapter(Collected)
results_key = pytest.StashKey[Collected]()
_saw = pytest.StashKey[str]()
_seconds = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the records and folders by option: nothing is read from the environment."""
    group = parser.getgroup("validate")
    for name in OPTIONS:
        group.addoption(f"--validate-{name}", default="", help=f"validate: {name}")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for results."""
    config.stash[results_key] = Collected()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the selected checks; a test without an id has no place in the suite."""
    for item in items:
        _check(item)
    wanted = frozenset(filter(None, config.getoption("--validate-only").split(",")))
    if wanted:
        items[:] = [item for item in items if _check(item).id in wanted]
    # Cheap tiers first; then by id, so that every record reads in the same order.
    items.sort(key=lambda item: (TIERS.index(tier_of(item.path)), _check(item).id))


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Call a check and keep the sentence it returns, for which plain pytest has no place."""
    if _find(pyfuncitem) is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 - as pytest's own implementation does
    saw = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    pyfuncitem.stash[_saw] = str(saw or "")
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Time the whole check, the facts collected for it included."""
    item.stash[_seconds] = time.monotonic()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Record a check when it ran, or when something before it failed."""
    report = yield
    if _find(item) is None:
        return report
    if call.when == "call" or (call.when == "setup" and call.excinfo is not None):
        _record(item, call.excinfo.value if call.excinfo else None)
    return report


def _record(item: pytest.Item, error: BaseException | None) -> None:
    check = _check(item)
    outcome, saw, fix, reason = classify(error)
    if outcome is Outcome.FAILED:
        reason, fix = check.why, fix or check.fix
    result = CheckResult(
        id=check.id,
        tier=tier_of(item.path),
        title=title_of(item),
        outcome=outcome,
        seconds=round(time.monotonic() - item.stash[_seconds], 3),
        saw=saw or item.stash.get(_saw, ""),
        fix=fix,
        reason=reason,
    )
    item.config.stash[results_key].checks.append(result)
    tell(f"{result.outcome.value:<12} {result.id:<4} {result.seconds:6.1f} s  {result.title}")


def classify(error: BaseException | None) -> tuple[Outcome, str, str, str]:
    """Return outcome, what was seen, what to do and the reason."""
    saw = fix = reason = ""
    if error is None:
        outcome = Outcome.PASSED
    elif isinstance(error, AssertionError):
        outcome, saw = Outcome.FAILED, str(error)
        fix = error.fix if isinstance(error, CheckFailed) else ""
    elif isinstance(error, NotMeasured):
        outcome, reason = Outcome.NOT_MEASURED, str(error)
    elif isinstance(error, Inconclusive):
        outcome, reason = Outcome.INCONCLUSIVE, str(error)
    elif isinstance(error, ContainerLost) and error.oom:
        outcome, reason = Outcome.ERROR, str(error)
        fix = "Give the container more memory, or find the leak."
    elif isinstance(error, EngineTrouble):
        outcome, reason = Outcome.INFRA, str(error)
        fix = "Look at the engine and the host, then run again."
    else:
        outcome, reason = Outcome.ERROR, f"{type(error).__name__}: {error}"
        fix = "Read the traceback in logs/pytest.log; the check broke, not the image."
    return outcome, saw, fix, reason


def tier_of(path: Path) -> Tier:
    """Return the tier, which is the folder."""
    for tier in TIERS:
        if path.parent.name == tier:
            return tier
    raise pytest.UsageError(f"{path}: checks lie in static/, cpu/ or gpu/")


def title_of(item: pytest.Item) -> str:
    """Return the first line of the check's docstring."""
    text = getattr(getattr(item, "obj", None), "__doc__", None) or item.name
    return str(text).strip().splitlines()[0]


def tell(line: str) -> None:
    """Write a line of progress; standard output belongs to pytest."""
    print(line, file=sys.__stderr__, flush=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the results over, also after an interruption."""
    path = session.config.getoption("--validate-results")
    if path:
        session.config.stash[results_key].save(Path(path))


def _find(item: pytest.Item) -> Check | None:
    return check_of(getattr(item, "function", None))


def _check(item: pytest.Item) -> Check:
    if (check := _find(item)) is None:
        raise pytest.UsageError(f"{item.nodeid} is no check: give it an id with @check")
    return check


@pytest.fixture(scope="session")
def measurements(request: pytest.FixtureRequest) -> Measurements:
    """Numbers that go into the record."""
    return Measurements(values=request.config.stash[results_key].measurements)
