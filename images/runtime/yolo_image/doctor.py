"""doctor: what is wrong with this container, and what to do about it.

Looking (effects, here) and judging (pure, in verdicts.py) are apart: every judgement has a test.
"""

from __future__ import annotations

import argparse
import ctypes.util
import os
import shutil
import sysconfig
from pathlib import Path

from yolo_image import device, info, verdicts
from yolo_image.console import FAILED, OK, TMP, data_stream, write_error, write_json
from yolo_image.manifest import HOME, Manifest, load, sha256_of
from yolo_image.verdicts import Check, Verdict

__all__ = ["examine", "run"]


def run(argv: list[str]) -> int:
    """Run the command; exit code 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="doctor", description="Check this container.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args(argv)
    with data_stream() as stream:
        checks = examine(load())
        if options.json:
            write_json(stream, {"checks": [check.as_json() for check in checks]})
        else:
            stream.write("\n".join(check.line() for check in checks) + "\n")
    return FAILED if any(check.verdict is Verdict.FAIL for check in checks) else OK


def examine(manifest: Manifest) -> list[Check]:
    """Return every check, in the order in which a person would ask."""
    temporary = verdicts.temporary(TMP, write_error(TMP), free=free_in(TMP))
    if temporary.verdict is Verdict.FAIL:
        return [temporary]  # torch can't even be imported then, and the rest hangs on it
    return [
        temporary,
        verdicts.device(device.diagnose(), cuda=manifest.cuda),
        verdicts.libraries(cudnn_folders(), os.environ.get("LD_LIBRARY_PATH", "")),
        *(
            verdicts.weight(weight, sha256_of(HOME / weight.file), HOME)
            for weight in manifest.weights
        ),
        verdicts.missing(manifest.missing),
        verdicts.shared_memory(size_of(Path("/dev/shm"))),  # noqa: S108 - the mount itself is meant
        verdicts.environment(info.environment(dict(os.environ))),
    ]


def size_of(folder: Path) -> int | None:
    """Return the size of the file system at `folder` in bytes, None when there is none."""
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return None


def free_in(folder: Path) -> int:
    """Return how many bytes can still be written below `folder`."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def cudnn_folders() -> set[Path]:
    """Return the folders from which a cuDNN could be loaded: the wheels', the system's, by path."""
    packages = Path(sysconfig.get_path("purelib"))
    files = {*packages.glob("nvidia/*/lib/libcudnn.so*"), *packages.glob("torch/lib/libcudnn.so*")}
    for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        files |= set(Path(entry).glob("libcudnn.so*")) if entry else set()
    if name := ctypes.util.find_library("cudnn"):
        files.add(Path("/system", name))  # the loader's cache gives a name, not a place
    return {file.resolve().parent for file in files}
