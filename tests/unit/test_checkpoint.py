"""Checkpoints as torch wrote them, and what is said of files that are none."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builder.checkpoint import (
    Checkpoint,
    CheckpointError,
    Tensor,
    lineage_of,
    read_checkpoint,
)
from tests.unit.checkpoint_support import (
    RECORDED,
    Call,
    Global,
    New,
    Outside,
    module,
    pickled,
    recorded,
    tensor,
    write_zip,
)

LINEAGES = {"yolov8n": "yolov8", "yolo11n": "yolo11", "yolo12n": "yolo12", "yolov12n": "turbo"}


def keys_of(checkpoint: Checkpoint) -> list[tuple[str, tuple[int, ...], str]]:
    return [(key, tensor.shape, tensor.dtype) for key, tensor in checkpoint.tensors.items()]


def read(path: Path, root: object, storages: dict[str, int] | None = None) -> Checkpoint:
    """Read a checkpoint whose pickle holds `root`."""
    return read_checkpoint(write_zip(path / "a.pt", pickled(root), storages))


@pytest.mark.parametrize(("name", "lineage"), LINEAGES.items())
def test_a_real_checkpoint_has_the_keys_that_torch_says(
    tmp_path: Path, name: str, lineage: str
) -> None:
    real = recorded(name)
    checkpoint = read_checkpoint(write_zip(tmp_path / "a.pt", real.pickle, real.storages))
    assert keys_of(checkpoint) == real.keys
    assert lineage_of(checkpoint) == lineage
    attention = "ultralytics.nn.modules.block.AAttn"
    assert (attention in checkpoint.modules) == (lineage in {"yolo12", "turbo"})
    assert checkpoint.strangers == frozenset()
    assert checkpoint.license == "AGPL-3.0 (https://ultralytics.com/license)"
    assert checkpoint.version == ("8.3.63" if lineage == "turbo" else "8.4.190")
    assert checkpoint.date == "2026-11-25T03:00:00"
    assert checkpoint.epoch == -1
    assert checkpoint.train_args == {
        "task": "detect",
        "model": f"{name}.yaml",
        "imgsz": 640,
        "lr0": 0.01,
    }


@pytest.mark.parametrize(
    ("name", "parameters"),
    # What the projects state in their model files, yolov8.yaml to yolov12.yaml.
    [
        ("yolov8n", 3_157_200),
        ("yolo11n", 2_624_080),
        ("yolo12n", 2_602_288),
        ("yolov12n", 2_553_904),
    ],
)
def test_the_recorded_networks_are_the_published_ones(name: str, parameters: int) -> None:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counted = sum(
        math.prod(shape) for key, shape, _ in recorded(name).keys if not key.endswith(buffers)
    )
    assert counted == parameters


def test_a_file_that_torch_wrote_is_read_whole() -> None:
    """Rare types, views, tied and unsaved buffers, in the zip as torch lays it out."""
    checkpoint = read_checkpoint(RECORDED / "small.pt", verify=True)
    assert keys_of(checkpoint) == recorded("small").keys
    assert "a_hidden" not in checkpoint.tensors
    assert checkpoint.modules == {
        "torch.nn.modules.batchnorm.BatchNorm2d",
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.linear.Linear",
    }
    assert lineage_of(checkpoint) is None


# Which weights count, and where they may stand.

ORDERED = Global("collections", "OrderedDict")
ONE = {"0": 24}


@pytest.mark.parametrize(
    "root",
    [
        {"w": tensor(2, 3)},
        {"model": {"w": tensor(2, 3)}, "epoch": 3},
        {"state_dict": {"w": tensor(2, 3), "note": "no tensor"}},
        {"model": module("torch.nn.modules.linear.Linear", _parameters={"w": tensor(2, 3)})},
        {"model": module("torch.nn.modules.linear.Linear", _buffers={"w": tensor(2, 3)})},
        module("torch.nn.modules.linear.Linear", _parameters={"w": tensor(2, 3), "b": None}),
        {
            "ema": module("torch.nn.modules.linear.Linear", _parameters={"w": tensor(2, 3)}),
            "model": module("torch.nn.modules.linear.Linear", _parameters={"old": tensor(1)}),
        },
        {"ema": None, "model": {"w": tensor(2, 3)}},
    ],
)
def test_weights_are_found_where_ultralytics_looks(tmp_path: Path, root: object) -> None:
    assert read(tmp_path, root, ONE).tensors == {"w": Tensor(shape=(2, 3), dtype="float32")}


def test_a_wrapped_parameter_is_its_tensor(tmp_path: Path) -> None:
    parameter = Call(
        Global("torch._utils", "_rebuild_parameter"),
        (tensor(2, 3, kind="HalfStorage"), True, Call(ORDERED)),
    )
    assert read(tmp_path, {"w": parameter}, {"0": 12}).tensors == {
        "w": Tensor(shape=(2, 3), dtype="float16")
    }


def test_old_namespaces_hold_the_arguments(tmp_path: Path) -> None:
    namespace = New(
        Global("ultralytics.yolo.utils", "IterableSimpleNamespace"),
        {"task": "detect", "imgsz": 640, "save_dir": ("no", "plain"), "bad": "a\x1bb"},
    )
    checkpoint = read(tmp_path, {"w": tensor(6), "train_args": namespace}, ONE)
    assert checkpoint.train_args == {"task": "detect", "imgsz": 640}


def test_a_zip_that_was_packed_again_is_read(tmp_path: Path) -> None:
    packed = write_zip(
        tmp_path / "a.pt", pickled({"w": tensor(6)}), ONE, compression=zipfile.ZIP_DEFLATED
    )
    assert list(read_checkpoint(packed, verify=True).tensors) == ["w"]


# Lineages from keys and shapes alone.


def state(name: str) -> dict[str, Tensor]:
    return {key: Tensor(shape=shape, dtype=dtype) for key, shape, dtype in recorded(name).keys}


def named(tensors: dict[str, Tensor], **changes: Any) -> Checkpoint:
    plain: dict[str, Any] = {
        "tensors": tensors,
        "modules": frozenset(),
        "strangers": frozenset(),
        "version": None,
        "date": None,
        "license": None,
        "epoch": None,
        "train_args": {},
    }
    return Checkpoint(**{**plain, **changes})


@pytest.mark.parametrize(("name", "lineage"), LINEAGES.items())
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_names_and_shapes_are_enough(name: str, lineage: str, prefix: str) -> None:
    tensors = {prefix + key: tensor for key, tensor in state(name).items()}
    assert lineage_of(named(tensors)) == lineage


def test_both_kinds_of_attention_are_no_lineage() -> None:
    mixed = state("yolo12n") | {
        key: tensor
        for key, tensor in state("yolov12n").items()
        if key.startswith("model.8.m.0.0.attn.")
    }
    assert lineage_of(named(mixed)) is None


def test_names_without_the_right_shapes_are_no_lineage() -> None:
    """YOLO11's C3k2 has the names of YOLOv8's C2f; only the widths differ."""
    narrow = {
        key: Tensor(shape=(tensor.shape[0] // 2, *tensor.shape[1:]), dtype=tensor.dtype)
        if key.endswith("m.0.cv1.conv.weight")
        else tensor
        for key, tensor in state("yolov8n").items()
    }
    assert lineage_of(named(narrow)) is None
    wide = state("yolov12n")
    wide["model.6.m.0.0.attn.qk.conv.weight"] = Tensor(shape=(192, 64, 1, 1), dtype="float16")
    assert lineage_of(named(wide)) is None


def test_classes_that_contradict_the_keys_are_no_lineage() -> None:
    classes = frozenset({"ultralytics.nn.modules.block.C2f"})
    assert lineage_of(named(state("yolov8n"), modules=classes)) == "yolov8"
    assert lineage_of(named(state("yolo12n"), modules=classes)) is None


def test_nothing_is_no_lineage() -> None:
    assert lineage_of(named({})) is None


# Files that are no checkpoints: exact words for each.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b" \r\n", "white space"),
        (b"\n<!DOCTYPE html><html>rate limited</html>", "a web page"),
        (b"<?xml version='1.0'?><Error>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a Git LFS pointer"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"Not Found\n", "text: Not Found"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "as torch wrote before 1.6"),
        (b"\x1f\x8b\x08\x00", "a gzip file"),
        (b"PK\x05\x06" + bytes(18), "an empty zip file"),
        (b"\x89PNG\r\n\x1a\n", "a picture or a film"),
        (b"\x00\x01\x02", "bytes that start with 00 01 02"),
    ],
)
def test_what_a_file_looks_like_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint") as error:
        read_checkpoint(path)
    assert words in str(error.value)
    finding = error.value.finding("yolov8n.pt")
    assert finding.place == "yolov8n.pt"
    assert finding.what == str(error.value)
    assert finding.todo == "Download it again."


def test_a_truncated_zip_is_called_so(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", pickled({"w": tensor(6)}), ONE)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"truncated or damaged zip file: .*directory"):
        read_checkpoint(path)


def test_a_damaged_pickle_fails_its_crc(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", pickled({"word": tensor(6)}), ONE)
    path.write_bytes(path.read_bytes().replace(b"word", b"worm"))
    with pytest.raises(CheckpointError, match=r"archive/data\.pkl can't be read: Bad CRC-32"):
        read_checkpoint(path)


def test_a_damaged_storage_is_found_when_asked_for(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", pickled({"w": tensor(6)}), ONE)
    path.write_bytes(path.read_bytes().replace(bytes(24), b"x" * 24))
    assert read_checkpoint(path).tensors
    with pytest.raises(CheckpointError, match=r"archive/data/0 is damaged: its CRC"):
        read_checkpoint(path, verify=True)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["notes.txt"], r"no data\.pkl"),
        (["a/b/data.pkl"], r"no data\.pkl"),
        (["data.pkl"], r"no data\.pkl"),
        (["a/data.pkl", "b/data.pkl"], r"more than one data\.pkl"),
        (["a/data.pkl", "a/constants.pkl"], "a TorchScript export"),
    ],
)
def test_another_zip_file_is_no_checkpoint(tmp_path: Path, names: list[str], words: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in names:
            archive.writestr(name, b"N.")
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path / "a.pt")


def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """torch and zipfile would each take another one of them."""
    path = write_zip(tmp_path / "a.pt", pickled({"w": tensor(6)}), {"0": 24, "1": 24})
    path.write_bytes(path.read_bytes().replace(b"archive/data/1", b"archive/data/0"))
    with pytest.raises(CheckpointError, match="two members of its zip are named archive/data/0"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("storages", "words"),
    [
        ({}, "storage 0 is missing"),
        ({"0": 23}, "storage 0 has 23 bytes instead of 24"),
        ({"0": 25}, "storage 0 has 25 bytes instead of 24"),
    ],
)
def test_storages_have_to_be_whole(tmp_path: Path, storages: dict[str, int], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path, {"w": tensor(6)}, storages)


def test_all_bad_storages_are_counted(tmp_path: Path) -> None:
    root = {f"w{key}": tensor(6, key=str(key)) for key in range(5)}
    with pytest.raises(CheckpointError, match=r"0 is missing; .*2 is missing; and 2 more"):
        read(tmp_path, root)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ({"w": tensor(6, count=5)}, "w is larger than its storage of 5 numbers"),
        ({"w": tensor(6, offset=1)}, "w is larger than its storage of 6 numbers"),
        ({"w": tensor(6, kind="QUInt8Storage")}, "unknown type: torch.QUInt8Storage"),
        ({"w": tensor(6, strides=(1, 1))}, "more sizes than strides"),
        ({"w": tensor(6, strides=(-1,))}, "not made of sizes"),
        ({"a": tensor(6), "b": tensor(6, kind="HalfStorage")}, "storage 0 for another size"),
        ({"w": Call(Global("torch._utils", "_rebuild_tensor_v2"), ())}, "w is no plain tensor"),
        (
            {
                "w": Call(
                    Global("torch._utils", "_rebuild_tensor_v2"), (Outside(1), 0, (), (), 0, 0)
                )
            },
            "w does not refer to a storage",
        ),
        ({"epoch": 3, "best": 0}, "it holds no weights"),
        ({}, "it holds no weights"),
        (module("torch.nn.modules.linear.Linear", _parameters={"w": 3}), "w is no plain tensor"),
        (module("torch.nn.modules.linear.Linear", _modules={"0": {}}), "0. is no module"),
    ],
)
def test_tensors_have_to_make_sense(tmp_path: Path, root: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path, root, ONE)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x82\x01.", "unsupported opcode: EXT1"),
        (b"I1\n.", "unsupported opcode: INT"),
        (b"N", "damaged or cut off"),
        (b".", "takes from an empty stack"),
        (b"(.", "takes from an empty stack"),
        (b"h\x07.", "refers to memo entry 7"),
        (b"NNb.", "fills something that is no object"),
        (b"}}b}b.", "fills an object twice"),
        (b"}(Nu.", "has a key without a value"),
        (b"NN\x93.", "a global whose name is no text"),
        (b"\x80\x02N", "after byte 3: there is no end mark"),
        (b"\xff.", "no opcode is"),
        (b"cos\nsystem", "a global is cut off"),
    ],
)
def test_a_damaged_pickle_is_called_so(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(write_zip(tmp_path / "a.pt", raw))


def test_a_file_that_is_not_there_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pt")


def test_a_truncated_pickle_is_read_to_its_end(tmp_path: Path) -> None:
    real = recorded("yolov8n")
    with pytest.raises(CheckpointError, match="damaged or cut off after byte"):
        read_checkpoint(write_zip(tmp_path / "a.pt", real.pickle[:50_000]))
