"""Where this machine gets packages from: read once from what it already says, written for a build.

What matrix.yaml's `sources:` (or a YOLO_SOURCES_ variable) names comes first. Else package indexes
come from uv's variables, uv's files, or pip's configuration; proxies and the CA bundle from the
environment, else from pip; Debian mirrors from apt. URLs may hold passwords: they are written to
build secrets and environments, and never shown.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from builder.apt import (
    AptSource,
    System,
    for_suite,
    named_mirror,
    parse_system,
    read_apt_sources,
    redact,
    render_sources,
)
from builder.errors import Finding, InvalidInput
from builder.matrix_model import SourcesModel
from builder.mirrors import Mirrors
from builder.source_settings import overlay
from builder.uvconfig import read_uv_config
from builder.wheelhouse import collect_wheels

__all__ = [
    "Proxies",
    "Sources",
    "load_sources",
    "parse_apt_config",
    "parse_pip_config",
    "with_settings",
]

_TRUE = {"1", "true", "yes", "on", "y", "t"}
_SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_APT_SETTING = re.compile(
    r'(Acquire::(?:https?::|Check-|Retries|Force|Allow)[^ ]*) "(.*)";', flags=re.MULTILINE
)
_UNKNOWN = System(id="", version="", codename="")
# Their values are files of this machine, which a build can't see.
_APT_FILES = re.compile(
    r"::(CaInfo|CaPath|SslCert|SslKey|CrlFile|Proxy-Auto-Detect)$", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Proxies:
    """Proxy URLs, and the hosts that are reached without one; None where there is none."""

    http: str | None = None
    https: str | None = None
    no: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return redact(f"Proxies(http={self.http}, https={self.https}, no={','.join(self.no)})")


@dataclass(frozen=True, kw_only=True, repr=False)
class Sources:
    """Indexes, local wheels, proxies, CA bundle and Debian mirrors of this machine.

    `default_index` is None for the package index that pip and uv use by themselves. `apt_settings`
    are apt's own network settings (proxy, retries, checks of dates) as apt.conf text. `debian` is
    the mirror that matrix.yaml names, and the one of its security suite; it wins over `apt`.
    """

    default_index: str | None = None
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    insecure_hosts: tuple[str, ...] = ()
    proxies: Proxies = Proxies()
    ca_bundle: Path | None = None
    system: System = _UNKNOWN
    apt: tuple[AptSource, ...] = ()
    apt_settings: str = ""
    debian: tuple[str, str | None] | None = None
    mirrors: Mirrors = field(default_factory=Mirrors)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in self.__dataclass_fields__)
        return redact(f"Sources({shown})")

    def apt_for(self, suite: str) -> tuple[AptSource, ...]:
        """Debian sources for `suite`; none when no mirror is named and this is not Debian."""
        if self.debian is not None:
            return named_mirror(suite, *self.debian)
        return for_suite(self.apt, self.system.codename, suite) if self._is_debian else ()

    @property
    def _is_debian(self) -> bool:
        return self.system.id == "debian"

    def uv_environment(self) -> dict[str, str]:
        """Environment for uv on this machine (`uv pip compile`).

        Local indexes beside a default one are left out: a lock must not hang on files that only one
        machine has. Installs get them through the wheelhouse, by hash.
        """
        default = self.default_index
        pairs = {
            "UV_DEFAULT_INDEX": default,
            "UV_INDEX": " ".join(filter(_is_remote, self.extra_indexes)),
            "UV_FIND_LINKS": ",".join(self.find_links) if self.no_index else None,
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_INSECURE_HOST": " ".join(self.insecure_hosts),
            "HTTP_PROXY": self.proxies.http,
            "HTTPS_PROXY": self.proxies.https,
            "NO_PROXY": ",".join(self.proxies.no),
            "SSL_CERT_FILE": str(self.ca_bundle) if self.ca_bundle else None,
        }
        return {name: value for name, value in pairs.items() if value}

    def uv_options(self) -> list[str]:
        """Options for uv on this machine that no variable of its environment can say."""
        return ["--no-index"] if self.no_index else []

    def uv_toml(self) -> str:
        """Configuration for uv inside a build: what it can reach from there, and how."""
        default = self.default_index
        offline = self.no_index or (default is not None and not _is_remote(default))
        settings: dict[str, object] = {
            "no-index": offline,
            "index-strategy": "unsafe-best-match",
            "http-proxy": self.proxies.http,
            "https-proxy": self.proxies.https,
            "no-proxy": self.proxies.no,
            "allow-insecure-host": self.insecure_hosts,
        }
        text = "".join(
            f"{name} = {json.dumps(value)}\n" for name, value in settings.items() if value
        )
        indexes = [f"\n[[index]]\nurl = {json.dumps(url)}\n" for url in self._build_indexes()]
        if default is not None and not offline:
            indexes.append(f"\n[[index]]\nurl = {json.dumps(default)}\ndefault = true\n")
        return text + "".join(indexes)

    def remote_indexes(self) -> tuple[str, ...]:
        """The package indexes that are named, and reached by HTTP; none where none may be used."""
        named = (self.default_index, *self.extra_indexes)
        return () if self.no_index else tuple(url for url in named if url and _is_remote(url))

    def _build_indexes(self) -> Iterable[str]:
        return () if self.no_index else filter(_is_remote, self.extra_indexes)

    def collect_wheels(self, lock_text: str, folder: Path) -> tuple[Path, ...]:
        """Fill `folder` with exactly the locked files that lie on this machine; return them."""
        indexes = tuple(url for url in (self.default_index, *self.extra_indexes) if url)
        return collect_wheels(lock_text, folder, self.find_links, indexes)

    def apt_conf(self) -> str:
        """apt's own network settings, and our proxies for what it says nothing about."""
        text = self.apt_settings
        for scheme, proxy in (("http", self.proxies.http), ("https", self.proxies.https)):
            if proxy is None or f"Acquire::{scheme}::Proxy" in self.apt_settings:
                continue
            url = proxy if "://" in proxy else f"http://{proxy}"
            text += f'Acquire::{scheme}::Proxy "{url}";\n'
            hosts = (host.lstrip(".") for host in self.proxies.no if host != "*")
            text += "".join(f'Acquire::{scheme}::Proxy::{host} "DIRECT";\n' for host in hosts)
        return text

    def write_secrets(self, folder: Path, suites: Iterable[str]) -> None:
        """Write the build secrets uv, ca, apt-conf and apt-sources, readable by us alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        apt = [entry for suite in sorted(set(suites)) for entry in self.apt_for(suite)]
        texts = {
            "uv": self.uv_toml(),
            "apt-conf": self.apt_conf(),
            "apt-sources": render_sources(apt),
        }
        for name, text in texts.items():
            _private(folder / name).write_text(text, encoding="utf-8")
        target = _private(folder / "ca")
        if self.ca_bundle is not None:
            shutil.copyfile(self.ca_bundle, target)


def _private(path: Path) -> Path:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    return path


def _is_remote(url: str) -> bool:
    return urlsplit(url).scheme in {"http", "https"}


def load_sources(environment: Mapping[str, str], written: SourcesModel | None = None) -> Sources:
    """Combine what matrix.yaml has `written` under `sources:` with this machine's configuration.

    That is `environment`, pip's settings and apt's. InvalidInput when a variable makes no sense.
    """
    settings = overlay(written or SourcesModel(), environment)
    pip = parse_pip_config(_output(sys.executable, "-m", "pip", "config", "list"))
    pip.update(read_uv_config(environment))
    release = Path("/etc/os-release")
    machine = make_sources(
        environment,
        pip,
        system=parse_system(release.read_text() if release.is_file() else ""),
        apt=read_apt_sources(),
        apt_settings=parse_apt_config(_output("apt-config", "dump")),
    )
    return with_settings(machine, settings)


def with_settings(machine: Sources, settings: SourcesModel) -> Sources:
    """Return the machine's sources with what `settings` name in their place."""
    if settings.ca is not None and not Path(settings.ca).is_file():
        raise InvalidInput(
            Finding(
                place="sources.ca",
                what=f"{settings.ca}: no such file",
                todo="Name a file of CA certificates in PEM format.",
            )
        )
    house = settings.wheelhouse
    if house is not None and not Path(house).is_dir():
        raise InvalidInput(
            Finding(
                place="sources.wheelhouse",
                what=f"{house}: no such folder",
                todo="Name a folder of wheels.",
            )
        )
    proxies = settings.proxies
    return replace(
        machine,
        default_index=settings.index or machine.default_index,
        extra_indexes=tuple(settings.extra_indexes) or machine.extra_indexes,
        find_links=(*((house,) if house else ()), *machine.find_links),
        proxies=Proxies(
            http=proxies.http or machine.proxies.http,
            https=proxies.https or machine.proxies.https,
            no=tuple(proxies.no) or machine.proxies.no,
        ),
        ca_bundle=Path(settings.ca) if settings.ca else machine.ca_bundle,
        debian=(settings.apt, settings.apt_security) if settings.apt else None,
        mirrors=Mirrors(
            pytorch=tuple(settings.pytorch),
            nvidia=tuple(settings.nvidia),
            github=tuple(settings.github),
            weights=tuple(settings.weights),
            wheels=tuple(settings.wheels),
        ),
    )


def make_sources(
    environment: Mapping[str, str],
    pip: Mapping[str, str],
    *,
    system: System,
    apt: tuple[AptSource, ...] = (),
    apt_settings: str = "",
) -> Sources:
    """Combine what the environment and pip say; uv's own variables win over pip's settings."""

    def first(*names: str) -> str:
        return next((environment[name] for name in names if environment.get(name)), "")

    default = first("UV_DEFAULT_INDEX", "UV_INDEX_URL") or pip.get("index-url", "")
    extra = first("UV_INDEX", "UV_EXTRA_INDEX_URL") or pip.get("extra-index-url", "")
    # pip's proxy is one for all; the environment's are by scheme and may be in lower case.
    proxy = pip.get("proxy", "")
    return Sources(
        default_index=_without_name(default) or None,
        extra_indexes=tuple(_without_name(word) for word in extra.split()),
        find_links=tuple(
            (first("UV_FIND_LINKS").replace(",", " ") or pip.get("find-links", "")).split()
        ),
        no_index=(first("UV_NO_INDEX") or pip.get("no-index", "")).lower() in _TRUE,
        insecure_hosts=tuple(
            (first("UV_INSECURE_HOST").replace(",", " ") or pip.get("trusted-host", "")).split()
        ),
        proxies=Proxies(
            http=first("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") or proxy or None,
            https=first("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY") or proxy or None,
            no=tuple(first("no_proxy", "NO_PROXY").replace(",", " ").split()),
        ),
        ca_bundle=_ca_bundle(environment, pip),
        system=system,
        apt=apt,
        apt_settings=apt_settings,
    )


def _without_name(index: str) -> str:
    """Drop the name that uv allows before an index: `name=https://...`."""
    return re.sub(r"^[A-Za-z0-9_-]+=(?=\w+://)", "", index.strip())


def _ca_bundle(environment: Mapping[str, str], pip: Mapping[str, str]) -> Path | None:
    named = [environment.get(name, "") for name in _CA_VARIABLES] + [pip.get("cert", "")]
    for path in (*(Path(name) for name in named if name), _SYSTEM_CA):
        if path.is_file():
            return path
    return None


def parse_pip_config(text: str) -> dict[str, str]:
    """Parse `pip config list`: [global], then [install], then PIP_* variables win."""
    settings: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in text.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=('.*'|\".*\")", line.strip())
        if match:
            settings[match[1]][match[2]] = str(ast.literal_eval(match[3]))
    return {name: value for section in settings.values() for name, value in section.items()}


def parse_apt_config(text: str) -> str:
    """Return the network settings of `apt-config dump` that are worth having in a build."""
    found = [(match[1], match[2]) for match in _APT_SETTING.finditer(text)]
    return "".join(
        f'{name} "{value}";\n' for name, value in found if value and not _APT_FILES.search(name)
    )


def _output(*argv: str) -> str:
    """Return what a tool prints; nothing when this machine lacks it."""
    if shutil.which(argv[0]) is None:
        return ""
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60).stdout
