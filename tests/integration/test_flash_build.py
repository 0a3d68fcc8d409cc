"""flash-attn from source, for real but for its size: the real recipe, nvcc from wheels, one kernel.

The stand-in for flash-attn's archive asks in its setup.py for all that the real one reads, and has
one small kernel. Compiler, headers and linker are those that a real row of CUDA 13 is locked with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient

from builder.build import Builder, BuildOptions, Origin
from builder.commands.building import compatible_rows
from builder.errors import BuildFailed
from builder.flash_compile import wheel_store
from builder.folders import Folders
from builder.lock import make_lock
from builder.sources import load_sources
from builder.talk import Talk
from tests.integration.standins import MATRIX, WEIGHTS, make_wheels
from tests.servers.packages import sdist, wheel

TOOLKIT = "cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]==13.0.2"
OTHERS = ("einops", "ninja", "packaging", "psutil", "setuptools", "wheel")

FLASH_MATRIX = (
    MATRIX.replace('cuda: "12.8"', 'cuda: "13.0"')
    .replace('torch: "2.8.0"', 'torch: "2.14.1"')
    .replace('torchvision: "0.23.0"', 'torchvision: "0.29.2"')
    .replace("onnxruntime-gpu==1.23.2", "onnxruntime-gpu==1.31.1")
    .replace(
        "    gpus: [T4, H100]\n",
        '    flash_attn: {version: "2.8.3", source: build}\n    gpus: [T4, A10, H100]\n',
    )
    .replace("  yolov8:\n    image: yolov8\n", "  flash:\n    image: yolov12\n")
    .replace("    weights: [yolov8n.pt]\n", "    flash_attn: true\n    weights: [yolov8n.pt]\n")
)

TORCH = """\
__version__ = "2.14.1+cu130"

class version:
    cuda = "13.0"

def compiled_with_cxx11_abi():
    return True
"""

SETUP = """\
import os
import subprocess
import sysconfig
from pathlib import Path

import torch
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MUST = {
    "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
    "FLASH_ATTENTION_SKIP_CUDA_BUILD": "FALSE",
    "FLASH_ATTENTION_FORCE_CXX11_ABI": "TRUE",
}
for name, value in MUST.items():
    if os.environ[name] != value:
        raise SystemExit(f"{name} is {os.environ[name]}")
assert int(os.environ["MAX_JOBS"]) >= 1
assert int(os.environ["SOURCE_DATE_EPOCH"]) > 0


class Nvcc(build_ext):
    def build_extension(self, ext):
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        argv = [f"{os.environ['CUDA_HOME']}/bin/nvcc", "-std=c++17", "-shared"]
        argv += ["-Xcompiler", "-fPIC"]
        argv += ["--threads", os.environ["NVCC_THREADS"], "--cudart", "shared"]
        for code in os.environ["FLASH_ATTN_CUDA_ARCHS"].split(";"):
            argv += ["-gencode", f"arch=compute_{code},code=sm_{code}"]
        argv += ["-I", sysconfig.get_path("include"), "-o", str(target), "kernel.cu"]
        print(*argv)
        subprocess.run(argv, check=True)


version = "2.8.3+" + os.environ["FLASH_ATTN_LOCAL_VERSION"]
setup(
    name="flash_attn",
    version=version,
    packages=["flash_attn"],
    ext_modules=[Extension("flash_attn_2_cuda", [])],
    cmdclass={"build_ext": Nvcc},
)
"""

KERNEL = """\
#if __cplusplus < 202002L
#error "not compiled as the C++ that this torch needs"
#endif
#include <Python.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <thrust/version.h>

__global__ void twice(__half* x) { x[threadIdx.x] = __hadd(x[threadIdx.x], x[threadIdx.x]); }

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "flash_attn_2_cuda"};

PyMODINIT_FUNC PyInit_flash_attn_2_cuda() {
    if (cudaGetLastError() == cudaSuccess && false) twice<<<1, 32>>>(nullptr);
    return PyModule_Create(&definition);
}
"""

SEEN = """\
import importlib.metadata as metadata, json, shutil
nvidia = [found.name for found in metadata.distributions() if found.name.startswith("nvidia")]
print(json.dumps([metadata.version("flash-attn"), shutil.which("g++"), nvidia]))
"""

STARVED = """\
print("nvcc error   : 'cicc' died due to signal 9 (Kill signal)")
raise SystemExit(1)
"""


def archive(folder: Path, setup: str) -> None:
    """Put a source archive of "flash-attn" into `folder`."""
    files: Mapping[str, str] = {
        "setup.py": setup,
        "kernel.cu": KERNEL,
        "flash_attn/__init__.py": '__version__ = "2.8.3"\n',
    }
    name, content = sdist("flash_attn", "2.8.3", files)
    (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nvcc and the build tools, from the package index that this machine is configured for."""
    folder = tmp_path_factory.mktemp("toolchain")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:",
            "--dest", str(folder), TOOLKIT, *OTHERS,
        ],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def project(tmp_path: Path, root: Path, toolchain: Path, client: DockerClient) -> Iterator[Folders]:
    """A project of one row that says `source: build`."""
    folders = Folders(tmp_path / "project")
    folders.root.mkdir()
    folders.matrix.write_text(FLASH_MATRIX)
    shutil.copytree(root / "images", folders.images, ignore=shutil.ignore_patterns("__pycache__"))
    house = tmp_path / "wheels"
    make_wheels(house)
    for path in toolchain.iterdir():
        shutil.copy2(path, house / path.name)
    for name, version, files in (
        ("torch", "2.14.1", torch_files()),
        ("torchvision", "0.29.2", {"torchvision/__init__.py": ""}),
        ("onnxruntime_gpu", "1.31.1", {"onnxruntime/__init__.py": ""}),
    ):
        file, content = wheel(name, version, files)
        (house / file).write_bytes(content)
    archive(house, SETUP)
    rootfs = Folders(root).cache / "rootfs"
    shutil.copytree(rootfs, folders.cache / "rootfs", copy_function=os.link)
    (row,) = compatible_rows(folders.root, None)
    weight = folders.weight(row.weights[0])
    weight.parent.mkdir(parents=True)
    weight.write_bytes(WEIGHTS)
    yield folders
    for image in client.images.list(filters={"label": f"org.yolo-images.row={row.id}"}):
        client.images.remove(str(image.id), force=True)


def torch_files() -> dict[str, str]:
    return {
        "torch/__init__.py": TORCH,
        "torch/utils/__init__.py": "",
        "torch/utils/cpp_extension.py": "FLAGS = ['-std=c++20']\n",
    }


def builder_of(folders: Folders, house: Path) -> Builder:
    sources = replace(load_sources(os.environ), no_index=True, find_links=(str(house),))
    (row,) = compatible_rows(folders.root, None)
    make_lock(folders.locks, row, sources=sources, talk=print)
    return Builder(
        folders=folders,
        sources=sources,
        origin=Origin(revision="0" * 40, source="https://example.org/fixture"),
        options=BuildOptions(),
        talk=Talk(),
    )


def test_a_row_with_its_own_flash_attn(
    project: Folders, tmp_path: Path, client: DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    builder = builder_of(project, tmp_path / "wheels")
    rows = compatible_rows(project.root, None)
    (plan,) = builder.plan(rows)
    assert plan.record.compiled is not None
    assert plan.record.compiled.sha256 is None
    (record,) = builder.build([plan])
    assert record.status == "built"
    said = capfd.readouterr().err
    assert "to be compiled, because matrix.yaml says source: build; for sm_80, sm_90" in said

    # The store has what was asked for, and the machine code says so itself.
    assert plan.wheel is not None
    stored = wheel_store(project, builder.talk).find(plan.wheel.compilation)
    assert stored is not None
    assert stored.meta.report.sms == ("80", "90")
    assert "V13.0" in stored.meta.report.nvcc or "13.0" in stored.meta.report.nvcc
    assert stored.path.name == plan.wheel.compilation.file
    with zipfile.ZipFile(stored.path) as wheel_file:
        names = wheel_file.namelist()
    assert any(name.startswith("flash_attn_2_cuda.cpython-311") for name in names)

    # The image has that wheel, says so, and nothing of the compiler.
    version = plan.wheel.compilation.full_version
    image = client.images.get(record.reference)
    assert image.labels["org.yolo-images.flash-attn"] == version
    seen = client.containers.run(
        record.reference,
        entrypoint=["/opt/venv/bin/python", "-c"],
        command=[SEEN],
        remove=True,
    )
    assert json.loads(seen) == [version, None, []]

    # A second time nothing is compiled, and the key of the image is the same.
    (again,) = builder.plan(rows)
    assert again.record.compiled is not None
    assert again.record.compiled.sha256 == stored.meta.sha256
    assert again.record.build_key == plan.record.build_key
    (unchanged,) = builder.build([again])
    assert unchanged.status == "unchanged"
    assert "to be compiled" not in capfd.readouterr().err


def test_a_compiler_without_memory_says_what_to_set(
    project: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_JOBS", "6")
    archive(tmp_path / "wheels", STARVED)
    builder = builder_of(project, tmp_path / "wheels")
    plans = builder.plan(compatible_rows(project.root, None))
    with pytest.raises(BuildFailed) as failure:
        builder.build(plans)
    first, *others = failure.value.findings
    assert "ran out of memory with MAX_JOBS=6" in first.what
    assert "Set MAX_JOBS=3" in first.todo
    assert any("signal 9" in finding.why for finding in others)
    assert plans[0].wheel is not None
    assert wheel_store(project, builder.talk).find(plans[0].wheel.compilation) is None
