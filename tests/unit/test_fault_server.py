"""Each fault that a source can have, and what `fetch` makes of it; the play servers themselves."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from rich.console import Console

from builder.downloads import Patience, fetch
from builder.errors import SourceUnreachable
from builder.mirrors import Mirrors
from builder.reach import reachable
from builder.sources import Proxies, Sources
from builder.talk import Talk
from tests.servers import sites
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.faults import (
    Cut,
    Fault,
    Flip,
    IgnoreRange,
    Lengthen,
    Reset,
    Say,
    ShiftRange,
    Swap,
    What,
    login_page,
    redirect,
)
from tests.servers.play import File, PlayServer, play_server

BODY = bytes(range(256)) * 100
OTHER = bytes(reversed(BODY))
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = Patience(attempts=3, first_wait=0.001, longest_wait=0.005, silence=5.0)
PATH = "/file.bin"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    names = ("IP:127.0.0.1", "DNS:github.com", "DNS:far.example")
    return make_certificate(tmp_path_factory.mktemp("certificate"), *names)


@pytest.fixture(scope="module")
def sources(certificate: Certificate) -> Sources:
    """Nothing but a CA bundle, and a small one: reading the system's takes 50 ms each time."""
    return Sources(ca_bundle=certificate.path)


@pytest.fixture
def play(certificate: Certificate) -> Iterator[PlayServer]:
    with play_server(certificate=certificate) as server:
        server.files[PATH] = File(body=BODY)
        yield server
    assert not server.errors


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `fetch` would have waited between two tries."""
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    return slept


def get(
    url: str,
    folder: Path,
    sources: Sources,
    *,
    size: int | None = len(BODY),
    patience: Patience = QUICK,
) -> bytes:
    target = folder / "file.bin"
    talk = Talk(Console(file=io.StringIO()))
    fetch(url, target, sha256=SHA256, size=size, sources=sources, talk=talk, patience=patience)
    return target.read_bytes()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"file.bin.lock"}


def ranges(play: PlayServer) -> list[str | None]:
    return [seen.range for seen in play.requests()]


PASSING: dict[str, tuple[list[What], list[str | None]]] = {
    "busy": ([Say(429)], [None, None]),
    "burst of errors": ([Say(500), Say(502)], [None, None, None]),
    "unavailable": ([Say(503)], [None, None]),
    "cut": ([Cut(1000)], [None, "bytes=1000-"]),
    "cut at once": ([Cut(0)], [None, None]),
    "cut twice": ([Cut(1000), Cut(500)], [None, "bytes=1000-", "bytes=1500-"]),
    "reset": ([Reset(2000)], [None, "bytes=2000-"]),
    "cut, then no parts": ([Cut(1000), IgnoreRange()], [None, "bytes=1000-"]),
    "cut, then another part": ([Cut(1000), ShiftRange(7)], [None, "bytes=1000-", None]),
    "cut, then a flipped byte": ([Cut(1000), Flip(2000)], [None, "bytes=1000-", None]),
    "cut, then another version": ([Cut(1000), Swap(OTHER)], [None, "bytes=1000-", None]),
}


UNSIZED = ("busy", "cut", "cut, then another part", "cut, then a flipped byte")


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, len(BODY)) for name in PASSING), *((name, None) for name in UNSIZED)],
)
def test_what_passes_is_overcome(
    play: PlayServer,
    tmp_path: Path,
    sources: Sources,
    waits: list[float],
    name: str,
    size: int | None,
) -> None:
    faults, asked = PASSING[name]
    play.faults += [Fault(path=PATH, what=what) for what in faults]
    assert get(play.url + PATH, tmp_path, sources, size=size) == BODY
    assert ranges(play) == asked
    assert left(tmp_path) == {"file.bin"}
    assert len(waits) == len(asked) - 1


ENDING: dict[str, tuple[What, str]] = {
    "gone": (Say(404), "HTTP 404"),
    "forbidden": (Say(403), "HTTP 403"),
    "wants a login": (Say(401), "HTTP 401"),
    "web page": (login_page(), "the answer is a web page"),
    "flipped byte": (Flip(9), f"its sha256 is [0-9a-f]{{64}} instead of {SHA256}"),
    "another file": (Swap(OTHER), "its sha256 is"),
    "longer": (Lengthen(1), "the file has 25601 bytes instead of 25600"),
    "shorter": (Lengthen(-1), "the file has 25599 bytes instead of 25600"),
    "login by redirect": (redirect("/login"), "the answer is a web page"),
    "loop": (redirect(PATH), "redirect"),
    "leads nowhere": (redirect("ftp://localhost/file.bin"), "ftp"),
}


@pytest.mark.parametrize("name", ENDING)
def test_what_means_no_ends_at_once(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float], name: str
) -> None:
    what, message = ENDING[name]
    play.files["/login"] = File(body=b"<html>log in</html>", kind="text/html")
    play.faults.append(Fault(path=PATH, what=what, times=None))
    with pytest.raises(SourceUnreachable, match=message) as caught:
        get(play.url + PATH, tmp_path, sources)
    assert waits == []
    assert left(tmp_path) == set()
    (finding,) = caught.value.findings
    assert finding.place == play.url + PATH
    assert finding.todo


@pytest.mark.parametrize("what", [Say(503), Reset(0), Cut(0)], ids=repr)
def test_patience_ends(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float], what: What
) -> None:
    play.faults.append(Fault(path=PATH, what=what, times=None))
    with pytest.raises(SourceUnreachable, match="It was tried 3 times"):
        get(play.url + PATH, tmp_path, sources)
    assert len(play.requests()) == 3
    assert len(waits) == 2
    assert "file.bin" not in left(tmp_path)


def test_tries_that_bring_the_file_nearer_count_anew(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float]
) -> None:
    """Three gigabytes over a line that breaks every minute need more than a handful of tries."""
    play.faults.append(Fault(path=PATH, what=Cut(2000), times=8))
    patience = replace(QUICK, progress=5000)
    assert get(play.url + PATH, tmp_path, sources, patience=patience) == BODY
    assert ranges(play)[-1] == "bytes=16000-"
    assert len(play.requests()) == 9


def test_crumbs_are_no_progress(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float]
) -> None:
    play.faults.append(Fault(path=PATH, what=Cut(10), times=None))
    with pytest.raises(SourceUnreachable, match="It was tried 3 times"):
        get(play.url + PATH, tmp_path, sources)
    assert len(play.requests()) == 3


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("600", 120.0), ("0", 0.0)])
def test_the_wait_that_a_server_asks_for(
    play: PlayServer,
    tmp_path: Path,
    sources: Sources,
    waits: list[float],
    asked: str,
    waited: float,
) -> None:
    play.faults.append(Fault(path=PATH, what=Say(429, b"", {"Retry-After": asked})))
    get(play.url + PATH, tmp_path, sources)
    assert waits == pytest.approx([waited], abs=QUICK.longest_wait)


def test_the_wait_that_a_server_asks_for_as_a_date(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float]
) -> None:
    # RFC 9110, 10.2.3: a number of seconds, or a date; dates have whole seconds.
    date = formatdate(time.time() + 30, usegmt=True)
    play.faults.append(Fault(path=PATH, what=Say(503, b"", {"Retry-After": date})))
    get(play.url + PATH, tmp_path, sources)
    (waited,) = waits
    assert 28 <= waited <= 30


@pytest.mark.parametrize("asked", ["soon", "-5", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_wait_that_makes_no_sense_is_ours_to_choose(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float], asked: str
) -> None:
    play.faults.append(Fault(path=PATH, what=Say(503, b"", {"Retry-After": asked})))
    get(play.url + PATH, tmp_path, sources)
    assert waits == pytest.approx([0], abs=QUICK.longest_wait)


def test_a_release_asset_comes_by_its_signed_address(
    play: PlayServer, tmp_path: Path, sources: Sources
) -> None:
    path = "/ultralytics/assets/releases/download/v8.4.0/file.bin"
    objects = play.url.replace("127.0.0.1", "localhost")
    url = sites.release_asset(play, path, BODY, objects=objects)
    play.guards["/ultralytics/*"] = "user:hunter2"
    assert get(url.replace("://", "://user:hunter2@"), tmp_path, sources) == BODY
    (signed,) = play.requests("/signed/file.bin[?]token=*")
    assert signed.host.startswith("localhost:")
    # A password is for the host that it was given for.
    assert "authorization" not in signed.headers


@pytest.mark.parametrize(("times", "reason"), [(1, None), (2, "HTTP 503")])
def test_one_busy_moment_is_not_out_of_reach(
    play: PlayServer,
    sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    reason: str | None,
) -> None:
    monkeypatch.setattr("builder.reach._PAUSE_SECONDS", 0)
    busy = Fault(path=PATH, what=Say(503), times=times, methods=frozenset({"HEAD"}))
    play.faults.append(busy)
    assert reachable(play.url + PATH, sources) == reason


def test_a_password_is_never_said(play: PlayServer, tmp_path: Path, sources: Sources) -> None:
    play.guards["*"] = "user:hunter2"
    url = play.url_with("user:wrong-hunter") + PATH
    with pytest.raises(SourceUnreachable, match="HTTP 401") as caught:
        get(url, tmp_path, sources)
    assert "hunter" not in str(caught.value)


def test_an_archive_without_a_length_arrives(
    play: PlayServer, tmp_path: Path, sources: Sources
) -> None:
    url = sites.archive(play, "/owner/repository/archive/0123.tar.gz", BODY)
    assert get(url, tmp_path, sources, size=None) == BODY


@pytest.mark.parametrize("size", [len(BODY), None])
def test_an_archive_that_breaks_off_starts_again(
    play: PlayServer, tmp_path: Path, sources: Sources, size: int | None
) -> None:
    url = sites.archive(play, "/owner/repository/archive/0123.tar.gz", BODY)
    play.faults.append(Fault(path="/codeload/*", what=Cut(1000)))
    assert get(url, tmp_path, sources, size=size) == BODY
    first, second = play.requests("/codeload/*")
    assert first.range is None
    assert second.range is not None  # it asks, and understands the answer that has no parts


def test_mirrors_are_tried_in_their_order(
    play: PlayServer, tmp_path: Path, sources: Sources
) -> None:
    """The first has it not, the second has something else, the third has it."""
    path = "/owner/repository/releases/download/v1/file.bin"
    play.files |= {f"/b{path}": File(body=OTHER), f"/c{path}": File(body=BODY)}
    bases = tuple(f"{play.url}/{name}" for name in "abc")
    sources = replace(sources, mirrors=Mirrors(github=bases))
    assert get(f"https://github.com{path}", tmp_path, sources) == BODY
    assert [seen.path[:2] for seen in play.requests()] == ["/a", "/b", "/c"]


def test_every_place_that_failed_is_named(
    play: PlayServer, tmp_path: Path, sources: Sources
) -> None:
    play.proxy_login = "user:secret"
    sources = replace(
        sources,
        mirrors=Mirrors(github=(play.url,)),
        # The official host is asked through a proxy that is not there.
        proxies=Proxies(https="http://127.0.0.1:1", no=("127.0.0.1",)),
    )
    with pytest.raises(SourceUnreachable) as caught:
        get("https://github.com/owner/x.bin", tmp_path, sources)
    places = [finding.place for finding in caught.value.findings]
    assert places == [f"{play.url}/owner/x.bin", "https://github.com/owner/x.bin"]


def test_a_proxy_is_asked_with_its_password(
    play: PlayServer, tmp_path: Path, sources: Sources
) -> None:
    play.proxy_login = "user:hunter2"
    sources = replace(sources, proxies=Proxies(http=play.url_with("user:hunter2")))
    assert get(f"http://far.example{PATH}", tmp_path, sources) == BODY
    (seen,) = play.requests()
    assert (seen.host, seen.by_proxy) == ("far.example", True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_us_is_named(
    play: PlayServer, tmp_path: Path, sources: Sources, waits: list[float], scheme: str
) -> None:
    play.proxy_login = "user:hunter2"
    proxy = play.url_with("user:wrong-hunter")
    sources = replace(sources, proxies=Proxies(http=proxy, https=proxy))
    with pytest.raises(SourceUnreachable, match=r"407(.|\n)*proxy") as caught:
        get(f"{scheme}://far.example{PATH}", tmp_path, sources)
    assert waits == []
    assert "hunter" not in str(caught.value)


def test_an_index_page_promises_what_its_files_are(
    play: PlayServer, tmp_path: Path, sources: Sources
) -> None:
    url = sites.index(play, {"one_two-1.0-py3-none-any.whl": BODY, "three-four-2.0.tar.gz": OTHER})
    assert url == play.url + "/simple/"
    page = play.files["/simple/one-two/"].body.decode()
    assert f'href="/files/one_two-1.0-py3-none-any.whl#sha256={SHA256}"' in page
    assert "/simple/three-four/" in play.files
