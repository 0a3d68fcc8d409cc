"""Debian package sources as text: read both formats that apt has, write one of them.

Only `deb` entries matter here; `deb-src` and disabled ones are dropped. Field names are those of
the deb822 format, for it is what we write: an embedded signing key has no one-line form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = [
    "AptSource",
    "System",
    "for_suite",
    "named_mirror",
    "parse_list",
    "parse_sources",
    "parse_system",
    "read_apt_sources",
    "redact",
    "render_sources",
]

# sources.list(5): options of the one-line format and the deb822 fields they stand for.
_FIELDS = {
    "arch": "Architectures",
    "lang": "Languages",
    "target": "Targets",
    "pdiffs": "PDiffs",
    "by-hash": "By-Hash",
    "allow-insecure": "Allow-Insecure",
    "allow-weak": "Allow-Weak",
    "allow-downgrade-to-insecure": "Allow-Downgrade-To-Insecure",
    "trusted": "Trusted",
    "signed-by": "Signed-By",
    "check-valid-until": "Check-Valid-Until",
    "valid-until-min": "Valid-Until-Min",
    "valid-until-max": "Valid-Until-Max",
    "check-date": "Check-Date",
    "date-max-future": "Date-Max-Future",
    "inrelease-path": "InRelease-Path",
    "snapshot": "Snapshot",
}
_CANONICAL = {name.lower(): name for name in _FIELDS.values()}
_KNOWN = {"types", "uris", "suites", "components", "enabled"}
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)")
# Greedy: a password may hold an at sign, though it should not.
_USERINFO = re.compile(r"(\w://)[^/\s'\"]+@")


def redact(text: str) -> str:
    """Return `text` with user names and passwords of URLs replaced."""
    return _USERINFO.sub(r"\1***@", text)


@dataclass(frozen=True, kw_only=True, repr=False)
class AptSource:
    """One `deb` entry. `fields` are the other deb822 fields, such as Signed-By."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    fields: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        text = f"AptSource({' '.join(self.uris)} {' '.join(self.suites)})"
        return redact(text)


@dataclass(frozen=True, kw_only=True)
class System:
    """What /etc/os-release says: `debian`, `12`, `bookworm`."""

    id: str
    version: str
    codename: str


def parse_system(text: str) -> System:
    """Parse os-release(5); values that are missing are empty."""
    values = dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", text, flags=re.MULTILINE))
    return System(
        id=values.get("ID", ""),
        version=values.get("VERSION_ID", ""),
        codename=values.get("VERSION_CODENAME", ""),
    )


def parse_list(text: str) -> tuple[AptSource, ...]:
    """Parse the one-line format; lines that aren't binary sources are ignored."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        suite, *components = match["rest"].split()
        options = (word.partition("=") for word in (match["options"] or "").split())
        fields = tuple(
            (_FIELDS[name.lower()], " ".join(value.split(",")))
            for name, _, value in options
            if name.lower() in _FIELDS
        )
        found.append(
            AptSource(
                uris=(match["uri"],),
                suites=(suite,),
                components=tuple(components),
                fields=fields,
            )
        )
    return tuple(found)


def parse_sources(text: str) -> tuple[AptSource, ...]:
    """Parse the deb822 format, embedded keys included; disabled stanzas are dropped."""
    found = []
    for stanza in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text):
        values = dict(_stanza(stanza))
        if "deb" not in values.get("types", "").split():
            continue
        if values.get("enabled", "yes").lower() in {"no", "false", "0", "off", "without"}:
            continue
        found.append(
            AptSource(
                uris=tuple(values.get("uris", "").split()),
                suites=tuple(values.get("suites", "").split()),
                components=tuple(values.get("components", "").split()),
                fields=tuple(
                    (_CANONICAL[name], value)
                    for name, value in values.items()
                    if name in _CANONICAL
                ),
            )
        )
    return tuple(found)


def _stanza(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for field in re.split(r"\n(?=\S)", "\n".join(lines)):
        name, colon, value = field.partition(":")
        if colon and name.strip().lower() in _KNOWN | set(_CANONICAL):
            yield name.strip().lower(), value.strip()


def read_apt_sources(folder: Path = Path("/etc/apt")) -> tuple[AptSource, ...]:
    """Read sources.list and sources.list.d as apt does: by name, `.list` and `.sources` only."""
    found: list[AptSource] = []
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if path.suffix not in {".list", ".sources"} or not path.is_file():
            continue
        parse = parse_list if path.suffix == ".list" else parse_sources
        found.extend(parse(path.read_text(encoding="utf-8", errors="replace")))
    return tuple(found)


def render_sources(sources: Iterable[AptSource]) -> str:
    """Write entries in the deb822 format; the first line is always a Types field."""
    return "\n".join(_render(source) for source in sources)


def _render(source: AptSource) -> str:
    fields = [
        ("Types", "deb"),
        ("URIs", " ".join(source.uris)),
        ("Suites", " ".join(source.suites)),
        *([("Components", " ".join(source.components))] if source.components else []),
        *source.fields,
    ]
    # A value that begins on its own line (an embedded key) keeps its continuation lines.
    return "".join(
        f"{name}:{'' if value.startswith('-----') else ' '}"
        + (f"\n {value}" if value.startswith("-----") else value)
        + "\n"
        for name, value in fields
    )


def for_suite(sources: Iterable[AptSource], codename: str, suite: str) -> tuple[AptSource, ...]:
    """Derive the sources of Debian's `suite` from those of a Debian machine called `codename`.

    Takes the entries of the machine's own release, its updates and its security suite; everything
    else (other vendors, backports, other releases) stays out, and so do components beside main.
    """
    wanted = {codename: suite} | {
        f"{codename}{tail}": f"{suite}{tail}" for tail in ("-updates", "-security", "/updates")
    }
    found = []
    for source in sources:
        suites = tuple(wanted[name] for name in source.suites if name in wanted)
        if suites and "main" in source.components:
            found.append(replace(source, suites=suites, components=("main",)))
    return tuple(dict.fromkeys(found))


def named_mirror(suite: str, url: str, security: str | None) -> tuple[AptSource, ...]:
    """Debian's `suite` and its updates from the mirror at `url`, its security fixes from theirs."""
    main = AptSource(uris=(url,), suites=(suite, f"{suite}-updates"), components=("main",))
    if security is None:
        return (main,)
    fixes = AptSource(uris=(security,), suites=(f"{suite}-security",), components=("main",))
    return (main, fixes)
