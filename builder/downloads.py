"""Verified downloads: a file is whole and has the promised hash, or it isn't there.

A broken transfer goes on where it stopped (`<name>.part`), transient errors are tried again, and an
answer that means no (404, a wrong size, a web page, a wrong hash) ends at once. Processes that want
the same file wait for each other.
"""

from __future__ import annotations

import fcntl
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import tenacity

from builder.apt import redact
from builder.errors import Finding, SourceUnreachable
from builder.sources import Sources
from builder.talk import Talk, human_bytes
from builder.wheelhouse import sha256_of

__all__ = ["Patience", "fetch", "open_client", "reachable"]

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 120.0
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often to try, and the seconds of waiting and of silence that are acceptable."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 20.0
    silence: float = 30.0


class _TryAgainError(Exception):
    """A failure that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoError(Exception):
    """A failure that another try won't change."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int | None,
    sources: Sources,
    talk: Talk,
    patience: Patience = Patience(),
) -> None:
    """Make `target` the file with this `sha256`, downloading only what is not there yet.

    A file that is there but damaged is replaced. Raises SourceUnreachable.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(target.name + ".lock")):
        if target.is_file():
            if sha256_of(target) == sha256:
                return
            talk.line(f"{target.name}: the stored file is damaged, fetching it again")
            target.unlink()
        wanted = _Wanted(
            url=url, part=target.with_name(target.name + ".part"), sha256=sha256, size=size
        )
        with open_client(sources, patience.silence) as client, talk.working(target.name) as news:
            try:
                _retrying(patience, news)(_attempt, client, wanted, news)
            except (_NoError, _TryAgainError) as error:
                raise _unreachable(url, str(error), patience, error) from error
        wanted.part.replace(target)


def reachable(url: str, sources: Sources) -> str | None:
    """Return None when `url` could be downloaded now, else why not, in a few words.

    Takes little more than five seconds at worst. It runs beside the caller because the resolver has
    timeouts of its own that no HTTP client can shorten.
    """
    answer: list[str | None] = []
    worker = threading.Thread(target=lambda: answer.append(_probe(url, sources)), daemon=True)
    worker.start()
    worker.join(2 * _PROBE_SECONDS)
    return answer[0] if answer else "no answer in time"


def open_client(sources: Sources, timeout: float) -> httpx.Client:
    """Return an HTTP client that trusts and goes through what this machine does."""
    bundle = sources.ca_bundle
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
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


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    url: str
    part: Path
    sha256: str
    size: int | None


def _retrying(patience: Patience, news: Callable[[str], None]) -> tenacity.Retrying:
    backoff = tenacity.wait_random_exponential(patience.first_wait, patience.longest_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _TryAgainError) else 0.0
        return max(asked, backoff(state))

    def tell(state: tenacity.RetryCallState) -> None:
        reason = state.outcome.exception() if state.outcome else None
        news(f"{reason}; trying again ({state.attempt_number} of {patience.attempts})")

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TryAgainError),
        stop=tenacity.stop_after_attempt(patience.attempts),
        wait=wait,
        before_sleep=tell,
        reraise=True,
    )


def _attempt(client: httpx.Client, wanted: _Wanted, news: Callable[[str], None]) -> None:
    """One request: append to the part file, then check the whole."""
    start = wanted.part.stat().st_size if wanted.part.exists() else 0
    if start and start != wanted.size:
        news(f"going on after {human_bytes(start)}")
    if start != wanted.size:
        _transfer(client, wanted, start, news)
    _check(wanted, resumed=start > 0)


def _transfer(
    client: httpx.Client, wanted: _Wanted, start: int, news: Callable[[str], None]
) -> None:
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        with client.stream("GET", wanted.url, headers=headers) as answer:
            append = _judge(answer, wanted, start)
            with wanted.part.open("ab" if append else "wb") as file:
                _copy(answer, wanted, file.tell(), file.write, news)
    except (httpx.TransportError, httpx.StreamError) as error:
        raise _TryAgainError(_words(error)) from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise _NoError(str(error)) from error


def _judge(answer: httpx.Response, wanted: _Wanted, start: int) -> bool:
    """Return whether the body continues the part file; raise when it is no use."""
    status = answer.status_code
    if status in _TRANSIENT:
        raise _TryAgainError(f"HTTP {status}", _retry_after(answer))
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        wanted.part.unlink(missing_ok=True)
        raise _TryAgainError("the server can't continue the earlier transfer")
    if not answer.is_success:
        raise _NoError(f"HTTP {status}")
    if "text/html" in answer.headers.get("content-type", ""):
        raise _NoError("the answer is a web page, not the file")
    append = status == httpx.codes.PARTIAL_CONTENT
    if append and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
        wanted.part.unlink(missing_ok=True)
        raise _TryAgainError("the server continued at another place")
    length = answer.headers.get("content-length", "")
    total = int(length) + (start if append else 0) if length.isdigit() else None
    if wanted.size is not None and total is not None and total != wanted.size:
        raise _NoError(f"the file has {total} bytes instead of {wanted.size}")
    return append


def _copy(
    answer: httpx.Response,
    wanted: _Wanted,
    done: int,
    write: Callable[[bytes], int],
    news: Callable[[str], None],
) -> None:
    of = f" of {human_bytes(wanted.size)}" if wanted.size else ""
    # Chunks as they come: a chunk size would hold back, and lose, what came before a reset.
    for chunk in answer.iter_raw():
        done += write(chunk)
        if wanted.size is not None and done > wanted.size:
            break
        news(f"{human_bytes(done)}{of}")


def _check(wanted: _Wanted, *, resumed: bool) -> None:
    """Compare the part file with what was promised; remove it when it can't become that."""
    done = wanted.part.stat().st_size
    if wanted.size is not None and done < wanted.size:
        raise _TryAgainError(f"the transfer ended after {done} of {wanted.size} bytes")
    if wanted.size is None or done == wanted.size:
        found = sha256_of(wanted.part)
        if found == wanted.sha256:
            return
        problem = f"its sha256 is {found} instead of {wanted.sha256}"
    else:
        problem = f"the file has more than {wanted.size} bytes"
    wanted.part.unlink()
    if resumed:
        # The first bytes may be of another file; from scratch the answer is certain.
        raise _TryAgainError(problem)
    raise _NoError(problem)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks for; its other form, a date, is left to our own backoff."""
    value = answer.headers.get("retry-after", "")
    return min(float(value), _LONGEST_WAIT) if value.isdigit() else 0.0


def _unreachable(url: str, reason: str, patience: Patience, error: Exception) -> SourceUnreachable:
    transient = isinstance(error, _TryAgainError)
    return SourceUnreachable(
        Finding(
            place=redact(url),
            what=reason,
            why=f"It was tried {patience.attempts} times." if transient else "",
            todo="Check the network, proxies and the CA bundle, then run the command again."
            if transient
            else "The address or the hash in the lock is out of date, or something between answers"
            " in its place.",
        )
    )


def _probe(url: str, sources: Sources) -> str | None:
    try:
        with open_client(sources, _PROBE_SECONDS) as client:
            answer = client.head(url)
            if answer.status_code in {403, 405, 501}:
                # Signed links and simple servers refuse HEAD; the first byte tells as much.
                with client.stream("GET", url, headers={"Range": "bytes=0-0"}) as stream:
                    answer = stream
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _words(error)
    if not answer.is_success and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
        return f"HTTP {answer.status_code}"
    if answer.is_success and "text/html" in answer.headers.get("content-type", ""):
        return "a web page answers in its place"
    return None


_REASONS = (
    (
        r"Name or service not known|name resolution|No address associated",
        "the name does not resolve",
    ),
    (r"Connection refused", "connection refused"),
    (r"Network is unreachable|No route to host", "no route to the host"),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "its certificate is not trusted here"),
)


def _words(error: Exception) -> str:
    """Return a short reason for a transport error."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    text = str(error)
    known = next((words for pattern, words in _REASONS if re.search(pattern, text)), None)
    return known or redact(text) or type(error).__name__


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; it stays, for removing it would let two holders in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
