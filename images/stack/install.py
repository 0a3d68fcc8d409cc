"""One build step: install one requirement list into the virtual environment, reproducibly.

Runs inside the build with the image's own Python and nothing else; it is mounted, never copied in.

    install.py LIST...    install what the lists hold (an empty list installs nothing), then tidy
    install.py            only tidy: for steps that put files into place themselves

Tidying makes a step give the same bytes wherever it runs, so that rows share layers by content:
the installer's own notes go, byte code is made in one fixed order, and no time is later than
SOURCE_DATE_EPOCH. Files that nothing in these images can use go as well (UNNEEDED).

Whatever is newer than SOURCE_DATE_EPOCH was written by this very step, because the steps before
have been clamped: that is how a step knows what it touched.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import py_compile
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/opt")
"""Everything that steps write lies below it: the virtual environment and the image's own folder."""

UV = "/run/uv"
WHEELHOUSE = Path("/run/wheelhouse")
SECRETS = Path("/run/secrets")

NOTES = ("uv_cache.json", "uv_build.json", "direct_url.json")
"""When and how uv made a package, and from where it came (the URL of a mirror, perhaps): these
differ between two builds of the same lock."""


class Unneeded(NamedTuple):
    """Files of a distribution that nothing in these images can use."""

    distribution: str
    """Its name as a package index spells it; `*` stands for anything."""
    files: tuple[str, ...]
    """Paths as RECORD has them; `*` stands for anything, `/` too."""
    why: str
    """Goes to the build log, beside what the rule removed."""


# Whole files go or stay; what stays is, byte for byte, what its makers shipped. NVIDIA cuts alike:
# its `runtime` images have the shared libraries, `devel` adds compilers, debugging tools, headers
# and static libraries (nvidia.github.io/container-wiki/toolkit/container-images.html, 2026-11-25).
#
# "Named nowhere" means: in no DT_NEEDED entry and no string of a library, and in no Python source
# of torch 2.3.0, 2.7.1, 2.8.0 and 2.14.1, nor of the CUDA libraries, Triton and ONNX Runtime beside
# them (read 2026-11-25).
#
# MB are those of row yolov8-cu128: file by file as zstd level 3 packs them, and on disk. What gains
# less than 1 MB in every row stays. In all, its image has 3.68 GB instead of 3.86.
UNNEEDED = (
    # 82 MB, 161 MB.
    Unneeded(
        "nvidia-cusolver*",
        ("nvidia/*/lib/libcusolverMg.so.*",),
        "solver for several GPUs: named nowhere, torch uses libcusolver.so",
    ),
    # 42 MB, 111 MB. A second build of NVRTC beside the first, in CUDA 12.8 and 13.0.
    Unneeded(
        "nvidia-cuda-nvrtc*",
        ("nvidia/*/lib/libnvrtc.alt.so.*", "nvidia/*/lib/libnvrtc-builtins.alt.so.*"),
        "alternative NVRTC: named nowhere, torch and cuDNN use libnvrtc.so",
    ),
    # 2 MB, 9 MB.
    Unneeded(
        "nvidia-*",
        ("nvidia/*/include/*", "nvidia/*.a"),
        "headers and static libraries: there is no compiler in the image",
    ),
    # 9 MB, 37 MB, 9312 files. torch.utils.cpp_extension and Inductor's C++ code want them, after a
    # compiler: who adds one installs torch again.
    Unneeded(
        "torch",
        ("torch/include/*", "torch/share/cmake/*"),
        "headers: there is no compiler in the image",
    ),
    # 4 MB, 11 MB. torch_shm_manager beside it stays: it holds tensors for the workers of a loader.
    Unneeded(
        "torch",
        ("torch/bin/protoc*",),
        "compiler for protocol buffers, left over from the build of torch",
    ),
    # 23 MB, 134 MB, most of it static libraries. torch.profiler uses nvidia-cuda-cupti. The headers
    # beside it stay: Triton compiles its launchers with them, once somebody adds a C compiler.
    Unneeded(
        "triton",
        ("triton/backends/nvidia/lib/cupti*/*",),
        "CUPTI for Triton's own profiler, opened by it alone",
    ),
    # 5 MB, 6 MB; 50 MB, 51 MB with Triton 2.3.0. ptxas stays: it is Triton's assembler.
    Unneeded(
        "triton",
        ("triton/*/bin/nvdisasm", "triton/*/bin/cuobjdump"),
        "disassemblers, run only to print machine code",
    ),
    # 5 MB, 15 MB.
    Unneeded(
        "triton",
        ("triton/instrumentation/*.so*", "triton/plugins/*.so*"),
        "plug-ins that test and debug Triton's compiler, loaded only when asked for",
    ),
    # Row cu130 alone: 5 MB, 34 MB.
    Unneeded(
        "nvidia-nvshmem*",
        ("nvidia/nvshmem/lib/libnvshmem_device.*",),
        "NVSHMEM for kernels yet to be compiled; torch is linked to libnvshmem_host.so",
    ),
    # 9, 5, 4, 2 and 2 MB; 72 MB with the byte code. Read 2026-11-25: no other module imports them.
    Unneeded("sympy", ("sympy/*/tests/*",), "its own tests"),
    Unneeded("onnx", ("onnx/backend/test/data/*",), "models and tensors of its own tests"),
    Unneeded("numpy", ("numpy/tests/*", "numpy/*/tests/*"), "its own tests"),
    Unneeded("networkx", ("networkx/tests/*", "networkx/*/tests/*"), "its own tests"),
    Unneeded("matplotlib", ("matplotlib/tests/*",), "its own tests"),
)


def main() -> None:
    """Install the lists named on the command line, then tidy what this step touched."""
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    for name in sys.argv[1:]:
        install(Path(name))
    tidy(ROOT, epoch)


def install(requirements: Path) -> None:
    """Install exactly what the list holds: hashes required, no dependency resolved."""
    if is_empty(requirements.read_text(encoding="utf-8")):
        print(f"{requirements.name}: empty, nothing to install")
        return
    # uv unpacks into its cache first. On the same file system it can link instead of copy, and
    # gigabytes don't pass through a tmpfs; the folder is gone before the layer is committed.
    scratch = ROOT / ".install"
    scratch.mkdir()
    try:
        subprocess.run(command(requirements), env=environment(scratch), check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{requirements.name}: the installation failed; uv says why above ({error})")
    finally:
        shutil.rmtree(scratch)
        # uv locks the environment with a file that anyone may write, and leaves it.
        Path(sys.prefix, ".lock").unlink(missing_ok=True)


def is_empty(text: str) -> bool:
    """Say whether a requirement list asks for nothing."""
    lines = (line.strip() for line in text.splitlines())
    return all(not line or line.startswith("#") for line in lines)


def command(requirements: Path) -> list[str]:
    """Return uv's argument list for one requirement list."""
    argv = [UV, "pip", "install", "--no-cache", "--require-hashes", "--no-deps"]
    # A source archive (tensorrt-cu12 is one) is built with the setuptools of the image: an isolated
    # build would fetch one that no lock names.
    argv += ["--no-build-isolation", "--link-mode", "hardlink", "--python", sys.executable]
    # A lock also has the hashes of source archives. Without this a mirror that lacks a wheel would
    # have the archive's setup run here, and another layer come of the same lock.
    argv += ["--only-binary", ":all:"]
    for name in source_archives(requirements.read_text(encoding="utf-8")):
        argv += ["--no-binary", name]
    if WHEELHOUSE.is_dir():
        argv += ["--find-links", str(WHEELHOUSE)]
    return [*argv, "--requirements", str(requirements)]


def source_archives(text: str) -> list[str]:
    """Return the names of those that are meant to be built: archives by URL, and NVIDIA's.

    TensorRT's metapackage is published as a source archive only.
    """
    by_url = re.findall(r"^(\S+) @ \S+\.tar\.gz\b", text, flags=re.MULTILINE)
    return by_url + re.findall(r"^(tensorrt-cu\d+)==", text, flags=re.MULTILINE)


def environment(scratch: Path) -> dict[str, str]:
    """Return uv's environment: the host's configuration comes in as secrets, empty when unused."""
    variables = dict(os.environ, TMPDIR=str(scratch), UV_NO_PROGRESS="1", UV_HTTP_TIMEOUT="180")
    # TensorRT's source archive may start a pip of its own, past every hash (setup.py of
    # tensorrt-cu12 10.9.0.34, read 2026-11-24). "1" is its default; ours must not hang on that.
    variables["NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP"] = "1"
    for secret, variable in (("uv", "UV_CONFIG_FILE"), ("ca", "SSL_CERT_FILE")):
        path = SECRETS / secret
        if path.is_file() and path.stat().st_size:
            variables[variable] = str(path)
    return variables


def tidy(root: Path, epoch: int) -> None:
    """Make what is newer than `epoch` below `root` independent of when and where it was written."""
    for record in sorted(root.rglob("*.dist-info/RECORD")):
        if record.stat().st_mtime > epoch:
            remove_notes(record)
            remove_unneeded(record)
    compile_sources(sorted(path for path in root.rglob("*.py") if is_new(path, epoch)))
    clamp(root, epoch)


def is_new(path: Path, epoch: int) -> bool:
    """Say whether this step wrote the file (not a link to one)."""
    return path.lstat().st_mtime > epoch and path.is_file()


def remove_notes(record: Path) -> None:
    """Remove the installer's notes from a dist-info folder, and their lines from its RECORD."""
    for note in NOTES:
        (record.parent / note).unlink(missing_ok=True)
    strike(record, [f"{record.parent.name}/{note}" for note in NOTES])


def remove_unneeded(record: Path) -> None:
    """Remove what UNNEEDED names from one distribution, and the folders that this leaves empty."""
    name = record.parent.name.partition("-")[0].replace("_", "-").lower()
    packages = record.parent.parent
    for rule in UNNEEDED:
        if fnmatchcase(name, rule.distribution):
            files = [packages / path for path in strike(record, rule.files)]
            size = sum(file.stat().st_size for file in files)
            for file in files:
                file.unlink()
            remove_empty({file.parent for file in files}, packages)
            if files:
                print(f"{name}: {len(files)} files, {size / 1e6:.1f} MB left out: {rule.why}")


def strike(record: Path, patterns: Iterable[str]) -> list[str]:
    """Strike out the lines of RECORD whose path matches; return these paths."""
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    paths = [row[0] for row in csv.reader(lines)]
    struck = [any(fnmatchcase(path, pattern) for pattern in patterns) for path in paths]
    if any(struck):
        kept = (line for line, gone in zip(lines, struck, strict=True) if not gone)
        record.write_text("".join(kept), encoding="utf-8")
    return [path for path, gone in zip(paths, struck, strict=True) if gone]


def remove_empty(folders: Iterable[Path], top: Path) -> None:
    """Remove the folders that hold nothing, and those above them that then hold nothing."""
    for start in sorted(folders, reverse=True):
        folder = start
        while folder != top and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def compile_sources(sources: list[Path]) -> None:
    """Write byte code that is trusted without looking at the source's time.

    Containers run read-only and as any user, so what isn't compiled here is compiled at every
    start. Measured (2 cores, torch 2.8.0+cu128, ultralytics 8.4.190): import and model in 1.5 s
    instead of 2.4 s; costs 135 MB of 7.4 GB on disk, 52 MB of the layers, and 11 s of build time.
    One process, sorted: byte code depends on what the same interpreter compiled before.
    """
    for source in sources:
        try:
            py_compile.compile(
                str(source),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except (py_compile.PyCompileError, UnicodeDecodeError):
            # Templates and files for other Python versions; they fail when imported, as they would.
            Path(importlib.util.cache_from_source(str(source))).unlink(missing_ok=True)


def clamp(root: Path, epoch: int) -> None:
    """Set the time of everything newer than `epoch` to it: files, links, folders, `root` too."""
    for path in everything(root):
        if path.lstat().st_mtime > epoch:
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def everything(root: Path) -> Iterator[Path]:
    """Yield all that lies below `root`, folders after what they hold, `root` last."""
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            yield Path(folder, name)
    yield root


if __name__ == "__main__":
    main()
