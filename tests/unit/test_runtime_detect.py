"""detect: what counts as a picture, what comes over the network, and the shape of the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_image import detect, pictures
from yolo_image.console import BAD_USAGE, Stop
from yolo_image.pictures import Picture


class Tensor:
    """Stands for a tensor: all that detect asks of one is its list."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return self.values


RESULT = SimpleNamespace(
    orig_shape=(1080, 810),
    names={0: "person", 5: "bus"},
    boxes=SimpleNamespace(
        cls=Tensor([0.0, 5.0]),
        conf=Tensor([0.50004, 0.91239]),
        xyxy=Tensor([[1.04, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]),
    ),
    speed={"preprocess": 1.234, "inference": 56.789, "postprocess": 0.1},
)
SHAPED = {
    "source": "bus.jpg",
    "width": 810,
    "height": 1080,
    "boxes": [
        {"name": "bus", "class_id": 5, "score": 0.9124, "xyxy": [5.0, 6.0, 7.0, 8.0]},
        {"name": "person", "class_id": 0, "score": 0.5, "xyxy": [1.0, 2.0, 3.0, 4.0]},
    ],
    "milliseconds": {"preprocess": 1.23, "inference": 56.79, "postprocess": 0.1},
}


def test_a_result_becomes_json_best_box_first() -> None:
    assert detect.shape_picture(Picture(source="bus.jpg", name="bus.jpg"), RESULT) == SHAPED


def test_a_person_reads_one_line_per_box() -> None:
    heading, *boxes = detect.picture_line(SHAPED).splitlines()
    assert heading == "bus.jpg: 810x1080, 2 boxes, 57 ms"
    assert [line.split()[:2] for line in boxes] == [["bus", "0.91"], ["person", "0.50"]]


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    assert [picture.name for picture in pictures.find(str(tmp_path))] == ["a.jpg", "b.PNG"]


def test_a_folder_without_pictures_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="no pictures in") as caught:
        pictures.find(str(tmp_path))
    assert caught.value.code == BAD_USAGE


def test_a_missing_file_says_how_to_mount_one(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"no such file or folder.*-v") as caught:
        pictures.find(str(tmp_path / "a.jpg"))
    assert caught.value.code == BAD_USAGE


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/a/b.png?size=2", "b.png"),
        ("HTTPS://example.com/%C3%A4.jpg", "ä.jpg"),
        ("https://example.com/photo", "photo.jpg"),
        ("https://example.com/", "picture.jpg"),
        ("https://example.com/..%2F..%2Fetc%2Fpasswd", "passwd.jpg"),
    ],
)
def test_a_url_gives_a_safe_file_name(url: str, name: str) -> None:
    assert pictures.find(url) == [Picture(source=url, name=name)]


class Handler(BaseHTTPRequestHandler):
    """Serves a small file, an error, and something too large."""

    def do_GET(self) -> None:
        bodies = {"/ok.jpg": b"pixels", "/large.jpg": b"x" * 100}
        body = bodies.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(
            target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_url_is_fetched(server: str) -> None:
    (picture,) = pictures.find(f"{server}/ok.jpg")
    assert pictures.read(picture) == b"pixels"


def test_an_answer_that_is_no_picture_is_said(server: str) -> None:
    with pytest.raises(Stop, match="the server answers 404"):
        pictures.fetch(f"{server}/gone.jpg")


def test_what_is_too_large_is_not_fetched(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    with pytest.raises(Stop, match="larger than"):
        pictures.fetch(f"{server}/large.jpg")


def test_no_network_is_said_plainly() -> None:
    with pytest.raises(Stop, match=r"can't be fetched .*--network none"):
        pictures.fetch("http://127.0.0.1:1/a.jpg")


@pytest.mark.parametrize("argv", [["--conf", "1.1"], ["--imgsz", "0"], ["a.jpg", "b.jpg"]])
def test_bad_usage_exits_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        detect.run(argv)
    assert caught.value.code == BAD_USAGE
    assert "usage: detect" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_stops_before_anything_slow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match=r"can't write there.*--user"):
        detect.prepare_folder(tmp_path / "file/out")
