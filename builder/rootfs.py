"""The Debian base without a registry: a root file system made by mmdebstrap from Debian's packages.

Same packages, same bytes: mmdebstrap sorts the tar and clamps times to SOURCE_DATE_EPOCH, and what
differs from machine to machine (mirror, resolver, host name, logs, caches) is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from builder.apt import redact, render_sources
from builder.errors import BuildFailed, Finding, SourceUnreachable, ToolkitError
from builder.host_packages import install
from builder.records import write_atomic
from builder.sources import Sources
from builder.talk import Talk

__all__ = ["bootstrap", "mmdebstrap_argv", "recipe_key"]

_PACKAGES = ("ca-certificates", "python3", "tini")
_EXTRA = {
    # Satisfies init-system-helpers in the place of usrmerge, which brings 47 MB of Perl
    # (its Depends: usrmerge | usr-is-merged; measured 2026-11-24: 175 -> 126 MB).
    "bookworm": ("usr-is-merged",),
}
_HOOKS = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
# Stays in the image, as in Debian's own slim images: packages added later leave these out too.
_DPKG = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
)
# Run by mmdebstrap with the new root as $1.
_CLEAN = (
    'rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*',
    'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
    # debconf keeps a database under /var/cache that later installations need.
    'find "$1"/var/log "$1"/var/cache -type f ! -path "*/debconf/*.dat" -delete',
    'find "$1"/var/lib/apt/lists "$1"/tmp "$1"/run -mindepth 1 -delete',
    'rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/machine-id',
    'rm -f "$1"/var/lib/dpkg/*-old "$1"/var/lib/systemd/random-seed',
)
_OFFLINE = re.compile(r"Could not resolve|Failed to fetch|Could not connect|Unable to connect")
_LIST = "chroot \"$1\" dpkg-query -W -f '${Package}=${Version}\\n' > %s"


def bootstrap(
    suite: str,
    cache: Path,
    sources: Sources,
    epoch: int,
    talk: Talk,
    *,
    refresh: bool = False,
) -> Path:
    """Return `cache`/`suite`/rootfs.tar, making it unless this recipe made it before.

    The packages are those that the mirror serves now: `refresh` takes newer ones. packages.txt
    beside it lists them as name=version.
    """
    folder = cache / suite
    folder.mkdir(parents=True, exist_ok=True)
    tar, key = folder / "rootfs.tar", folder / "recipe.sha256"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = recipe_key(suite, epoch)
        made = key.read_text().strip() if key.is_file() and tar.is_file() else ""
        if made == wanted and not refresh:
            return tar
        install(_tools(), sources.system, talk)
        key.unlink(missing_ok=True)
        _make(suite, folder, sources, epoch, talk)
        write_atomic(key, f"{wanted}\n")
    return tar


def _tools() -> tuple[str, ...]:
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    tools = () if shutil.which("mmdebstrap") else ("mmdebstrap",)
    return tools if keyring.exists() else (*tools, "debian-archive-keyring")


def _make(suite: str, folder: Path, sources: Sources, epoch: int, talk: Talk) -> None:
    # Beside the result, so that the rename stays on one file system.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{suite}.") as name:
        work = Path(name)
        with talk.working(f"base {suite}: bootstrapping from Debian packages") as news:
            _run(suite, work, sources, epoch, news)
        for file in ("packages.txt", "rootfs.tar"):
            (work / file).replace(folder / file)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the process, but not longer than `seconds`."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def mmdebstrap_argv(suite: str, work: Path, sources: Sources) -> list[str]:
    """Return the command that makes `work`/rootfs.tar; Debian sources come on its stdin."""
    apt = sources.apt_for(suite)
    hooks = (_LIST % _quote(work / "packages.txt"), *_CLEAN)
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join((*_PACKAGES, *_EXTRA.get(suite, ())))}",
        *([f"--hook-dir={_HOOKS}"] if suite in _EXTRA else []),
        *(f"--dpkgopt={option}" for option in _DPKG),
        '--aptopt=APT::Install-Recommends "false"',
        # By file: a proxy's password must not stand in the list of processes.
        f"--aptopt={work / 'apt.conf'}",
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
        str(work / "rootfs.tar"),
        *(["-"] if apt else []),
    ]


def _apt_conf(sources: Sources) -> str:
    """Proxies, retries, and the CA bundle: apt runs on this machine, outside the new root."""
    bundle = sources.ca_bundle
    ca = f'Acquire::https::CAInfo "{bundle}";\n' if bundle is not None else ""
    return sources.apt_conf() + ca


def _private(path: Path) -> Path:
    path.touch(mode=0o600)
    return path


def _quote(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


def recipe_key(suite: str, epoch: int) -> str:
    """Return a hash of everything that decides what is made, the mirror's state aside."""
    recipe = (suite, epoch, _PACKAGES, _EXTRA.get(suite, ()), _DPKG, _CLEAN, platform.machine())
    return hashlib.sha256(repr(recipe).encode()).hexdigest()


def _run(suite: str, work: Path, sources: Sources, epoch: int, news: Callable[[str], None]) -> None:
    _private(work / "apt.conf").write_text(_apt_conf(sources), encoding="utf-8")
    described = _private(work / "sources")
    described.write_text(render_sources(sources.apt_for(suite)))
    log = work / "log"
    with described.open() as stdin, log.open("w+", encoding="utf-8", errors="replace") as out:
        process = subprocess.Popen(
            mmdebstrap_argv(suite, work, sources),
            stdin=stdin,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"},
        )
        start = time.monotonic()
        try:
            while not _ended(process, seconds=0.5):
                news(f"{time.monotonic() - start:.0f} s")
        finally:
            if process.poll() is None:
                # mmdebstrap unmounts and removes its work on SIGTERM.
                process.terminate()
                process.wait()
    if process.returncode != 0:
        raise _failure(suite, log.read_text(encoding="utf-8", errors="replace"))


def _failure(suite: str, log: str) -> ToolkitError:
    offline = _OFFLINE.search(log) is not None
    finding = Finding(
        place=f"base {suite}",
        what="the Debian mirror does not answer" if offline else "mmdebstrap failed",
        why="\n    ".join(redact(log).strip().splitlines()[-12:]),
        todo="Check the network, proxies and /etc/apt/sources.list*." if offline else "",
    )
    return SourceUnreachable(finding) if offline else BuildFailed(finding)
