from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from builder.downloads import Patience, fetch
from builder.errors import SourceUnreachable
from builder.httpclient import open_client
from builder.reach import reachable
from builder.sources import Proxies, Sources
from builder.talk import Talk

BODY = bytes(range(256)) * 400
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = Patience(attempts=3, first_wait=0.001, longest_wait=0.01, silence=2.0)

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """Answers each request with the next of `answers`, the last one again and again."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.ranges.append(self.headers["Range"])
            state.answers[min(len(state.ranges), len(state.answers)) - 1](self)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(url=f"http://127.0.0.1:{http.server_port}/file.bin")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def say(status: int, body: bytes = b"", *, cut: int | None = None, **headers: str) -> Answer:
    """Answer with `status`; `cut` bytes of the promised body and then a closed connection."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            request.close_connection = True

    return answer


def say_rest(request: BaseHTTPRequestHandler) -> None:
    start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    say(206, BODY[start:], Content_Range=f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")(request)


def get(server: Server, target: Path, *, size: int | None = len(BODY), sha256: str = SHA256) -> str:
    """Fetch quickly; return what was said."""
    said = io.StringIO()
    fetch(
        server.url,
        target,
        sha256=sha256,
        size=size,
        sources=Sources(),
        talk=Talk(Console(file=said)),
        patience=QUICK,
    )
    return said.getvalue()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"file.bin.lock"}


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_file_arrives_once(server: Server, tmp_path: Path, size: int | None) -> None:
    server.answers = [say(200, BODY)]
    get(server, tmp_path / "file.bin", size=size)
    get(server, tmp_path / "file.bin", size=size)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(server.ranges) == 1
    assert names(tmp_path) == {"file.bin"}


def test_a_damaged_stored_file_is_replaced(server: Server, tmp_path: Path) -> None:
    server.answers = [say(200, BODY)]
    (tmp_path / "file.bin").write_bytes(b"damaged")
    assert "damaged" in get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_errors_are_tried_again(server: Server, tmp_path: Path, status: int) -> None:
    server.answers = [say(status, b"busy", Retry_After="0"), say(200, BODY)]
    get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_retry_after_is_respected(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    server.answers = [say(429, Retry_After="7"), say(200, BODY)]
    get(server, tmp_path / "file.bin")
    assert slept == [7.0]


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.answers = [say(200, BODY, cut=1000), say_rest]
    get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY[:500])
    server.answers = [say(200, BODY)]
    get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_the_rest_of_another_file_is_noticed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 500)
    server.answers = [say_rest, say(200, BODY)]
    get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.ranges == ["bytes=500-", None]


def test_an_answer_from_another_place_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY[:500])
    wrong = say(206, BODY[9:], Content_Range=f"bytes 9-{len(BODY) - 1}/{len(BODY)}")
    server.answers = [wrong, say(200, BODY)]
    get(server, tmp_path / "file.bin", size=None)
    assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (say(404), "HTTP 404"),
        (say(403), "HTTP 403"),
        (say(200, b"<html>log in</html>", Content_Type="text/html; charset=utf-8"), "a web page"),
        (say(200, BODY[:-1] + b"x"), "its sha256 is"),
        (say(200, BODY + b"x"), "instead of 102400"),
        (say(200, BODY[:-1]), "102399 bytes instead of 102400"),
    ],
)
def test_definitive_answers_end_at_once(
    server: Server, tmp_path: Path, answer: Answer, message: str
) -> None:
    server.answers = [answer]
    with pytest.raises(SourceUnreachable, match=message):
        get(server, tmp_path / "file.bin")
    assert len(server.ranges) == 1
    assert names(tmp_path) == set()


def test_patience_ends(server: Server, tmp_path: Path) -> None:
    server.answers = [say(503)]
    with pytest.raises(SourceUnreachable, match=r"HTTP 503\n.*tried 3 times"):
        get(server, tmp_path / "file.bin")
    assert len(server.ranges) == 3


def test_what_arrived_survives_the_end_of_patience(server: Server, tmp_path: Path) -> None:
    server.answers = [say(200, BODY, cut=1000), say(503)]
    with pytest.raises(SourceUnreachable):
        get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").read_bytes() == BODY[:1000]


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.answers = [say(200, BODY)]
    threads = [threading.Thread(target=get, args=(server, tmp_path / "file.bin")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([say(200, BODY)], None),
        ([say(429)], None),
        ([say(404)], "HTTP 404"),
        ([say(405), say(206, b"x")], None),
        ([say(200, b"<html>", Content_Type="text/html")], "a web page answers in its place"),
    ],
)
def test_reachable(server: Server, answers: list[Answer], reason: str | None) -> None:
    server.answers = answers
    assert reachable(server.url, Sources()) == reason


def test_a_closed_port_is_named_briefly() -> None:
    assert reachable("http://127.0.0.1:1/x", Sources()) == "connection refused"


def test_proxies_are_used_and_left_out(server: Server) -> None:
    server.answers = [say(200, b"through the proxy")]
    proxy = server.url.removesuffix("/file.bin").removeprefix("http://")
    proxies = Proxies(http=proxy, no=("localhost",))
    with open_client(Sources(proxies=proxies), 2.0) as client:
        assert client.get("http://far.example/x").text == "through the proxy"
        with pytest.raises(httpx.ConnectError, match="refused"):
            client.get("http://localhost:1/x")
