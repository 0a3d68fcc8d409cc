"""All scenarios, in the order in which a run goes through them."""

from __future__ import annotations

from bench.scenario import Scenario
from bench.scenarios.changes import BASE, BUMP, RUNTIME
from bench.scenarios.cold import COLD, PLAIN, UNORDERED
from bench.scenarios.commands import NOOP, START
from bench.scenarios.standing import REGISTRY, SIZE
from bench.workbench import Workbench

__all__ = ["SCENARIOS"]

# The changes follow the cold builds: they go on with what those left in the second engine.
SCENARIOS: tuple[Scenario[Workbench], ...] = (
    START, NOOP, SIZE, REGISTRY, COLD, BUMP, RUNTIME, BASE, PLAIN, UNORDERED,
)  # fmt: skip
