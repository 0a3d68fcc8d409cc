"""The package indexes that are asked by us, beside uv: those that are named, else pip's own."""

from __future__ import annotations

from contextlib import suppress

from builder.compat.package_index import configured_index
from builder.sources import Sources

__all__ = ["asked_indexes", "index_page"]


def asked_indexes(sources: Sources) -> list[str]:
    """Return the indexes that are named, and the one that pip uses where none is."""
    named = list(sources.remote_indexes())
    if sources.default_index is None and not sources.no_index:
        with suppress(LookupError):
            named.insert(0, configured_index())
    return named


def index_page(sources: Sources) -> str | None:
    """Return a page of the package index that must answer; None where no index may be used.

    Every row installs torch or a package that needs it, and every index of packages has its page.
    """
    named = [url for url in asked_indexes(sources)[:1] if url.startswith(("http://", "https://"))]
    return f"{named[0].rstrip('/')}/torch/" if named else None
