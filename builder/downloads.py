"""Verified downloads: a file is whole and has the promised hash, or it isn't there.

A broken transfer goes on where it stopped (`<name>.part`), transient errors are tried again, and an
answer that means no (404, a wrong size, a web page, a wrong hash) ends at once. Mirrors are tried
in their order before the official address. Processes that want the same file wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import tenacity

from builder.apt import redact
from builder.disk import on_full_disk
from builder.errors import Finding, SourceUnreachable
from builder.httpclient import TRANSIENT, open_client, words
from builder.mirrors import file_of
from builder.sources import Sources
from builder.talk import Talk, human_bytes
from builder.wheelhouse import sha256_of

__all__ = ["Patience", "discover", "fetch"]

_LONGEST_WAIT = 120.0
_PROXY_TODO = "Check the proxy's URL; a login is written into it: http://user:password@host:port"
_CERTIFICATE_TODO = (
    "If a proxy or a mirror has a certificate of its own, name its CA bundle: SSL_CERT_FILE."
)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often to try, and the seconds of waiting and of silence that are acceptable.

    A connection that brings less than `slowest` bytes a second for as long as `silence` is given up
    too: at that rate the largest file would take a month, and another connection may be better.
    The attempts count anew when they brought `progress` bytes: a large file may need many.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 20.0
    silence: float = 30.0
    slowest: float = 1000.0
    progress: int = 1_000_000


class _TryAgainError(Exception):
    """A failure that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoError(Exception):
    """A failure that another try won't change; `todo` is what may, where that is known."""

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason)
        self.todo = todo


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

    A file that is there but damaged is replaced. Raises SourceUnreachable, and BuildFailed when
    the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(target.name + ".lock")
    with on_full_disk(str(target)), _locked(lock):
        if target.is_file():
            if sha256_of(target) == sha256:
                return
            talk.line(f"{target.name}: the stored file is damaged, fetching it again")
            target.unlink()
        part = target.with_name(target.name + ".part")
        wanted = [
            _Wanted(url=candidate, part=part, sha256=sha256, size=size)
            for candidate in sources.mirrors.candidates(url)
        ]
        _first_that_has_it(wanted, sources, patience, talk, target.name)
        part.replace(target)


def discover(
    url: str, store: Path, *, sources: Sources, talk: Talk, patience: Patience = Patience()
) -> Path:
    """Download the file at `url`, whose hash nobody has told us, to `store`/<its sha256>/<name>.

    For locks that were written where `url` does not answer; the caller says what it found. Raises
    SourceUnreachable, and BuildFailed when the disk is full.
    """
    name = file_of(url)
    part = store / "new" / f"{name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    with on_full_disk(str(part)), _locked(part.with_suffix(".lock")):
        wanted = [
            _Wanted(url=candidate, part=part, sha256=None, size=None)
            for candidate in sources.mirrors.candidates(url)
        ]
        _first_that_has_it(wanted, sources, patience, talk, name)
        target = store / sha256_of(part) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    return target


def _first_that_has_it(
    places: Sequence[_Wanted], sources: Sources, patience: Patience, talk: Talk, name: str
) -> None:
    """Fill the part file from the first place that can; SourceUnreachable names all of them."""
    failures: list[Finding] = []
    with open_client(sources, patience.silence) as client, talk.working(name) as news:
        for wanted in places:
            try:
                _persist(client, wanted, patience, news)
            except (_NoError, _TryAgainError) as error:
                failures.append(_failure(wanted.url, str(error), patience, error))
            else:
                _forget_etags(wanted)
                return
    raise SourceUnreachable(*failures)


@dataclass
class _Pace:
    """Notices a transfer that drips: never silent, never done."""

    patience: Patience
    since: float = field(default_factory=time.monotonic)
    count: int = 0

    def check(self, count: int) -> None:
        """Take note of so many bytes; raise when too few came for too long."""
        self.count += count
        seconds = time.monotonic() - self.since
        if seconds < self.patience.silence:
            return
        if self.count < self.patience.slowest * seconds:
            raise _TryAgainError(f"only {human_bytes(self.count / seconds)}/s arrived")
        self.since, self.count = time.monotonic(), 0


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    url: str
    part: Path
    sha256: str | None
    size: int | None

    @property
    def etag(self) -> Path:
        """Where this address's name for the version in the part file is kept."""
        address = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return self.part.with_name(f"{self.part.name}.{address}.etag")


def _persist(
    client: httpx.Client, wanted: _Wanted, patience: Patience, news: Callable[[str], None]
) -> None:
    while True:
        before = _size(wanted.part)
        try:
            _retrying(patience, news)(_attempt, client, wanted, patience, news)
        except _TryAgainError:
            if _size(wanted.part) < before + patience.progress:
                raise
        else:
            return


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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


def _attempt(
    client: httpx.Client, wanted: _Wanted, patience: Patience, news: Callable[[str], None]
) -> None:
    """One request: append to the part file, then check the whole."""
    if wanted.sha256 is None and not wanted.etag.exists():
        # No hash would tell that the first bytes are of another version.
        _drop(wanted)
    start = _size(wanted.part)
    if start and start != wanted.size:
        news(f"going on after {human_bytes(start)}")
    if start != wanted.size:
        _transfer(client, wanted, start, _Pace(patience), news)
    _check(wanted, resumed=start > 0)


def _transfer(
    client: httpx.Client, wanted: _Wanted, start: int, pace: _Pace, news: Callable[[str], None]
) -> None:
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and (etag := _kept_etag(wanted)):
        headers["If-Range"] = etag
    try:
        with client.stream("GET", wanted.url, headers=headers) as answer:
            append = _judge(answer, wanted, start)
            if not append:
                _keep_etag(answer, wanted)
            with wanted.part.open("ab" if append else "wb") as file:
                _copy(answer, wanted, file.tell(), file.write, pace, news)
    except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.UnsupportedProtocol) as error:
        raise _NoError(redact(str(error))) from error
    except (httpx.TransportError, httpx.StreamError) as error:
        raise _broken(error) from error


def _broken(error: httpx.TransportError | httpx.StreamError) -> _NoError | _TryAgainError:
    """Tell a refusal by the proxy or an unknown certificate from a line that broke."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _NoError(words(error), _CERTIFICATE_TODO)
    # httpcore's words for an answer to CONNECT begin with its status.
    status = re.match(r"\d{3}\b", str(error)) if isinstance(error, httpx.ProxyError) else None
    if status is None or int(status[0]) in TRANSIENT:
        return _TryAgainError(words(error))
    return _NoError(f"the proxy refuses: {words(error)}", _PROXY_TODO)


def _judge(answer: httpx.Response, wanted: _Wanted, start: int) -> bool:
    """Return whether the body continues the part file; raise when it is no use."""
    status = answer.status_code
    if status in TRANSIENT:
        raise _TryAgainError(f"HTTP {status}", _retry_after(answer))
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        _drop(wanted)
        raise _TryAgainError("the server can't continue the earlier transfer")
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        raise _NoError(f"the proxy refuses: HTTP {status}", _PROXY_TODO)
    if not answer.is_success:
        raise _NoError(f"HTTP {status}")
    if "text/html" in answer.headers.get("content-type", ""):
        raise _NoError("the answer is a web page, not the file")
    append = status == httpx.codes.PARTIAL_CONTENT
    if append and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
        _drop(wanted)
        raise _TryAgainError("the server continued at another place")
    if append and wanted.sha256 is None and answer.headers.get("etag") != _kept_etag(wanted):
        _drop(wanted)
        raise _TryAgainError("the server continued with another version")
    length = answer.headers.get("content-length", "")
    total = int(length) + (start if append else 0) if length.isdigit() else None
    if wanted.sha256 is None and total is None and "transfer-encoding" not in answer.headers:
        raise _NoError("neither its hash nor its length is known: it might end anywhere")
    if wanted.size is not None and total is not None and total != wanted.size:
        raise _NoError(f"the file has {total} bytes instead of {wanted.size}")
    return append


def _keep_etag(answer: httpx.Response, wanted: _Wanted) -> None:
    """Remember a strong ETag: a weak one does not promise the same bytes (RFC 9110, 8.8.1)."""
    _forget_etags(wanted)
    etag = answer.headers.get("etag", "")
    if etag.startswith('"') and etag.isascii():
        wanted.etag.write_text(etag, encoding="ascii")


def _kept_etag(wanted: _Wanted) -> str | None:
    return wanted.etag.read_text(encoding="ascii") if wanted.etag.exists() else None


def _drop(wanted: _Wanted) -> None:
    """Remove a part file that can't become what is wanted."""
    wanted.part.unlink(missing_ok=True)
    _forget_etags(wanted)


def _forget_etags(wanted: _Wanted) -> None:
    """Forget them for every address: what is in the part file now came from one of them."""
    prefix = wanted.part.name + "."
    for path in wanted.part.parent.iterdir():
        if path.name.startswith(prefix) and path.suffix == ".etag":
            path.unlink(missing_ok=True)


def _copy(
    answer: httpx.Response,
    wanted: _Wanted,
    done: int,
    write: Callable[[bytes], int],
    pace: _Pace,
    news: Callable[[str], None],
) -> None:
    of = f" of {human_bytes(wanted.size)}" if wanted.size else ""
    # Chunks as they come: a chunk size would hold back, and lose, what came before a reset.
    for chunk in answer.iter_raw():
        done += write(chunk)
        pace.check(len(chunk))
        if wanted.size is not None and done > wanted.size:
            break
        news(f"{human_bytes(done)}{of}")


def _check(wanted: _Wanted, *, resumed: bool) -> None:
    """Compare the part file with what was promised; remove it when it can't become that."""
    done = wanted.part.stat().st_size
    if wanted.size is not None and done < wanted.size:
        raise _TryAgainError(f"the transfer ended after {done} of {wanted.size} bytes")
    if wanted.sha256 is None:
        return
    if wanted.size is None or done == wanted.size:
        found = sha256_of(wanted.part)
        if found == wanted.sha256:
            return
        problem = f"its sha256 is {found} instead of {wanted.sha256}"
    else:
        problem = f"the file has more than {wanted.size} bytes"
    _drop(wanted)
    if resumed:
        # The first bytes may be of another file; from scratch the answer is certain.
        raise _TryAgainError(problem)
    raise _NoError(problem)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks for, as a number or a date (RFC 9110, 10.2.3); 0 for neither."""
    value = answer.headers.get("retry-after", "")
    if value.isdecimal():
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(0.0, seconds), _LONGEST_WAIT)


def _failure(url: str, reason: str, patience: Patience, error: Exception) -> Finding:
    transient = isinstance(error, _TryAgainError)
    if isinstance(error, _NoError) and error.todo:
        return Finding(place=redact(url), what=reason, todo=error.todo)
    return Finding(
        place=redact(url),
        what=reason,
        why=f"It was tried {patience.attempts} times." if transient else "",
        todo="Check the network, proxies and the CA bundle, then run the command again."
        if transient
        else "The address or the hash in the lock is out of date, or something between answers"
        " in its place.",
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; it stays, for removing it would let two holders in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
