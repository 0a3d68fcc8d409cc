"""Install Debian and Ubuntu packages on this machine, without changing what is installed already.

Every installation is simulated first. When apt would upgrade or remove a single package that is
there, nothing is done and the message says so: a build tool has no business changing a machine's C
library.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.apt import System, for_suite, read_apt_sources, redact, render_sources
from builder.errors import EngineUnavailable, Finding
from builder.records import write_atomic
from builder.talk import Talk

__all__ = [
    "SUPPORTED",
    "Changes",
    "add_pinned_suite",
    "install",
    "parse_simulation",
    "pinned_files",
    "require_supported",
]

SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
_APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends")
# Below the 100 of what is installed: apt takes it only where a package is asked for by name/suite
# (apt_preferences(5)).
_PIN = "Package: *\nPin: release n={suite}\nPin-Priority: 50\n"
_SIMULATED = re.compile(r"^(Inst|Remv) (\S+)(?: \[([^\]]+)\])?(?: \((\S+))?", flags=re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What apt would do: new packages, and installed ones it would replace or remove."""

    new: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def harmless(self) -> bool:
        """Whether everything that is installed stays as it is."""
        return not self.replaced and not self.removed


def parse_simulation(text: str) -> Changes:
    """Parse what `apt-get --simulate` prints."""
    new, replaced, removed = [], [], []
    for action, name, old, version in _SIMULATED.findall(text):
        if action == "Remv":
            removed.append(name)
        elif old:
            replaced.append(f"{name} {old} -> {version}")
        else:
            new.append(f"{name} {version}")
    return Changes(new=tuple(new), replaced=tuple(replaced), removed=tuple(removed))


def pinned_files(suite: str, apt: Path = Path("/etc/apt")) -> tuple[Path, Path]:
    """Return where the source and the pin of `suite` are written."""
    name = f"yolo-images-{suite}"
    return apt / "sources.list.d" / f"{name}.sources", apt / "preferences.d" / name


def add_pinned_suite(suite: str, system: System, apt: Path = Path("/etc/apt")) -> None:
    """Add `suite` from the mirror that this Debian machine uses itself."""
    own = [
        entry
        for entry in for_suite(read_apt_sources(apt), system.codename, suite)
        if suite in entry.suites
    ]
    if not own:
        raise EngineUnavailable(
            Finding(
                place=str(apt),
                what=f"no source for Debian's own archive ({system.codename} main) found",
                why=f"The engine's packages are taken from the same mirror's {suite}.",
                todo="Add the archive to apt's sources, or install Docker 25 or newer yourself.",
            )
        )
    sources_file, preferences_file = pinned_files(suite, apt)
    # The pin first: at no moment may apt see the newer release without it.
    write_atomic(preferences_file, _PIN.format(suite=suite))
    write_atomic(sources_file, render_sources([replace(own[0], suites=(suite,))]))


def install(packages: Sequence[str], system: System, talk: Talk) -> None:
    """Install `packages` (`name` or `name/suite`); EngineUnavailable says why it can't be done."""
    if not packages:
        return
    command = shlex.join(["apt-get", "install", "--no-install-recommends", *packages])
    require_supported(system, f"{' '.join(packages)} is missing", f"As root: {command}")
    _run(["apt-get", "-q", "update"], talk, "reading package lists")
    simulated = _apt(["apt-get", "--simulate", *_APT[1:], "install", *packages])
    if simulated.returncode != 0:
        raise _failed(command, simulated.stdout + simulated.stderr)
    changes = parse_simulation(simulated.stdout)
    if not changes.harmless:
        raise EngineUnavailable(
            Finding(
                place="apt",
                what=f"installing {' '.join(packages)} would change installed packages",
                why=", ".join(
                    [*changes.replaced, *(f"{name} removed" for name in changes.removed)]
                ),
                todo=f"Nothing was done. If that is fine with you, as root: {command}",
            )
        )
    _run([*_APT, "install", *packages], talk, f"installing {len(changes.new)} packages")


def require_supported(system: System, missing: str, todo: str) -> None:
    """Raise EngineUnavailable unless we are root on a system whose packages we know."""
    if system.version not in SUPPORTED.get(system.id, ()):
        name = f"{system.id} {system.version}".strip() or "this system"
        raise EngineUnavailable(
            Finding(
                place="",
                what=missing,
                why=f"On {name} it can't be set up automatically, only on Debian 12 and 13 and"
                " Ubuntu 22.04 and 24.04.",
                todo=todo,
            )
        )
    if os.geteuid() != 0:
        raise EngineUnavailable(
            Finding(place="", what=missing, why="Only root can install packages.", todo=todo)
        )


def _apt(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run apt to its end, also when we are interrupted: killed in between it leaves dpkg broken."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C does not reach it
    ) as process:
        try:
            out, err = process.communicate()
        except KeyboardInterrupt:
            process.communicate()
            raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _run(argv: Sequence[str], talk: Talk, doing: str) -> None:
    with talk.working(doing):
        done = _apt(argv)
    if done.returncode != 0:
        raise _failed(shlex.join(argv), done.stdout + done.stderr)


def _failed(command: str, output: str) -> EngineUnavailable:
    tail = redact(output).strip().splitlines()[-8:]
    return EngineUnavailable(
        Finding(
            place="apt",
            what=f"`{command}` failed",
            why="\n    ".join(tail),
            todo="Check apt's sources, the network and proxies.",
        )
    )
