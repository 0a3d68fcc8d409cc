"""Of the images that are built here: what a registry stores, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures import Figure
from bench.registry import read_blobs
from bench.scenario import NotMeasured, Scenario
from bench.workbench import Workbench
from builder.engine.client import engine_host

__all__ = ["REGISTRY", "SIZE"]

_GB = 1_000_000_000


def _registry(bench: Workbench, run: int) -> Mapping[str, float]:
    del run
    if not engine_host().startswith("unix:"):
        raise NotMeasured("the engine is remote: a registry on this machine is not its loopback")
    images = [bench.checkout.built(row) for row in bench.rows]
    registry = bench.registry("standing")
    totals = []
    for image in images:
        with bench.talk.working(f"pushing {image.reference}"):
            bench.push(image.reference, registry)
        totals.append(sum(read_blobs(registry.storage).values()))
    registry.close()
    return {"one": totals[0], "both": totals[-1], "both/one": totals[-1] / totals[0]}


REGISTRY = Scenario(
    name="registry",
    title="What a registry stores after one family, and after both",
    figures=(
        Figure(name="one", title="one family", unit="B"),
        Figure(name="both", title="both families", unit="B"),
        Figure(name="both/one", title="both / one", unit="ratio", at_most=1.06),
    ),
    measure=_registry,
    disk=8 * _GB,
    once=True,
)


def _size(bench: Workbench, run: int) -> Mapping[str, float]:
    del run
    sizes = {row: bench.checkout.built(row).size for row in bench.rows}
    for row, size in sizes.items():
        bench.note("size", f"{row} {size} bytes")
    return {"largest": max(sizes.values()), "smallest": min(sizes.values())}


SIZE = Scenario(
    name="size",
    title="Compressed size of the images, as their manifests say",
    figures=(
        Figure(name="largest", title="the largest row", unit="B", at_most=3.7 * _GB),
        Figure(name="smallest", title="the smallest row", unit="B"),
    ),
    measure=_size,
    disk=0,
    once=True,
)
