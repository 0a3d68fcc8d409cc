"""How the real hosts lay out what a build needs, on a play server.

The shapes were read off the real ones: PEP 503 pages, GitHub's redirects to signed addresses, its
archives without a length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import quote

from packaging.utils import parse_sdist_filename, parse_wheel_filename

from tests.servers.play import File, PlayServer

__all__ = ["archive", "index", "nvidia", "pytorch", "release_asset", "weights"]


def index(play: PlayServer, files: Mapping[str, bytes], root: str = "/simple") -> str:
    """Serve a PEP 503 index of wheels and sdists (by file name); return its URL.

    Each page promises the sha256 of its files, as the real index does.
    """
    pages: dict[str, list[str]] = {}
    for name, body in files.items():
        project = _project(name)
        play.files[f"/files/{name}"] = File(body=body)
        pages.setdefault(project, []).append(_link(f"/files/{quote(name)}", name, body))
    for project, links in pages.items():
        play.files[f"{root}/{project}/"] = _page(links)
    return f"{play.url}{root}/"


def nvidia(play: PlayServer, name: str, body: bytes, root: str = "/nvidia") -> str:
    """Serve a wheel as NVIDIA's index does: beside its page; return the base URL."""
    project = _project(name)
    play.files[f"{root}/{project}/{name}"] = File(body=body)
    play.files[f"{root}/{project}/"] = _page([_link(quote(name), name, body)])
    return play.url + root


def pytorch(play: PlayServer, local: str, files: Mapping[str, bytes], root: str = "/whl") -> str:
    """Serve wheels of one build (`cpu`, `cu128`) as PyTorch's index does; return the base URL."""
    for name, body in files.items():
        project = _project(name)
        play.files[f"{root}/{local}/{name}"] = File(body=body)
        link = _link(f"{root}/{local}/{quote(name)}", name, body)
        play.files[f"{root}/{local}/{project}/"] = _page([link])
    return play.url + root


def release_asset(play: PlayServer, path: str, body: bytes, *, objects: str = "") -> str:
    """Serve `/OWNER/REPO/releases/download/TAG/FILE`; return its URL.

    As on GitHub it leads to a signed address on another host, which answers no HEAD: `objects`, a
    URL under which a client reaches this server too.
    """
    name = path.rpartition("/")[2]
    signed = f"/signed/{name}?token={hashlib.sha256(path.encode()).hexdigest()[:8]}"
    play.files[signed] = File(body=body, head=False)
    play.redirects[path] = (objects or play.url) + quote(signed, safe="/?=")
    return play.url + path


def archive(play: PlayServer, path: str, body: bytes, *, codeload: str = "") -> str:
    """Serve `/OWNER/REPO/archive/SHA.tar.gz`; return its URL.

    GitHub's other host, `codeload`, makes archives as they are asked for: no length, no parts.
    """
    owner, repository, _, file = path.strip("/").split("/")
    made = f"/codeload/{owner}/{repository}/tar.gz/{file.removesuffix('.tar.gz')}"
    play.files[made] = File(body=body, kind="application/x-gzip", ranges=False, framing="chunked")
    play.redirects[path] = (codeload or play.url) + made
    return play.url + path


def weights(play: PlayServer, files: Mapping[str, bytes], root: str = "/weights") -> str:
    """Serve checkpoints by name, as a plain mirror does; return the base URL."""
    for name, body in files.items():
        play.files[f"{root}/{name}"] = File(body=body)
    return play.url + root


def _project(file: str) -> str:
    if file.endswith(".whl"):
        return parse_wheel_filename(file)[0]
    return parse_sdist_filename(file)[0]


def _link(href: str, name: str, body: bytes) -> str:
    return f'<a href="{href}#sha256={hashlib.sha256(body).hexdigest()}">{name}</a><br/>'


def _page(links: list[str]) -> File:
    text = "<!DOCTYPE html>\n<html><body>\n" + "\n".join(links) + "\n</body></html>\n"
    return File(body=text.encode(), kind="text/html")
