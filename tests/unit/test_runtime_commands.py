"""The entrypoint of the images: dispatch, the ten lines, image.json, and what a command refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from yolo_image import __main__ as entrypoint
from yolo_image import about, console, manifest, models
from yolo_image.console import BAD_USAGE, OK, Stop

RUNTIME = Path(__file__).parents[2] / "images/runtime"

SHA256 = hashlib.sha256(b"weights").hexdigest()


def document(**changes: Any) -> dict[str, Any]:
    """Return an image.json of a complete image, changed."""
    complete = {
        "schema_version": 1,
        "id": "yolov8-cu128",
        "family": "yolov8",
        "distribution": "ultralytics",
        "stack": "cu128",
        "platform": "linux/amd64",
        "python": "3.11",
        "cuda": "12.8",
        "torch": "2.8.0",
        "torchvision": "0.23.0",
        "tensorrt": "10.9.0.34",
        "flash_attn": None,
        "ultralytics": "8.4.190",
        "onnxruntime": "1.23.2",
        "gpus": ["T4", "H100"],
        "sms": ["7.5", "9.0"],
        "minimum_driver": "525.60.13",
        "weights": [
            {"file": "a.pt", "model": "a.pt", "sha256": SHA256, "size": 7, "official": True}
        ],
        "missing": [],
    }
    return {**complete, **changes}


PARTIAL = document(
    weights=[
        {"file": "a-random.pt", "model": "a.pt", "sha256": None, "size": None, "official": False}
    ],
    missing=[{"part": "weights", "source": "github", "reason": "unreachable"}],
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image's folder, with one official checkpoint in it."""
    (tmp_path / "image.json").write_text(json.dumps(document()))
    (tmp_path / "a.pt").write_bytes(b"weights")
    load = manifest.load
    monkeypatch.setattr(manifest, "load", lambda: load(tmp_path))
    return tmp_path


def test_the_package_is_importable_without_torch() -> None:
    """Every command answers --help without the seconds that torch takes, and without torch."""
    code = (
        "import sys, yolo_image.{}; assert not {{'torch', 'ultralytics', 'cv2'}} & set(sys.modules)"
    )
    for command in entrypoint.COMMANDS:
        subprocess.run([sys.executable, "-c", code.format(command)], check=True, cwd=RUNTIME)


def test_no_arguments_say_what_the_image_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entrypoint.main([]) == OK
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("yolov8-cu128: ultralytics 8.4.190, torch 2.8.0, CUDA")
    assert len(out.splitlines()) == 10
    assert err == ""


def test_the_ten_lines_of_a_partial_image_say_what_is_missing() -> None:
    text = about.describe(manifest.parse(PARTIAL))
    assert "RANDOM weights find nothing" in text
    assert "Missing: weights" in text


def test_the_ten_lines_of_a_cpu_image_promise_no_gpu() -> None:
    text = about.describe(manifest.parse(document(cuda=None, gpus=[], minimum_driver=None)))
    assert "CPU only" in text
    assert "None" not in text


def test_something_unknown_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert entrypoint.main(["frobnicate"]) == BAD_USAGE
    assert "neither a command of this image (detect, info, export, doctor)" in (
        capsys.readouterr().err
    )


def test_a_program_replaces_the_entrypoint() -> None:
    argv = [sys.executable, "-m", "yolo_image", "sh", "-c", 'echo $$ "$0" x; exit 3', "y z"]
    process = subprocess.Popen(argv, cwd=RUNTIME, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == (f"{process.pid} y z x\n", 3)


def test_a_missing_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="is missing: this is not a yolo-images image"):
        manifest.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_a_damaged_manifest_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "image.json").write_text(text)
    with pytest.raises(Stop, match="can't be read"):
        manifest.load(tmp_path)


def test_a_manifest_keeps_the_whole_document() -> None:
    parsed = manifest.parse(PARTIAL)
    assert parsed.document == PARTIAL
    assert parsed.why_missing("weights") == manifest.Missing(
        part="weights", source="github", reason="unreachable"
    )
    assert parsed.why_missing("tensorrt") is None


def test_matches() -> None:
    (official,) = manifest.parse(document()).weights
    (random,) = manifest.parse(PARTIAL).weights
    assert manifest.matches(official, SHA256) is True
    assert manifest.matches(official, "0" * 64) is False
    assert manifest.matches(official, None) is False
    assert manifest.matches(random, "0" * 64) is None
    assert manifest.matches(random, None) is False


def test_the_default_model_is_the_first_of_the_image(home: Path) -> None:
    image = manifest.load()
    path = models.find_model(None, image, home)
    assert path == home / "a.pt"
    weight = models.weight_of(path, image, home)
    assert weight
    assert weight.official


def test_a_model_of_the_user_is_not_taken_for_an_official_one(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "own/a.pt"
    own.parent.mkdir()
    own.touch()
    assert models.weight_of(own, manifest.load(), home) is None


def test_a_missing_model_is_never_looked_for_elsewhere(home: Path) -> None:
    with pytest.raises(Stop, match=r"no such model: b\.pt\. In this image: a\.pt") as caught:
        models.find_model("b.pt", manifest.load(), home)
    assert caught.value.code == BAD_USAGE


def test_data_goes_to_stdout_and_everything_else_to_stderr() -> None:
    code = (
        "import os\n"
        "from yolo_image.console import data_stream\n"
        "with data_stream() as stream:\n"
        "    print('log'); os.write(1, b'from C\\n'); stream.write('data\\n')\n"
        "print('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=RUNTIME, capture_output=True, text=True, check=True
    )
    assert done.stdout == "data\nafter\n"
    assert sorted(done.stderr.splitlines()) == ["from C", "log"]


def test_no_writable_temporary_folder_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "TMP", tmp_path / "gone")
    assert entrypoint.main(["detect"]) == 1
    assert "With --read-only, add --tmpfs" in capsys.readouterr().err
