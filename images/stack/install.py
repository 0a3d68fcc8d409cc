"""One build step: install one requirement list into the virtual environment, reproducibly.

Runs inside the build with the image's own Python and nothing else; it is mounted, never copied in.

    install.py LIST...    install what the lists hold (an empty list installs nothing), then tidy
    install.py            only tidy: for steps that put files into place themselves

Tidying makes a step give the same bytes wherever it runs, so that rows share layers by content:
the installer's own notes go, byte code is made in one fixed order, and no time is later than
SOURCE_DATE_EPOCH. Whatever is newer than that was written by this very step, because the steps
before have been clamped: that is how a step knows what it touched.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/opt")
"""Everything that steps write lies below it: the virtual environment and the image's own folder."""

UV = "/run/uv"
WHEELHOUSE = Path("/run/wheelhouse")
SECRETS = Path("/run/secrets")

NOTES = ("uv_cache.json", "uv_build.json", "direct_url.json")
"""When and how uv made a package, and from where it came (the URL of a mirror, perhaps): these
differ between two builds of the same lock."""


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
    if WHEELHOUSE.is_dir():
        argv += ["--find-links", str(WHEELHOUSE)]
    return [*argv, "--requirements", str(requirements)]


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
    compile_sources(sorted(path for path in root.rglob("*.py") if is_new(path, epoch)))
    clamp(root, epoch)


def is_new(path: Path, epoch: int) -> bool:
    """Say whether this step wrote the file (not a link to one)."""
    return path.lstat().st_mtime > epoch and path.is_file()


def remove_notes(record: Path) -> None:
    """Remove the installer's notes from a dist-info folder, and their lines from its RECORD."""
    for note in NOTES:
        (record.parent / note).unlink(missing_ok=True)
    names = tuple(f"{record.parent.name}/{note}," for note in NOTES)
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(names)]
    if kept != lines:
        record.write_text("".join(kept), encoding="utf-8")


def compile_sources(sources: list[Path]) -> None:
    """Write byte code that is trusted without looking at the source's time.

    Containers run read-only and as any user, so what isn't compiled here is compiled at every
    start. Measured (2 cores, torch 2.8.0+cu128, ultralytics 8.4.190): import and model in 1.5 s
    instead of 2.4 s; costs 190 MB of 7.4 GB on disk, and 11 s of build time in all.
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
