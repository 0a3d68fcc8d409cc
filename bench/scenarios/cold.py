"""From an empty engine to both rows: against one row, two plain Dockerfiles, unordered targets."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures import Figure
from bench.scenario import Scenario
from bench.workbench import Leg, Workbench

__all__ = ["COLD", "PLAIN", "UNORDERED"]

_GB = 1_000_000_000
_OURS = 30 * _GB
"""Free disk that both rows need: 21 GB were measured on 2026-11-25, and the registry of other
scenarios may hold 4 GB."""

_TWICE = 50 * _GB
"""The same for two images that share no layer: 5.4 bytes on disk for each of 2 x 4.2 GB compressed
(the blob, and its files in the builder's and in the image's snapshots), and the registry."""


def _both(bench: Workbench, run: int) -> Leg:
    return bench.once_per_run(
        "both", run, lambda: bench.leg("both rows", lambda: bench.build_all(bench.rows))
    )


def _one(bench: Workbench, run: int) -> Leg:
    row = bench.rows[0]
    return bench.once_per_run(
        "one", run, lambda: bench.leg(f"{row} alone", lambda: bench.build_all([row]))
    )


def _cold(bench: Workbench, run: int) -> Mapping[str, float]:
    # By turns: whoever comes second finds more of the files that both read in memory.
    first, second = (_one, _both) if run % 2 == 0 else (_both, _one)
    legs = {leg: leg(bench, run) for leg in (first, second)}
    one, both = legs[_one], legs[_both]
    return {
        "one.seconds": one.seconds,
        "both.seconds": both.seconds,
        "both/one": both.seconds / one.seconds,
        "both.stored": both.stored,
        "one.peak": one.peak,
        "both.peak": both.peak,
    }


COLD = Scenario(
    name="cold",
    title="From an empty engine to both rows, and to one of them",
    figures=(
        Figure(name="one.seconds", title="first row alone", unit="s"),
        Figure(name="both.seconds", title="both rows", unit="s"),
        Figure(name="both/one", title="both / one", unit="ratio", at_most=1.1),
        Figure(name="both.stored", title="both, compressed, each layer once", unit="B"),
        Figure(name="one.peak", title="first row, peak disk", unit="B"),
        Figure(name="both.peak", title="both, peak disk", unit="B", at_most=32 * _GB),
    ),
    measure=_cold,
    disk=_OURS,
)


def _plain_leg(bench: Workbench, run: int) -> Leg:
    def build() -> tuple[float, Mapping[str, int]]:
        seconds, images = 0.0, {}
        for spec in bench.specs:
            plan = bench.plans[spec.id]
            bench.baseline.import_base(plan, spec.stack.suite)
            seconds += bench.baseline.plain(plan, spec.image, spec.stack.suite)
            images[spec.id] = bench.baseline.image_bytes(f"yolo-bench/{spec.image}:plain")
        return seconds, images

    return bench.once_per_run("plain", run, lambda: bench.leg("two plain Dockerfiles", build))


def _plain(bench: Workbench, run: int) -> Mapping[str, float]:
    # Ours first: its build lays out the local wheels that the plain one gets too.
    both = _both(bench, run)
    plain = _plain_leg(bench, run)
    return {
        "seconds": plain.seconds,
        "both/plain": both.seconds / plain.seconds,
        "stored": plain.stored,
        "peak": plain.peak,
        "largest": max(plain.images.values()),
        "ours/plain": sum(both.images.values()) / sum(plain.images.values()),
    }


PLAIN = Scenario(
    name="cold-plain",
    title="The same from two plain Dockerfiles, one after the other",
    figures=(
        Figure(name="seconds", title="two plain Dockerfiles", unit="s"),
        Figure(name="both/plain", title="both rows / two plain", unit="ratio", at_most=0.6),
        Figure(name="stored", title="compressed, each layer once", unit="B"),
        Figure(name="peak", title="peak disk", unit="B"),
        Figure(name="largest", title="the larger image, compressed", unit="B"),
        Figure(name="ours/plain", title="compressed size, ours / plain", unit="ratio"),
    ),
    measure=_plain,
    disk=_TWICE,
)


def _unordered(bench: Workbench, run: int) -> Mapping[str, float]:
    both = _both(bench, run)

    def build() -> tuple[float, Mapping[str, int]]:
        seconds = bench.baseline.unordered([spec.stack.suite for spec in bench.specs])
        tags = {row: f"yolo-bench/{row}:unordered" for row in bench.rows}
        return seconds, {row: bench.baseline.image_bytes(tag) for row, tag in tags.items()}

    leg = bench.once_per_run("unordered", run, lambda: bench.leg("independent bake targets", build))
    return {
        "seconds": leg.seconds,
        "both/unordered": both.seconds / leg.seconds,
        "stored": leg.stored,
        "peak": leg.peak,
    }


UNORDERED = Scenario(
    name="cold-unordered",
    title="The same packages as independent bake targets, without our ordering",
    figures=(
        Figure(name="seconds", title="two independent targets", unit="s"),
        Figure(name="both/unordered", title="both rows / independent targets", unit="ratio"),
        Figure(name="stored", title="compressed, each layer once", unit="B"),
        Figure(name="peak", title="peak disk", unit="B"),
    ),
    measure=_unordered,
    disk=_TWICE,
)
