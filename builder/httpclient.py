"""The HTTP client of this machine: its proxies, its CA bundle, and short words for what fails."""

from __future__ import annotations

import re
import ssl
from urllib.parse import urlsplit

import httpx

from builder.apt import redact
from builder.errors import Finding, InvalidInput
from builder.sources import Sources

__all__ = ["TRANSIENT", "open_client", "words"]

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others a moment later."""


def open_client(sources: Sources, timeout: float) -> httpx.Client:
    """Return an HTTP client that trusts and goes through what this machine does."""
    bundle = sources.ca_bundle
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    unusable = [
        url
        for url in (sources.proxies.http, sources.proxies.https)
        if url and urlsplit(url).scheme not in {"http", "https"} and "://" in url
    ]
    if unusable:
        raise InvalidInput(
            *(
                Finding(
                    place="proxy",
                    what=f"{urlsplit(url).scheme}: is not a kind of proxy that works here",
                    why="apt, uv and the downloads must all be able to use it.",
                    todo="Name an HTTP proxy: http_proxy, https_proxy, or sources.proxies.",
                )
                for url in dict.fromkeys(unusable)
            )
        )
    return httpx.Client(
        verify=context,
        mounts=_mounts(sources, context),
        trust_env=False,
        follow_redirects=True,
        timeout=timeout,
        headers={"Accept-Encoding": "identity", "User-Agent": "yolo-images"},
    )


def _mounts(sources: Sources, context: ssl.SSLContext) -> dict[str, httpx.BaseTransport | None]:
    """Map URL patterns to transports: proxies by scheme, hosts without one to the default.

    The patterns are httpx's own reading of NO_PROXY:
    https://www.python-httpx.org/advanced/transports/#routing, read 2026-11-23.
    """
    proxies = {"http://": sources.proxies.http, "https://": sources.proxies.https}
    if "*" in sources.proxies.no:
        return {}
    mounts: dict[str, httpx.BaseTransport | None] = {
        scheme: httpx.HTTPTransport(proxy=url if "://" in url else f"http://{url}", verify=context)
        for scheme, url in proxies.items()
        if url
    }
    for host in sources.proxies.no:
        exact = host == "localhost" or re.fullmatch(r"[0-9.]+|[0-9a-f]*:[0-9a-f:]+", host)
        mounts[f"all://{host}" if exact else f"all://*{host}"] = None
    return mounts


_REASONS = (
    (
        r"Name or service not known|name resolution|No address associated",
        "the name does not resolve",
    ),
    (r"Connection refused", "connection refused"),
    (r"Network is unreachable|No route to host", "no route to the host"),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "its certificate is not trusted here"),
)


def words(error: Exception) -> str:
    """Return a short reason for a transport error."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    text = str(error)
    known = next((words for pattern, words in _REASONS if re.search(pattern, text)), None)
    return known or redact(text) or type(error).__name__
