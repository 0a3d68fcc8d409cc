"""Properties of the Dockerfiles that no build shows: shared steps, and scopes of arguments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[2] / "images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))


def stages(path: Path) -> dict[str, str]:
    """Return the text of each stage by its name, without its FROM line and comments."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    parts = re.split(r"^FROM \S+ AS (\S+)$", "\n".join(lines), flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_both_families_share_their_steps() -> None:
    eight, twelve = stages(IMAGES / "yolov8/Dockerfile"), stages(IMAGES / "yolov12/Dockerfile")
    assert twelve.pop("flash-attn")
    assert twelve == eight, "steps differ: the families would no longer share these layers"


def test_the_weights_of_a_row_are_not_declared_before_their_step() -> None:
    steps = stages(IMAGES / "yolov8/Dockerfile")
    declaring = [name for name, text in steps.items() if "ARG RANDOM_WEIGHTS" in text]
    assert declaring == ["checkpoints"], "the layers before would be rebuilt for each row"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.parent.name))
def test_no_secret_is_a_build_argument_or_variable(path: Path) -> None:
    declared = re.findall(r"^(?:ARG|ENV) .*", path.read_text(), flags=re.MULTILINE)
    suspicious = re.compile(r"token|password|secret|proxy|index_url|cert", re.IGNORECASE)
    assert [line for line in declared if suspicious.search(line)] == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.parent.name))
def test_steps_with_packages_go_through_the_installer(path: Path) -> None:
    assert not re.search(r"\bpip install\b", path.read_text())
