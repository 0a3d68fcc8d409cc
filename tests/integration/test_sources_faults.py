"""Faults of sources that take real time, real processes or a real file system to see."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from builder.downloads import Patience, discover, fetch
from builder.errors import BuildFailed, SourceUnreachable
from builder.reach import reachable
from builder.sources import Proxies, Sources
from builder.talk import Talk
from tests.servers import sites
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.faults import Cut, Drip, Fault, Say, Swap
from tests.servers.play import File, PlayServer, play_server

BODY = bytes(range(256)) * 2000
OTHER = bytes(reversed(BODY))
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = Patience(attempts=3, first_wait=0.01, longest_wait=0.05, silence=0.5)
PLAIN = Sources()
PATH = "/file.bin"
URL_PATH = "/ultralytics/assets/releases/download/v8.4.0/file.bin"


@pytest.fixture
def play() -> Iterator[PlayServer]:
    with play_server() as server:
        server.files[PATH] = File(body=BODY)
        yield server
    assert not server.errors


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    names = ("IP:127.0.0.1", "DNS:github.com", "DNS:objects.githubusercontent.com")
    return make_certificate(tmp_path_factory.mktemp("certificate"), *names)


def get(url: str, folder: Path, sources: Sources = PLAIN) -> bytes:
    target = folder / "file.bin"
    fetch(
        url,
        target,
        sha256=SHA256,
        size=len(BODY),
        sources=sources,
        talk=silent(),
        patience=QUICK,
    )
    return target.read_bytes()


def silent() -> Talk:
    return Talk(Console(file=io.StringIO()))


def start(play: PlayServer, target: Path, *prefix: str) -> subprocess.Popen[str]:
    """`fetch` in a process of its own."""
    argv = [*prefix, sys.executable, "-m", "tests.servers.fetch_once"]
    argv += [play.url + PATH, str(target), SHA256, str(len(BODY))]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, size: int) -> None:
    limit = time.monotonic() + 20
    while not (path.exists() and path.stat().st_size >= size):
        assert time.monotonic() < limit, f"{path.name} did not grow to {size} bytes"
        time.sleep(0.01)


def test_silence_ends_a_try(play: PlayServer, tmp_path: Path) -> None:
    play.faults.append(Fault(path=PATH, what=Drip(3000, rate=0)))
    began = time.monotonic()
    assert get(play.url + PATH, tmp_path) == BODY
    assert 0.5 <= time.monotonic() - began < 3
    assert [seen.range for seen in play.requests()] == [None, "bytes=3000-"]


def test_a_drip_ends_a_try(play: PlayServer, tmp_path: Path) -> None:
    """It is never silent and would take forty minutes: another connection may be better."""
    play.faults.append(Fault(path=PATH, what=Drip(3000, rate=200)))
    began = time.monotonic()
    assert get(play.url + PATH, tmp_path) == BODY
    assert 0.5 <= time.monotonic() - began < 3
    first, second = (seen.range for seen in play.requests())
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 3000


def test_nothing_but_drips_is_an_error_that_says_how_slow(play: PlayServer, tmp_path: Path) -> None:
    play.faults.append(Fault(path=PATH, what=Drip(0, rate=200), times=None))
    with pytest.raises(SourceUnreachable, match=r"\d+ B/s(.|\n)*tried 3 times"):
        get(play.url + PATH, tmp_path)


def test_two_processes_download_once(play: PlayServer, tmp_path: Path) -> None:
    play.faults.append(Fault(path=PATH, what=Drip(1000, rate=2_000_000)))
    both = [start(play, tmp_path / "file.bin") for _ in range(2)]
    said = [process.communicate(timeout=30)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(play.requests()) == 1


def test_a_killed_download_is_resumed(play: PlayServer, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    play.faults.append(Fault(path=PATH, what=Drip(100_000, rate=0)))
    process = start(play, target)
    wait_for(tmp_path / "file.bin.part", 100_000)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert not target.exists()
    assert get(play.url + PATH, tmp_path) == BODY
    assert [seen.range for seen in play.requests()] == [None, "bytes=100000-"]


def test_a_waiting_process_takes_over_from_a_killed_one(play: PlayServer, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    play.faults.append(Fault(path=PATH, what=Drip(100_000, rate=0)))
    first = start(play, target)
    wait_for(tmp_path / "file.bin.part", 100_000)
    second = start(play, target)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    said = second.communicate(timeout=30)[1]
    assert second.returncode == 0, said
    assert target.read_bytes() == BODY
    assert [seen.range for seen in play.requests()] == [None, "bytes=100000-"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a quarter of a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    subprocess.run(argv, check=True, timeout=10)
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_a_full_disk_is_named_and_leaves_no_file(play: PlayServer, small_disk: Path) -> None:
    with pytest.raises(BuildFailed, match=r"the disk is full"):
        get(play.url + PATH, small_disk)
    assert not (small_disk / "file.bin").exists()
    assert len(play.requests()) == 1


def test_a_full_disk_ends_the_process_without_a_traceback(
    play: PlayServer, small_disk: Path
) -> None:
    process = start(play, small_disk / "file.bin")
    said = process.communicate(timeout=30)[1]
    assert process.returncode == BuildFailed.exit_code
    assert "Traceback" not in said
    assert "the disk is full" in said


def test_what_lay_on_a_full_disk_is_used_when_there_is_room(
    play: PlayServer, small_disk: Path
) -> None:
    with pytest.raises(BuildFailed):
        get(play.url + PATH, small_disk)
    kept = (small_disk / "file.bin.part").stat().st_size
    assert 0 < kept <= 256 * 1024
    argv = ["mount", "-o", "remount,size=2m", str(small_disk)]
    subprocess.run(argv, check=True, timeout=10)
    assert get(play.url + PATH, small_disk) == BODY
    assert play.requests()[-1].range == f"bytes={kept}-"


def test_an_unknown_certificate_is_refused_at_once(
    certificate: Certificate, tmp_path: Path
) -> None:
    with play_server(certificate=certificate, tls=True) as play:
        play.files[PATH] = File(body=BODY)
        with pytest.raises(SourceUnreachable, match="certificate is not trusted") as caught:
            get(play.url + PATH, tmp_path)
        assert "CA bundle" in str(caught.value)
        assert "tried" not in str(caught.value)
        assert reachable(play.url + PATH, Sources()) == "its certificate is not trusted here"
        assert not play.seen
    assert not play.errors


def test_a_named_certificate_is_trusted(certificate: Certificate, tmp_path: Path) -> None:
    sources = Sources(ca_bundle=certificate.path)
    with play_server(certificate=certificate, tls=True) as play:
        play.files[PATH] = File(body=BODY)
        assert get(play.url + PATH, tmp_path, sources) == BODY
    assert not play.errors


def test_official_addresses_through_a_proxy_that_looks_inside(
    certificate: Certificate, tmp_path: Path
) -> None:
    """A company's proxy: it wants a password and shows its own certificate for every host."""
    with play_server(certificate=certificate) as proxy:
        proxy.proxy_login = "user:hunter2"
        login = proxy.url_with("user:hunter2")
        sources = Sources(ca_bundle=certificate.path, proxies=Proxies(http=login, https=login))
        proxy.redirects[URL_PATH] = "https://objects.githubusercontent.com/signed"
        proxy.files["/signed"] = File(body=BODY, head=False)
        url = "https://github.com" + URL_PATH
        assert reachable(url, sources) is None
        assert get(url, tmp_path, sources) == BODY
        tunnels = {seen.path for seen in proxy.requests(method="CONNECT")}
        asked = [(seen.host, seen.path) for seen in proxy.requests("/signed")]
        inside = [*proxy.requests(), *proxy.requests(method="HEAD")]
    assert tunnels == {"github.com:443", "objects.githubusercontent.com:443"}
    assert asked[-1] == ("objects.githubusercontent.com:443", "/signed")
    # The proxy's password is for the proxy: it is in no request to a host behind it.
    assert all("proxy-authorization" not in seen.headers for seen in inside)
    assert not proxy.errors


def test_a_file_of_unknown_hash_is_never_mixed(play: PlayServer, tmp_path: Path) -> None:
    """It changes while it is fetched, and no hash would tell: the ETag must."""
    play.faults += [
        Fault(path=PATH, what=Cut(1000)),
        Fault(path=PATH, what=Swap(OTHER), times=None),
    ]
    found = discover(play.url + PATH, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)
    assert found == tmp_path / hashlib.sha256(OTHER).hexdigest() / "file.bin"
    assert found.read_bytes() == OTHER
    first, second = play.requests()
    assert (first.headers.get("if-range"), second.headers.get("if-range")) == (None, '"1"')


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_name_for_the_version_it_starts_again(
    play: PlayServer, tmp_path: Path, etag: str
) -> None:
    play.files[PATH] = File(body=BODY, etag=etag)
    play.faults += [
        Fault(path=PATH, what=Cut(1000)),
        Fault(path=PATH, what=Swap(OTHER, etag=etag), times=None),
    ]
    found = discover(play.url + PATH, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)
    assert found.read_bytes() == OTHER
    assert [seen.range for seen in play.requests()] == [None, None]


def test_a_server_that_ignores_which_version_is_asked_for(play: PlayServer, tmp_path: Path) -> None:
    play.files[PATH] = File(body=BODY, if_range=False)
    play.faults += [
        Fault(path=PATH, what=Cut(1000)),
        Fault(path=PATH, what=Swap(OTHER), times=None),
    ]
    found = discover(play.url + PATH, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)
    assert found.read_bytes() == OTHER


def test_an_end_that_nobody_can_check_is_refused(play: PlayServer, tmp_path: Path) -> None:
    """Neither hash nor length nor chunks: whatever came before a break would pass for the file."""
    play.files[PATH] = File(body=BODY, framing="close")
    play.faults.append(Fault(path=PATH, what=Cut(1000)))
    with pytest.raises(SourceUnreachable, match="neither its hash nor its length"):
        discover(play.url + PATH, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)


def test_an_unknown_file_in_chunks_is_whole(play: PlayServer, tmp_path: Path) -> None:
    url = sites.archive(play, "/owner/repository/archive/0123.tar.gz", BODY)
    play.faults.append(Fault(path="/codeload/*", what=Cut(1000)))
    found = discover(url, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)
    assert found == tmp_path / SHA256 / "0123.tar.gz"
    assert found.read_bytes() == BODY


def test_an_unknown_file_resumes_where_an_earlier_run_gave_up(
    play: PlayServer, tmp_path: Path
) -> None:
    """TensorRT's libraries have 3 GB: what arrived is worth keeping."""
    play.faults += [
        Fault(path=PATH, what=Cut(1000)),
        Fault(path=PATH, what=Say(503), times=2),
    ]
    url = play.url + PATH
    with pytest.raises(SourceUnreachable):
        discover(url, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)
    found = discover(url, tmp_path, sources=PLAIN, talk=silent(), patience=QUICK)
    assert found.read_bytes() == BODY
    assert play.requests()[-1].range == "bytes=1000-"


def test_a_page_of_an_index_without_its_file(play: PlayServer, tmp_path: Path) -> None:
    base = sites.nvidia(play, "tensorrt_cu12_libs-1.0-py3-none-any.whl", BODY)
    play.faults.append(
        Fault(path="*.whl", what=Say(404), times=None, methods=frozenset({"GET", "HEAD"}))
    )
    url = f"{base}/tensorrt-cu12-libs/tensorrt_cu12_libs-1.0-py3-none-any.whl"
    assert reachable(url, Sources()) == "HTTP 404"
    assert reachable(f"{base}/tensorrt-cu12-libs/", Sources()) is None
    with pytest.raises(SourceUnreachable, match="HTTP 404"):
        get(url, tmp_path)
