"""The house rules about who may import whom, kept by reading every file's imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

IN_IMAGE_ONLY = {"torch", "torchvision", "ultralytics", "tensorrt", "cv2", "numpy", "onnxruntime"}


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_under(root: Path, *folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    assert found, folders
    return found


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)}


def test_what_the_builder_starts_inside_an_image_needs_python_alone(root: Path) -> None:
    """It is read as a file and never imported: neither side may lean on the other."""
    for path in files_under(root, "builder/inside"):
        assert tops(path) <= sys.stdlib_module_names, path
    for path in [*files_under(root, "builder", "validate", "images"), root / "build.py"]:
        assert not [name for name in imports_of(path) if name.startswith("builder.inside")], path


def test_images_import_no_host_code(root: Path) -> None:
    for path in files_under(root, "images", "validate/probes"):
        assert not tops(path) & {"builder", "validate", "docker", "pydantic"}, path


def test_the_builder_does_not_know_the_validator(root: Path) -> None:
    for path in files_under(root, "builder"):
        assert not tops(path) & {"validate", "bench"}, path


def test_host_code_imports_nothing_that_only_images_have(root: Path) -> None:
    probes = root / "validate" / "probes"
    for path in [*files_under(root, "builder", "validate"), root / "build.py"]:
        if not path.is_relative_to(probes):
            assert not tops(path) & IN_IMAGE_ONLY, path


def test_only_the_engine_package_talks_to_docker(root: Path) -> None:
    engine = root / "builder" / "engine"
    for path in [*files_under(root, "builder", "validate"), root / "build.py"]:
        if not path.is_relative_to(engine):
            # The type of the client may be named; the calls are the engine package's.
            names = {name for name in imports_of(path) if name.startswith("docker")}
            assert names <= {"docker", "docker.DockerClient"}, path


@pytest.mark.parametrize("module", ["matrix", "plan", "requirements", "bakefile", "spec"])
def test_what_is_left_of_build_is_pure(root: Path, module: str) -> None:
    """No clock, no process, no network: the same arguments give the same bytes."""
    names = set(imports_of(root / "builder" / f"{module}.py"))
    assert not {name.partition(".")[0] for name in names} & {
        "datetime",
        "docker",
        "httpx",
        "random",
        "socket",
        "subprocess",
        "time",
    }
