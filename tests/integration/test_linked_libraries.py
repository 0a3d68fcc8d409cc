"""No library in a built image is linked to one that was left out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from docker import DockerClient

from builder.records import BuildRecord, PlanRecord
from tests.integration.conftest import ROWS

# What comes with the driver, with InfiniBand (GPUDirect Storage over a network), and with TensorRT.
FROM_OUTSIDE = {"libcuda.so.1", "libibverbs.so.1", "libmlx5.so.1", "librdmacm.so.1"}
TENSORRT = {"libnvinfer.so.10", "libnvonnxparser.so.10"}


@pytest.mark.parametrize("row", ROWS)
def test_every_linked_library_is_there(
    quickstart: dict[str, tuple[PlanRecord, BuildRecord]], client: DockerClient, row: str
) -> None:
    plan, build = quickstart[row]
    script = Path(__file__).with_name("linked_libraries.py")
    output = client.containers.run(
        build.reference,
        ["/linked_libraries.py"],
        entrypoint="python",
        volumes={str(script): {"bind": "/linked_libraries.py", "mode": "ro"}},
        network_mode="none",
        remove=True,
    )
    found = json.loads(output)
    assert found["read"] > 500, "hardly any library was read"
    partial = TENSORRT if any(m.part == "tensorrt" for m in plan.missing) else set()
    assert {k: v for k, v in found["missing"].items() if k not in FROM_OUTSIDE | partial} == {}
