"""Compile flash-attn's source archive into a wheel, with the compiler that the lock names.

Runs inside the builder stage with the image's own Python and torch, without network. Leaves in
/wheel the wheel and report.json: what it was compiled with, and for which architectures there is
machine code inside. Everything that it needs to know comes in build arguments.

A failure ends with one line that starts with `flash-attn:` and says what is wrong; the builder
shows it and, for want of memory, what to set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

SOURCES = Path("/run/sources")
WORK = Path("/build")
RESULT = Path("/wheel")
UV = "/run/uv"

MEMORY_SIGNS = re.compile(
    r"signal 9|\bKilled\b|exit(?: status| code)?[ =:]+137|\bcode=137\b|out of memory"
    r"|virtual memory exhausted|bad_alloc|Cannot allocate memory",
    re.IGNORECASE,
)
"""How nvcc, g++, ninja and the kernel say that memory ran out."""

FATBIN_MAGIC = 0xBA55ED50
CUBIN = 2
"""The kind of a fatbin entry that holds machine code; 1 is PTX."""


ASK_TORCH = """
import json, re, torch, torch.utils.cpp_extension
source = open(torch.utils.cpp_extension.__file__, encoding="utf-8").read()
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "cxx11abi": bool(torch.compiled_with_cxx11_abi()),
    "standard": max(map(int, re.findall(r"-std=c[+][+]([0-9]+)", source)), default=17),
}))
"""
"""torch names the C++ standard that its headers need only as a flag in this module."""


def main() -> None:
    """Check, compile, and report."""
    started = time.monotonic()
    torch_says = ask_torch()
    compare(torch_says)
    cuda = make_cuda_home(WORK / "cuda")
    source = unpack(archive_named("flash_attn-*.tar.gz"), WORK / "source")
    raise_standard(source / "setup.py", int(str(torch_says["standard"])))
    build(source, cuda)
    wheel = next(RESULT.glob("*.whl"), None)
    if wheel is None:
        fail("the build ended well, but left no wheel")
    report = {
        "torch": torch_says["version"],
        "cuda": torch_says["cuda"],
        "cxx11abi": torch_says["cxx11abi"],
        "nvcc": last_line([str(cuda / "bin" / "nvcc"), "--version"]),
        "gxx": first_line(["g++", "--version"]),
        "sms": sorted({str(sm) for sm in sms_in(wheel)}, key=int),
        "seconds": round(time.monotonic() - started, 1),
    }
    (RESULT / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"flash-attn: {wheel.name}, machine code for {report['sms']}")


def fail(reason: str) -> NoReturn:
    """End with the reason as the last line."""
    sys.exit(f"flash-attn: {reason}")


def ask_torch() -> dict[str, object]:
    """Say which torch this is: version, CUDA and C++ ABI of the build, C++ standard of its headers.

    In a process of its own, so that this one stays free of torch's gigabytes while it waits.
    """
    argv = [sys.executable, "-c", ASK_TORCH]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"torch can't be imported here:\n{done.stderr.strip()}")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def compare(torch_says: dict[str, object]) -> None:
    """Refuse to compile for another torch than the one that was planned for."""
    expected = {
        "version": os.environ["TORCH"],
        "cuda": os.environ["CUDA"],
        "cxx11abi": os.environ["CXX11_ABI"] == "TRUE",
    }
    found = {name: torch_says[name] for name in expected}
    found["version"] = str(found["version"]).partition("+")[0]
    if found != expected:
        fail(f"this torch is {found}, planned was {expected}")


def archive_named(pattern: str) -> Path:
    """Return the one file of the lock that fits."""
    found = sorted(SOURCES.glob(pattern))
    if len(found) != 1:
        fail(f"expected one {pattern} among the sources, found {[path.name for path in found]}")
    return found[0]


def unpack(archive: Path, target: Path) -> Path:
    """Unpack an archive whose files lie in one folder; return that folder."""
    with tarfile.open(archive) as file:
        # Nothing may leave the folder. Debian 12's Python 3.11.2 can't refuse it, but the lock's
        # hash has said already whose archive this is: https://docs.python.org/3/library/tarfile.html
        # #supporting-older-python-versions, read 2026-11-25.
        file.extraction_filter = getattr(tarfile, "data_filter", None)
        file.extractall(target)  # noqa: S202 - filtered, or vouched for by its hash
    (folder,) = target.iterdir()
    return folder


def raise_standard(setup: Path, standard: int) -> None:
    """Compile as the C++ that torch's headers need where setup.py asks for an older one.

    Up to 2.8.3.post2 it asks for C++17; the headers of torch 2.14 are C++20 (std::strong_ordering
    in c10/util/intrusive_ptr.h; both read on 2026-11-25).
    """
    text = setup.read_text(encoding="utf-8")

    def raised(match: re.Match[str]) -> str:
        return f"-std=c++{max(int(match[1]), standard)}"

    setup.write_text(re.sub(r"-std=c\+\+(\d+)", raised, text), encoding="utf-8")


def make_cuda_home(home: Path) -> Path:
    """Gather compiler, headers and libraries into one folder as a toolkit installer would.

    The compiler is copied, for nvcc looks for the rest beside its own file. The headers and
    libraries come from the wheels that torch itself runs with.
    """
    toolkits = [*toolkit_of_the_archive(), *wheel_folders()]
    nvcc = next((folder for folder in toolkits if (folder / "bin" / "nvcc").is_file()), None)
    if nvcc is None:
        fail(f"nvcc is missing: not in {', '.join(str(folder) for folder in toolkits)}")
    for name in ("bin", "nvvm"):
        shutil.copytree(nvcc / name, home / name, symlinks=True)
    for folder in toolkits:
        link_tree(folder / "include", home / "include")
        link_tree(folder / "lib", home / "lib64")
    for library in sorted((home / "lib64").glob("lib*.so.*")):
        # What the linker looks for: -lcudart is libcudart.so, which only a development package has.
        plain = library.with_name(library.name.partition(".so")[0] + ".so")
        if not plain.exists():
            plain.symlink_to(library.name)
    if not (home / "include" / "cuda_runtime.h").is_file():
        fail("cuda_runtime.h is missing among the packages of the lock")
    return home


def toolkit_of_the_archive() -> Iterator[Path]:
    """NVIDIA's archive of the compiler, where the lock has one."""
    for archive in sorted(SOURCES.glob("cuda_nvcc-*.tar.xz")):
        yield unpack(archive, WORK / "nvcc")


def wheel_folders() -> list[Path]:
    """The folders of NVIDIA's wheels: one per package for CUDA 12, one for all since CUDA 13."""
    root = Path(sysconfig.get_path("purelib")) / "nvidia"
    return sorted(path for path in root.glob("*") if path.is_dir())


def link_tree(source: Path, target: Path) -> None:
    """Link every file below `source` into `target`; what is there already stays."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)


def environment(cuda: Path) -> dict[str, str]:
    """What setup.py reads; it never looks for a ready wheel and never skips the CUDA code."""
    return {
        **os.environ,
        "CUDA_HOME": str(cuda),
        "PATH": f"{cuda / 'bin'}:{os.environ['PATH']}",
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
        "FLASH_ATTENTION_SKIP_CUDA_BUILD": "FALSE",
        "FLASH_ATTENTION_FORCE_CXX11_ABI": os.environ["CXX11_ABI"],
        "FLASH_ATTN_CUDA_ARCHS": os.environ["ARCHITECTURES"],
        "FLASH_ATTN_LOCAL_VERSION": os.environ["FLASH_LOCAL_VERSION"],
        "MAX_JOBS": os.environ["MAX_JOBS"],
        "NVCC_THREADS": os.environ["NVCC_THREADS"],
        "TMPDIR": str(WORK),
    }


def build(source: Path, cuda: Path) -> None:
    """Run setup.py through its build backend; show all of it, and say when memory ran out."""
    argv = [UV, "build", "--wheel", "--no-build-isolation", "--offline", "--no-config"]
    argv += ["--no-cache", "--python", sys.executable, "--out-dir", str(RESULT), str(source)]
    RESULT.mkdir(parents=True, exist_ok=True)
    starved = False
    with subprocess.Popen(
        argv,
        env=environment(cuda),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            starved = starved or MEMORY_SIGNS.search(line) is not None
    if process.returncode == 0:
        return
    if starved or process.returncode in (-9, 137):
        fail(f"out of memory with MAX_JOBS={os.environ['MAX_JOBS']}")
    fail(f"the compilation failed (exit status {process.returncode}); why stands above")


def sms_in(wheel: Path) -> set[int]:
    """Return the architectures of the machine code in the extension module of `wheel`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.match(r"flash_attn_2_cuda.*\.so$", name)]
        if len(names) != 1:
            fail(f"the wheel has {names or 'no'} flash_attn_2_cuda*.so instead of one")
        return set(sms_of(archive.read(names[0])))


def sms_of(data: bytes) -> Iterator[int]:
    """Yield the architecture of every piece of machine code in an ELF file made by nvcc.

    A fatbin is a header of 16 bytes (magic, version, its own size, size of the rest) and entries,
    each with a header: kind, flags, its own size, size of the rest, and at 28 the architecture.
    Checked against the output of nvcc 13.0.88 on 2026-11-25.
    """
    magic = struct.pack("<I", FATBIN_MAGIC)
    at = data.find(magic)
    while 0 <= at <= len(data) - 16:
        header, size = struct.unpack_from("<HQ", data, at + 6)
        entry, end = at + header, at + header + size
        while entry + 32 <= min(end, len(data)):
            kind, _, head, length = struct.unpack_from("<HHIQ", data, entry)
            if kind == CUBIN:
                yield struct.unpack_from("<I", data, entry + 28)[0]
            if head + length == 0:
                break
            entry += head + length
        at = data.find(magic, at + 4)


def first_line(argv: list[str]) -> str:
    """Return the first line that a program prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def last_line(argv: list[str]) -> str:
    """Return the last line that a program prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\n")[-2]


if __name__ == "__main__":
    main()
