"""The page of one project on a package index (PEP 503): its links, and the file that fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from builder.mirrors import file_of

__all__ = ["Link", "links_of", "name_of", "wheel_of"]


@dataclass(frozen=True)
class Link:
    """A file of a project: its URL without the fragment, and the sha256 that the page promises."""

    url: str
    sha256: str | None


def links_of(html: str, base: str) -> Iterator[Link]:
    """Yield the links of a page that was read from `base`."""
    parser = _Anchors()
    parser.feed(html)
    for href in parser.found:
        url, fragment = urldefrag(urljoin(base, href))
        yield Link(
            url, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        )


def wheel_of(links: Iterable[Link], name: str, version: str, python: str) -> Link | None:
    """Return the wheel of `name` at exactly `version` for x86_64 Linux and this `python` tag.

    `python` is a tag such as `cp311`; wheels for any Python 3 fit too.
    """
    for link in links:
        try:
            found, number, _, tags = parse_wheel_filename(file_of(link.url))
        except (InvalidWheelFilename, InvalidVersion):
            continue
        fits = any(
            tag.interpreter in {python, "py3"}
            and (tag.platform == "any" or ("linux" in tag.platform and "x86_64" in tag.platform))
            for tag in tags
        )
        if found == canonicalize_name(name) and number == Version(version) and fits:
            return link
    return None


class _Anchors(HTMLParser):
    """The links of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of every anchor."""
        if tag == "a":
            self.found.extend(value for name, value in attrs if name == "href" and value)


def name_of(file: str) -> str:
    """Return the canonical distribution name of a wheel or sdist; "" when it is neither."""
    try:
        if file.endswith(".whl"):
            return parse_wheel_filename(file)[0]
        return parse_sdist_filename(file)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        # Old build tools wrote names that today's rules refuse, such as Flask_Bcrypt-1.0.1.tar.gz.
        return canonicalize_name(file.partition("-")[0]) if file.endswith(".whl") else ""
