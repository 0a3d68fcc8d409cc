"""Whether a file could be downloaded now, asked without downloading it."""

from __future__ import annotations

import queue
import threading
import time

import httpx

from builder.httpclient import TRANSIENT, open_client, words
from builder.sources import Sources

__all__ = ["reachable"]

_PROBE_SECONDS = 5.0
_PAUSE_SECONDS = 1.0


def reachable(url: str, sources: Sources) -> str | None:
    """Return None when `url` or a mirror of it could be downloaded now, else why not, in few words.

    The reason is that of the official address. Takes little more than five seconds at worst: all
    places are asked at once, beside the caller, because the resolver has timeouts of its own that
    no HTTP client can shorten.
    """
    places = sources.mirrors.candidates(url)
    answers: queue.Queue[tuple[str, str | None]] = queue.Queue()
    for place in places:
        ask = threading.Thread(
            target=lambda place=place: answers.put((place, _probe(place, sources))), daemon=True
        )
        ask.start()
    said: dict[str, str | None] = {}
    limit = time.monotonic() + 2 * _PROBE_SECONDS
    while len(said) < len(places) and None not in said.values():
        try:
            place, reason = answers.get(timeout=max(0.0, limit - time.monotonic()))
        except queue.Empty:
            break
        said[place] = reason
    return None if None in said.values() else said.get(url, "no answer in time")


def _probe(url: str, sources: Sources) -> str | None:
    try:
        with open_client(sources, _PROBE_SECONDS) as client:
            answer = _answer(client, url)
            if answer.status_code in TRANSIENT - {httpx.codes.TOO_MANY_REQUESTS}:
                # One busy moment must not end a build before it begins.
                time.sleep(_PAUSE_SECONDS)
                answer = _answer(client, url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return words(error)
    if not answer.is_success and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
        return f"HTTP {answer.status_code}"
    is_page = url.endswith("/")  # an index's page of a project; everything else is a file
    if not is_page and answer.is_success and "text/html" in answer.headers.get("content-type", ""):
        return "a web page answers in its place"
    return None


def _answer(client: httpx.Client, url: str) -> httpx.Response:
    answer = client.head(url)
    if answer.status_code not in {403, 405, 501}:
        return answer
    # Signed links and simple servers refuse HEAD; the first byte tells as much.
    with client.stream("GET", url, headers={"Range": "bytes=0-0"}) as stream:
        return stream
