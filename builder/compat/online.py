"""Ask the hosts themselves: does this exact wheel exist, does the base tag resolve, do the weights
answer with the right size?

A host that does not answer is reported as unreachable, never as a missing file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpx
from packaging.version import Version

from builder.apt import redact
from builder.compat.rules.flash import fitting_wheels, wanted_wheel
from builder.compat.values import Python as PythonVersion
from builder.compat.values import parse, parse_cuda
from builder.compat.verdict import Conflict
from builder.spec import ImageSpec

__all__ = ["Addresses", "Remote", "answers", "ask", "remotes_of"]

_TIMEOUT = httpx.Timeout(5.0, connect=3.0)
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where things are asked for; a test or a mirror puts its own."""

    index: str
    github: str = "https://github.com"
    registry: str = "https://registry-1.docker.io"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One thing that a row needs from elsewhere. `size` is in bytes, None when it is not known."""

    key: str
    what: str
    url: str
    size: int | None = None
    contains: str = ""


def remotes_of(spec: ImageSpec, addresses: Addresses, base: str | None = None) -> list[Remote]:
    """Return everything that can be asked for about a row."""
    found = list(_wheels(spec, addresses))
    found += [
        Remote(key="weights", what=weight.name, url=weight.url, size=weight.size)
        for weight in spec.weights
    ]
    if base is not None:
        found.append(_base(base, addresses))
    return found


def _wheels(spec: ImageSpec, addresses: Addresses) -> Iterator[Remote]:
    stack = spec.stack
    python = "cp" + stack.python.replace(".", "")
    if stack.index == "pypi":
        for project, version in (("torch", stack.torch), ("torchvision", stack.torchvision)):
            yield Remote(
                key=project,
                what=f"{project} {version}",
                url=f"{addresses.index}/{project}/",
                contains=rf"{project}-{re.escape(version)}(-\d\w*)?-({python}-{python}|py3)",
            )
    if spec.flash_attn is not None and spec.flash_attn.source == "wheel":
        release = Version(spec.flash_attn.version)
        interpreter = parse("python", stack.python)[1]
        assert isinstance(interpreter, PythonVersion)
        cuda = parse_cuda(stack.cuda) if stack.cuda else None
        wanted = wanted_wheel(Version(stack.torch), cuda, interpreter, None)
        for wheel in fitting_wheels(release, wanted)[:1]:
            path = f"Dao-AILab/flash-attention/releases/download/v{release}/{quote(wheel.name)}"
            yield Remote(key="flash_attn", what=wheel.name, url=f"{addresses.github}/{path}")


def _base(base: str, addresses: Addresses) -> Remote:
    name, _, tag = base.partition("@")[0].removeprefix("docker.io/").partition(":")
    digest = base.partition("@")[2]
    repository = name if "/" in name else f"library/{name}"
    url = f"{addresses.registry}/v2/{repository}/manifests/{digest or tag or 'latest'}"
    return Remote(key="base", what=base, url=url)


def ask(remotes: list[Remote], client: httpx.Client | None = None) -> tuple[Conflict, ...]:
    """Ask for every remote once; return what is missing, different or unreachable."""
    return tuple(answers(remotes, client).values())


def answers(remotes: list[Remote], client: httpx.Client | None = None) -> dict[Remote, Conflict]:
    """Ask for every remote once; return what is wrong with those with which something is.

    A host that could not be reached is not waited for again.
    """
    found: dict[Remote, Conflict] = {}
    silent: dict[str, str] = {}
    with client or httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as session:
        for remote in remotes:
            if conflict := _ask(session, remote, silent):
                found[remote] = conflict
    return found


def _ask(client: httpx.Client, remote: Remote, silent: dict[str, str]) -> Conflict | None:
    host = urlsplit(remote.url).hostname or remote.url
    if host in silent:
        return _unreachable(remote, host, silent[host])
    try:
        if remote.contains:
            return _listed(client, remote)
        answer = client.head(
            remote.url, headers={"Accept": _MANIFESTS} if remote.key == "base" else {}
        )
        if remote.key == "base" and answer.status_code == httpx.codes.UNAUTHORIZED:
            answer = _with_token(client, remote, answer)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        silent[host] = _plain(error)
        return _unreachable(remote, host, silent[host])
    return _judged(remote, answer)


def _listed(client: httpx.Client, remote: Remote) -> Conflict | None:
    answer = client.get(remote.url)
    if answer.is_success and not re.search(remote.contains, answer.text):
        return _conflict(remote, "fail", f"the index has no wheel of {remote.what} for this row")
    return _judged(remote, answer)


def _with_token(client: httpx.Client, remote: Remote, refused: httpx.Response) -> httpx.Response:
    """Registries give anyone a token to read public images."""
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', refused.headers.get("WWW-Authenticate", "")))
    realm = challenge.pop("realm", "")
    if not realm:
        return refused
    token = client.get(realm, params=challenge).raise_for_status().json().get("token", "")
    headers = {"Accept": _MANIFESTS, "Authorization": f"Bearer {token}"}
    return client.head(remote.url, headers=headers)


def _judged(remote: Remote, answer: httpx.Response) -> Conflict | None:
    if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
        return _conflict(remote, "fail", f"{remote.what} does not exist ({answer.status_code})")
    if not answer.is_success:
        return _conflict(remote, "warn", f"asked for {remote.what}: HTTP {answer.status_code}")
    length = answer.headers.get("Content-Length", "")
    if remote.size is not None and length.isdigit() and int(length) != remote.size:
        return _conflict(
            remote, "fail", f"{remote.what} has {length} bytes there, {remote.size} were expected"
        )
    return None


def _conflict(remote: Remote, severity: str, message: str) -> Conflict:
    return Conflict("online", severity, message, "", redact(remote.url), (remote.key,))


def _unreachable(remote: Remote, host: str, why: str) -> Conflict:
    what = f"could not ask for {remote.what}: {host} is unreachable ({why})"
    return _conflict(remote, "warn", what)


def _plain(error: Exception) -> str:
    return redact(f"{type(error).__name__} {error}".strip()[:160])
