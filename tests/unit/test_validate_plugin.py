from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.engine.client import ContainerLost, EngineLost, StartRefused
from builder.records import CheckResult, Outcome
from validate.checks import CheckFailed, Inconclusive, NotMeasured
from validate.facts import ProbeError
from validate.plugin import Collected, classify, tier_of


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.PASSED),
        (CheckFailed("seen"), Outcome.FAILED),
        (AssertionError("seen"), Outcome.FAILED),
        (NotMeasured("no GPU"), Outcome.NOT_MEASURED),
        (Inconclusive("noise"), Outcome.INCONCLUSIVE),
        (EngineLost("gone"), Outcome.INFRA),
        (StartRefused("refused"), Outcome.INFRA),
        (ContainerLost("killed"), Outcome.INFRA),
        (ContainerLost("memory", oom=True), Outcome.ERROR),
        (ProbeError("bad JSON"), Outcome.ERROR),
        (KeyError("x"), Outcome.ERROR),
        (pytest.skip.Exception("skipped"), Outcome.ERROR),
    ],
)
def test_what_an_exception_means(error: BaseException | None, outcome: Outcome) -> None:
    found, saw, _, reason = classify(error)
    assert found is outcome
    assert (saw or reason) == "" if error is None else (saw or reason)


def test_tiers_are_folders() -> None:
    assert tier_of(Path("validate/gpu/test_x.py")) == "gpu"
    with pytest.raises(pytest.UsageError, match="static/, cpu/ or gpu/"):
        tier_of(Path("validate/other/test_x.py"))


SUITE = '''
import pytest
from validate.checks import check, failed, not_measured

@pytest.fixture(scope="session")
def unavailable():
    not_measured("there is none")

@check("C01", why="it matters", fix="do this")
def test_passes():
    """A thing is so.

    More about it.
    """
    return "it was so"

@check("C02", why="it matters", fix="do this")
def test_fails():
    """Another is."""
    failed("it was not")

@check("C03", why="it matters", fix="do this")
def test_fails_with_advice():
    """Another is."""
    failed("it was not", fix="do that")

@check("C04", why="it matters", fix="do this")
def test_depends(unavailable):
    """A third is."""

@check("C05", why="it matters", fix="do this")
def test_depends_too(unavailable):
    """A fourth is."""

@check("C06", why="it matters", fix="do this")
def test_skips():
    """A skip is no pass."""
    pytest.skip("no time")

@check("C07", why="it matters", fix="do this")
def test_breaks():
    """A broken check is no failure of the image."""
    {}["x"]
'''


def run_suite(
    tmp_path: Path, suite: str, *options: str
) -> tuple[subprocess.CompletedProcess[str], Path]:
    file = tmp_path / "cpu" / "test_suite.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(suite)
    results = tmp_path / "results.json"
    argv = [sys.executable, "-m", "pytest", "-p", "validate.plugin", "-p", "no:cacheprovider"]
    argv += ["-o", "addopts=", "--import-mode=importlib", f"--validate-results={results}"]
    done = subprocess.run(
        [*argv, *options, str(file)],
        # Only the plugin that is named: loading all that are installed takes a second each time.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, results


def collect(tmp_path: Path, suite: str, *options: str) -> dict[str, CheckResult]:
    done, results = run_suite(tmp_path, suite, *options)
    assert results.exists(), done.stdout + done.stderr
    return {item.id: item for item in Collected.load(results).checks}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckResult]:
    return collect(tmp_path_factory.mktemp("suite"), SUITE)


def test_a_pass_says_what_it_saw(found: dict[str, CheckResult]) -> None:
    passed = found["C01"]
    assert (passed.outcome, passed.tier, passed.title) == (Outcome.PASSED, "cpu", "A thing is so.")
    assert passed.saw == "it was so"


def test_a_failure_says_what_why_and_what_to_do(found: dict[str, CheckResult]) -> None:
    assert found["C02"].outcome is Outcome.FAILED
    assert (found["C02"].saw, found["C02"].reason, found["C02"].fix) == (
        "it was not",
        "it matters",
        "do this",
    )
    assert found["C03"].fix == "do that"


def test_a_fixture_s_reason_reaches_every_check(found: dict[str, CheckResult]) -> None:
    for name in ("C04", "C05"):
        assert found[name].outcome is Outcome.NOT_MEASURED
        assert found[name].reason == "there is none"


def test_skips_and_broken_checks_are_errors(found: dict[str, CheckResult]) -> None:
    assert found["C06"].outcome is Outcome.ERROR
    assert found["C07"].outcome is Outcome.ERROR
    assert "KeyError" in found["C07"].reason


def test_checks_can_be_selected(tmp_path: Path) -> None:
    assert set(collect(tmp_path, SUITE, "--validate-only=C01,C02")) == {"C01", "C02"}


def test_a_test_without_an_id_is_refused(tmp_path: Path) -> None:
    done, results = run_suite(tmp_path, "def test_x():\n    pass\n")
    assert "is no check" in done.stdout + done.stderr
    assert done.returncode not in {0, 1}
    assert Collected.load(results).checks == []
