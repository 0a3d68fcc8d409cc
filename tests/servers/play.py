"""A server that plays the sources of a build, with faults on demand and a log of what was asked.

It serves files by path. As a proxy (absolute addresses, CONNECT) it answers for every host itself:
with a certificate for github.com in `certificate`, the official addresses work without a network.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from tests.servers.certificates import Certificate
from tests.servers.faults import (
    Cut,
    Drip,
    Fault,
    Flip,
    IgnoreRange,
    Lengthen,
    Reset,
    Say,
    ShiftRange,
    Swap,
    What,
    redirect,
)

__all__ = ["File", "PlayServer", "Seen", "play_server"]

_STEP_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class File:
    """A file and how its host serves it.

    `framing`: the length is told, or the body comes in chunks, or it ends with the connection.
    `ranges`: parts can be asked for; `if_range`: only of the version that the client names.
    `head`: HEAD is answered; signed addresses refuse it with 403, because they are signed for GET.
    `etag` names the version; it may be empty.
    """

    body: bytes
    kind: str = "application/octet-stream"
    framing: Literal["length", "chunked", "close"] = "length"
    ranges: bool = True
    if_range: bool = True
    head: bool = True
    etag: str = '"1"'


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request: `host` as the client named it; header names are lower case.

    `by_proxy`: it came as to a proxy; `tunnelled`: inside a connection that CONNECT opened.
    """

    method: str
    host: str
    path: str
    headers: dict[str, str]
    by_proxy: bool
    tunnelled: bool

    @property
    def range(self) -> str | None:
        """The part that was asked for."""
        return self.headers.get("range")


@dataclass
class PlayServer:
    """What is served and what has been asked; change it at any time.

    `files` and `redirects` are by path, with the query where one belongs to it. `guards` maps shell
    patterns on paths to the `user:password` that they ask for, except in a tunnel: the hosts behind
    it are public ones. `proxy_login` is what a client needs to use this server as a proxy. `errors`
    are defects of this server: they must stay empty.
    """

    url: str
    files: dict[str, File] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    guards: dict[str, str] = field(default_factory=dict)
    proxy_login: str | None = None
    seen: list[Seen] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, path: str = "*", method: str = "GET") -> list[Seen]:
        """The requests so far whose path matches a shell pattern."""
        with self._lock:
            seen = list(self.seen)
        return [item for item in seen if item.method == method and fnmatchcase(item.path, path)]

    def url_with(self, login: str) -> str:
        """This server's URL with `user:password` in it."""
        return self.url.replace("://", f"://{login}@")

    def note(self, seen: Seen) -> What | None:
        """Log a request, and return what goes wrong with it."""
        with self._lock:
            self.seen.append(seen)
            for index, fault in enumerate(self.faults):
                if fault.concerns(seen.method, seen.path):
                    if fault.times is not None:
                        left = fault.times - 1
                        self.faults[index : index + 1] = [replace(fault, times=left)] * (left > 0)
                    return fault.what
        return None

    def open_for(self, seen: Seen) -> bool:
        """Whether the request carries the password that its path asks for."""
        logins = [login for path, login in self.guards.items() if fnmatchcase(seen.path, path)]
        return seen.tunnelled or all(
            seen.headers.get("authorization") == _basic(login) for login in logins
        )


@contextmanager
def play_server(
    address: str = "127.0.0.1", *, certificate: Certificate | None = None, tls: bool = False
) -> Iterator[PlayServer]:
    """Serve on a free port of `address` until the block ends.

    `certificate` is shown by a server with `tls`, and to clients that CONNECT through it.
    """
    context = certificate.server_context() if certificate else None
    http = _Http((address, 0), _Handler)
    play = PlayServer(url=f"{'https' if tls else 'http'}://{address}:{http.server_port}")
    http.play, http.context, http.tls = play, context, tls
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield play
    finally:
        play.closing.set()
        http.shutdown()
        thread.join()
        http.server_close()


class _Http(ThreadingHTTPServer):
    play: PlayServer
    context: ssl.SSLContext | None
    tls: bool
    daemon_threads = True
    # Clients that keep a connection open must not keep the test waiting.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as inherited
        """Keep a defect for the test; a client that left is none."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (ConnectionError, ssl.SSLError)):
            self.play.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http
    tunnel: str | None = None

    def setup(self) -> None:
        if self.server.tls:
            self._wrap()
        super().setup()

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        seen = self._see()
        what = self.server.play.note(seen)
        if seen.by_proxy and self.tunnel is None and not self._may_use_proxy():
            return
        if not self.server.play.open_for(seen):
            self._say(Say(401, b"", {"WWW-Authenticate": 'Basic realm="play"'}))
        elif isinstance(what, Say):
            self._say(what)
        elif (to := self.server.play.redirects.get(seen.path)) is not None:
            self._say(redirect(to))
        elif (file := self.server.play.files.get(seen.path)) is not None:
            self._serve(seen, file, what)
        else:
            self._say(Say(404, b"not here"))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.server.play.note(self._see())
        if not self._may_use_proxy():
            return
        self.tunnel = self.path
        self.send_response(200, "Connection established")
        self.end_headers()
        self._wrap()
        super().setup()

    def _wrap(self) -> None:
        assert self.server.context is not None, "TLS needs a certificate"
        # Detached: the server closes a socket that it no longer owns, and that is harmless.
        self.request = self.server.context.wrap_socket(self.request, server_side=True)

    def finish(self) -> None:
        super().finish()
        if isinstance(self.request, ssl.SSLSocket):
            self.request.close()

    def _see(self) -> Seen:
        headers = {name.lower(): value for name, value in self.headers.items()}
        parts = urlsplit(self.path)
        path = self.path if self.command == "CONNECT" else unquote(parts.path)
        query = f"?{parts.query}" if parts.query else ""
        return Seen(
            method=self.command,
            host=self.tunnel or parts.netloc or headers.get("host", ""),
            path=path + query,
            headers=headers,
            by_proxy=bool(parts.netloc) or self.tunnel is not None or self.command == "CONNECT",
            tunnelled=self.tunnel is not None,
        )

    def _may_use_proxy(self) -> bool:
        login = self.server.play.proxy_login
        if login is None or self.headers["Proxy-Authorization"] == _basic(login):
            return True
        self._say(Say(407, b"", {"Proxy-Authenticate": 'Basic realm="play"'}))
        return False

    def _say(self, what: Say) -> None:
        self.send_response(what.status)
        for name, value in {"Content-Length": str(len(what.body)), **what.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(what.body)

    def _serve(self, seen: Seen, file: File, what: What | None) -> None:
        if self.command == "HEAD" and not file.head:
            self._say(Say(403, b""))
            return
        file = _changed(file, what)
        part = _part(seen, file, what)
        if part is None:
            self._say(Say(416, b"", {"Content-Range": f"bytes */{len(file.body)}"}))
            return
        start, end, partial = part
        self.send_response(206 if partial else 200)
        self.send_header("Content-Type", file.kind)
        if file.etag:
            self.send_header("ETag", file.etag)
        if file.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(file.body)}")
        if file.framing == "length":
            self.send_header("Content-Length", str(end - start))
        elif file.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            body = file.body[start:end]
            self._send(_chunks(body) if file.framing == "chunked" else body, what)

    def _send(self, body: bytes, what: What | None) -> None:
        """Write the body as far as, and as fast as, the fault lets it."""
        if not isinstance(what, (Cut, Reset, Drip)):
            self.wfile.write(body)
            return
        self.wfile.write(body[: what.after])
        self.close_connection = True
        if isinstance(what, Reset):
            self._reset()
        if isinstance(what, Drip):
            self._drip(body[what.after :], what.rate)

    def _drip(self, rest: bytes, rate: float) -> None:
        began, sent = time.monotonic(), 0
        while sent < len(rest) and not self.server.play.closing.wait(_STEP_SECONDS):
            due = int((time.monotonic() - began) * rate)
            self.wfile.write(rest[sent:due])
            sent = max(sent, due)

    def _reset(self) -> None:
        # A moment for what was written; lingering for no time turns closing into a reset.
        self.server.play.closing.wait(_STEP_SECONDS)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _changed(file: File, what: What | None) -> File:
    body = file.body
    if isinstance(what, Flip):
        body = body[: what.at] + bytes([body[what.at] ^ 1]) + body[what.at + 1 :]
    elif isinstance(what, Lengthen):
        body = body + b"x" * what.by if what.by > 0 else body[: what.by]
    elif isinstance(what, Swap):
        return replace(file, body=what.body, etag=what.etag)
    return replace(file, body=body)


def _part(seen: Seen, file: File, what: What | None) -> tuple[int, int, bool] | None:
    """Return start, end, and whether that is a part; None when there is no such part."""
    whole = (0, len(file.body), False)
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range or "")
    if match is None or not file.ranges or isinstance(what, IgnoreRange):
        return whole
    if file.if_range and seen.headers.get("if-range", file.etag) != file.etag:
        return whole  # another version: RFC 9110, 13.1.5
    start = int(match[1])
    end = min(int(match[2]) + 1, len(file.body)) if match[2] else len(file.body)
    if start >= end:
        return None
    return (start + what.by if isinstance(what, ShiftRange) else start), end, True


def _chunks(body: bytes) -> bytes:
    half = len(body) // 2
    pieces = [piece for piece in (body[:half], body[half:]) if piece]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()
