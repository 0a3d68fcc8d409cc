from __future__ import annotations

import pytest

from builder.mirrors import Mirrors, file_of

OFFICIAL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/yolov8n.pt"
TENSORRT = (
    "https://pypi.nvidia.com/tensorrt-cu12-libs/tensorrt_cu12_libs-10.9.0.34-py3-none-any.whl"
)


def test_without_mirrors_there_is_the_official_address() -> None:
    assert Mirrors().candidates(OFFICIAL) == (OFFICIAL,)


def test_folders_come_first_then_hosts_then_the_official_address() -> None:
    mirrors = Mirrors(
        weights=("https://w.example/yolo/", "https://w2.example"),
        github=("https://gh.example/mirror",),
    )
    assert mirrors.candidates(OFFICIAL) == (
        "https://w.example/yolo/yolov8n.pt",
        "https://w2.example/yolov8n.pt",
        "https://gh.example/mirror/ultralytics/assets/releases/download/v8.4.0/yolov8n.pt",
        OFFICIAL,
    )


def test_a_folder_of_wheels_holds_wheels_only() -> None:
    mirrors = Mirrors(wheels=("https://wheels.example",), weights=("https://w.example",))
    name = file_of(TENSORRT)
    assert mirrors.candidates(TENSORRT) == (f"https://wheels.example/{name}", TENSORRT)
    archive = "https://github.com/a/b/archive/c.tar.gz"
    assert mirrors.candidates(archive) == (archive,)


def test_a_host_that_only_begins_alike_is_another_host() -> None:
    url = "https://github.com.example/a.pt"
    assert Mirrors(github=("https://gh.example",)).candidates(url) == (url,)


def test_a_mirror_that_is_the_official_host_is_asked_once() -> None:
    assert Mirrors(github=("https://github.com",)).candidates(OFFICIAL) == (OFFICIAL,)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/torch-2.8.0%2Bcpu.whl", "torch-2.8.0+cpu.whl"),
        ("https://h/a/b.pt?token=1#x", "b.pt"),
        ("https://h/a/x-1%2F..%2F..%2Fevil.whl", "evil.whl"),
    ],
)
def test_file_names_are_as_on_disk(url: str, name: str) -> None:
    assert file_of(url) == name


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(Mirrors(github=("https://u:secret@gh.example",)))
