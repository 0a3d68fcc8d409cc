"""Three rows that lack nothing, and the hosts that their files come from, played.

The versions are ones whose hashes no public lock told us: the locks leave them unresolved, as on a
machine that reaches no more than a package index, and the first build that reaches the hosts
resolves them. One server plays all hosts, on the address that builds see the machine under.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from builder.checkpoint import Lineage
from tests.checkpoints import small_checkpoint
from tests.integration.standins import FONT, SETTINGS
from tests.servers import sites
from tests.servers.packages import sdist, tar_gz, wheel
from tests.servers.play import PlayServer

__all__ = ["FLASH_ATTN", "TENSORRT", "checkpoint", "matrix_text", "play_hosts"]

TENSORRT = "10.10.0.31"
FLASH_ATTN = "2.8.2"
TORCH, TORCHVISION = "2.7.1", "0.22.1"
CPU_TORCH, CPU_TORCHVISION = "2.6.0", "0.21.0"
FORK_COMMIT = "0123456789abcdef0123456789abcdef01234567"
FORK_PATH = f"/sunsmarterjie/yolov12/archive/{FORK_COMMIT}.tar.gz"
OBJECTS, CODELOAD = "http://objects.example", "http://codeload.example"
"""Where GitHub leads to; a client gets there through the server as its proxy."""

_FLASH_TAG = "cp311-cp311-linux_x86_64"
_FLASH_LOCAL = "cu12torch2.7cxx11abiTRUE"

WEIGHTS: dict[str, Lineage] = {
    "own-yolov8n.pt": "yolov8",
    "own-yolo12n.pt": "yolo12",
    "own-yolov12n.pt": "turbo",
}
"""Checkpoints and their lineage. The judge knows the hashes behind the official names."""

# As NVIDIA's: a source archive whose setup starts a pip of its own unless it is told not to.
_TENSORRT_SETUP = f"""\
import os
from setuptools import setup

if not os.environ.get("NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP"):
    raise SystemExit("would start a pip of its own")
setup(
    name="tensorrt_cu12",
    version="{TENSORRT}",
    packages=["tensorrt"],
    install_requires=["tensorrt_cu12_libs=={TENSORRT}", "tensorrt_cu12_bindings=={TENSORRT}"],
)
"""

# As the fork's: the version is read from the package.
_FORK_PROJECT = """\
[build-system]
requires = ["setuptools>=70.0.0", "wheel"]
build-backend = "setuptools.build_meta"

[project]
name = "ultralytics"
dynamic = ["version"]

[tool.setuptools.packages.find]
include = ["ultralytics*"]

[tool.setuptools.dynamic]
version = { attr = "ultralytics.__version__" }
"""


def play_hosts(play: PlayServer, setuptools: Path, nvidia: str = "/nvidia") -> None:
    """Serve everything that the rows need; `setuptools` is the one real wheel among it.

    `nvidia` is the path of NVIDIA's index; the others lie where the official hosts have them.
    """
    files = {**_index_files(), setuptools.name: setuptools.read_bytes()}
    name, body = wheel(
        "tensorrt_cu12_libs",
        TENSORRT,
        {"tensorrt_libs/__init__.py": "", "tensorrt_libs/libnvinfer.so.10": "stand-in\n"},
        tag="py2.py3-none-manylinux_2_28_x86_64",
    )
    sites.nvidia(play, name, body, nvidia)
    sites.pytorch(play, "cpu", _cpu_wheels())
    for version in (FLASH_ATTN, "2.8.3"):
        name, body = wheel(
            "flash_attn",
            version,
            {"flash_attn/__init__.py": f'__version__ = "{version}"\n'},
            tag=_FLASH_TAG,
            local=_FLASH_LOCAL,
        )
        path = f"/Dao-AILab/flash-attention/releases/download/v{version}/{name}"
        sites.release_asset(play, path, body, objects=OBJECTS)
    sites.archive(play, FORK_PATH, fork_archive(), codeload=CODELOAD)
    for name in WEIGHTS:
        sites.release_asset(play, _weight_path(name), checkpoint(name), objects=OBJECTS)
    sites.index(play, files)


def checkpoint(name: str) -> bytes:
    """A stand-in checkpoint: its tensors say what the matrix says."""
    return small_checkpoint(WEIGHTS[name], name)


def fork_archive() -> bytes:
    """The fork's source as GitHub packs it."""
    return tar_gz(
        f"yolov12-{FORK_COMMIT}",
        {
            "pyproject.toml": _FORK_PROJECT,
            "ultralytics/__init__.py": '__version__ = "8.3.63"\n',
            "ultralytics/utils/__init__.py": SETTINGS,
        },
    )


def _index_files() -> Mapping[str, bytes]:
    bindings = {"tensorrt_bindings/__init__.py": ""}
    tag = "cp311-none-manylinux_2_28_x86_64"
    fork = {"ultralytics/__init__.py": "", "ultralytics/utils/__init__.py": SETTINGS}
    return dict(
        [
            wheel("torch", TORCH, {"torch/__init__.py": f'__version__ = "{TORCH}"\n'}),
            wheel("torch", CPU_TORCH, {"torch/__init__.py": ""}),
            wheel("torchvision", TORCHVISION, {"torchvision/__init__.py": ""}),
            wheel("torchvision", CPU_TORCHVISION, {"torchvision/__init__.py": ""}),
            wheel("onnxruntime_gpu", "1.23.2", {"onnxruntime/__init__.py": ""}),
            wheel("onnxruntime", "1.23.2", {"onnxruntime/__init__.py": ""}),
            wheel("matplotlib", "3.10.0", FONT),
            wheel("einops", "0.8.1", {"einops/__init__.py": ""}),
            wheel("ultralytics", "8.4.190", fork),
            wheel("ultralytics", "8.3.63", fork),
            wheel("tensorrt_cu12_bindings", TENSORRT, bindings, tag=tag),
            sdist(
                "tensorrt_cu12",
                TENSORRT,
                {"setup.py": _TENSORRT_SETUP, "tensorrt/__init__.py": "import tensorrt_bindings\n"},
            ),
        ]
    )


def _cpu_wheels() -> Mapping[str, bytes]:
    tag = "cp311-cp311-manylinux_2_28_x86_64"
    versions = {"torch": f"{CPU_TORCH}+cpu", "torchvision": f"{CPU_TORCHVISION}+cpu"}
    return dict(
        wheel(name, version, {f"{name}/__init__.py": f'__version__ = "{version}"\n'}, tag=tag)
        for name, version in versions.items()
    )


def matrix_text(*, flash_attn: str = FLASH_ATTN) -> str:
    """A matrix of three rows: everything on CUDA, a CPU stack, and the fork."""
    archive = fork_archive()
    weights = "".join(_weight_text(name, lineage) for name, lineage in WEIGHTS.items())
    return f"""\
version: "1"
platform: linux/amd64
stacks:
  whole:
    suite: bookworm
    python: "3.11"
    cuda: "12.6"
    torch: "{TORCH}"
    torchvision: "{TORCHVISION}"
    tensorrt: tensorrt-cu12=={TENSORRT}
    onnxruntime: onnxruntime-gpu==1.23.2
    flash_attn: "{flash_attn}"
    gpus: [A100, H100]
  wholecpu:
    suite: bookworm
    python: "3.11"
    index: pytorch
    torch: "{CPU_TORCH}"
    torchvision: "{CPU_TORCHVISION}"
    onnxruntime: onnxruntime==1.23.2
distributions:
  ultralytics:
    version: "8.4.190"
    requirements: [matplotlib]
  yolov12-fork:
    version: "8.3.63"
    archive:
      url: https://github.com{FORK_PATH}
      sha256: {hashlib.sha256(archive).hexdigest()}
      size: {len(archive)}
      status: computed
    requirements: [matplotlib]
families:
  yolov8:
    image: yolov8
    distribution: ultralytics
    weights: [own-yolov8n.pt]
  yolov12:
    image: yolov12
    distribution: ultralytics
    flash_attn: true
    weights: [own-yolo12n.pt]
  yolov12-fork:
    image: yolov12
    distribution: yolov12-fork
    flash_attn: true
    weights: [own-yolov12n.pt]
exclude:
  - {{row: yolov8-whole, because: the rows with flash-attn have all that this one has}}
  - {{row: yolov12-wholecpu, because: one row on the CPU is enough}}
  - {{row: yolov12-fork-wholecpu, because: one row on the CPU is enough}}
weights:
{weights}"""


def _weight_path(name: str) -> str:
    return f"/example/checkpoints/releases/download/v1/{name}"


def _weight_text(name: str, lineage: str) -> str:
    body = checkpoint(name)
    return f"""\
  {name}:
    url: https://github.com{_weight_path(name)}
    sha256: {hashlib.sha256(body).hexdigest()}
    size: {len(body)}
    status: computed
    licence: AGPL-3.0-only
    lineage: {lineage}
    architecture: {name.removeprefix("own-").removesuffix(".pt")}.yaml
"""
