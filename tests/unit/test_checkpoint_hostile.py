"""Checkpoints from strangers: nothing is run, nothing imported, nothing fills memory or time."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.checkpoint import CheckpointError, archive, graph, lineage_of, read_checkpoint, weights
from tests.unit.checkpoint_support import (
    RECORDED,
    Call,
    Global,
    New,
    Raw,
    code,
    module,
    pickled,
    recorded,
    tensor,
    write_zip,
)

LINEAR = "torch.nn.modules.linear.Linear"


@contextlib.contextmanager
def harmless(*, megabytes: float = 50) -> Iterator[None]:
    """Fail when anything is imported, or when more time or memory is taken.

    The time is the processor's, so that a busy machine fails no test.
    """
    modules = set(sys.modules)
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
    finally:
        spent = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert spent < 0.5, f"{spent:.2f} s"
    assert peak < megabytes * 1e6, f"{peak / 1e6:.0f} MB"
    assert set(sys.modules) == modules


def refused(path: Path, root: object, words: str) -> None:
    write_zip(path / "a.pt", pickled(root))
    with harmless(), pytest.raises(CheckpointError, match=words):
        read_checkpoint(path / "a.pt")


# Nothing is run.


class Touch:
    """Unpickling runs a command that leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def test_a_command_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = pickle.dumps(Touch(marker), protocol=2)
    real = recorded("yolov8n")
    # The whole of yolov8n, with the command beside it: dropped by POP, so it leaves no trace.
    both = real.pickle[:2] + evil[2:-1] + b"0" + real.pickle[2:]
    path = write_zip(tmp_path / "a.pt", both, real.storages)
    checkpoint = read_checkpoint(path)
    assert not marker.exists()
    assert len(checkpoint.tensors) == len(real.keys)
    assert checkpoint.strangers == {"posix.system", "a call of posix.system"}
    assert lineage_of(checkpoint) is None
    pickle.loads(evil)
    assert marker.exists(), "the command of this test does nothing, so the test proves nothing"


def test_a_named_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    root = {"w": tensor(6), "x": Global("stranger", "Thing")}
    write_zip(tmp_path / "a.pt", pickled(root), {"0": 24})
    with harmless():
        checkpoint = read_checkpoint(tmp_path / "a.pt")
    assert checkpoint.strangers == {"stranger.Thing"}
    assert lineage_of(checkpoint) is None


@pytest.mark.parametrize(
    ("extra", "strangers"),
    [
        (Global("torch.hub", "load"), {"torch.hub.load"}),
        # As the unpickler takes them: pickletools would make torch.Tensor of this.
        (Global("torch", r"\x54ensor"), {r"torch.\\x54ensor"}),
        (Global("torch.nn.modules.module", "os.system"), {"torch.nn.modules.module.os.system"}),
        (
            Global("ultralytics.utils.checks", "check_requirements"),
            {"ultralytics.utils.checks.check_requirements"},
        ),
        (
            Call(Global("ultralytics.nn.tasks", "attempt_load"), ("x",)),
            {"a call of ultralytics.nn.tasks.attempt_load"},
        ),
        (
            Call(Global("__builtin__", "getattr"), (Global("torch", "Tensor"), "map_")),
            {"a call of builtins.getattr"},
        ),
        (
            Call(
                Global("torch._tensor", "_rebuild_from_type_v2"),
                (Global("torch.nn.modules.module", "load"), None, (), None),
            ),
            {"a call of torch._tensor._rebuild_from_type_v2"},
        ),
        (Call(Call(Global("__builtin__", "set")), ("x",)), {"a call of something computed"}),
        (New(Call(Global("__builtin__", "set")), {}), {"a call of something computed"}),
        (
            Call(
                Global("__builtin__", "getattr"),
                (New(Global(*LINEAR.rsplit(".", 1)), {}), "forward"),
            ),
            set(),
        ),
        (Call(Global("collections", "OrderedDict")), set()),
    ],
)
def test_strangers_are_named(tmp_path: Path, extra: object, strangers: set[str]) -> None:
    path = write_zip(tmp_path / "a.pt", pickled({"w": tensor(6), "x": [extra]}), {"0": 24})
    assert read_checkpoint(path).strangers == strangers


# Nothing takes much memory or time.


def test_a_graph_that_doubles_at_each_level_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty levels, each holding the next one twice, are a thousand million modules."""
    monkeypatch.setattr(weights, "MAX_ENTRIES", 2000)
    layer = module(LINEAR)
    for _ in range(30):
        twice = Raw(b"}(" + code("a") + code(layer) + b"q\x00" + code("b") + b"h\x00u")
        layer = module(LINEAR, _modules=twice)
    refused(tmp_path, {"model": layer}, "too many parts: more than 2000")


def test_modules_that_contain_themselves_end(tmp_path: Path) -> None:
    path, name = LINEAR.rsplit(".", 1)
    state = {"_parameters": {}, "_modules": {"a": Raw(b"h\x00")}}
    loop = Raw(code(Global(path, name)) + b")\x81q\x00" + code(state) + b"b")
    refused(tmp_path, {"model": loop}, "modules are nested too deep: more than 100 levels")


def test_containers_that_contain_themselves_are_no_weights(tmp_path: Path) -> None:
    refused(tmp_path, Raw(b"]q\x00h\x00a}q\x01(h\x01h\x01u"), "holds no weights")
    twice = Raw(b")" + b"2\x86" * 5000)
    refused(tmp_path, {"model": twice}, "holds no weights")


def test_deep_nesting_ends(tmp_path: Path) -> None:
    refused(tmp_path, Raw(b"(" * 101 + b"t" * 101), "nested too deep: more than 100 levels")
    refused(tmp_path, Raw(b")" + b"\x85" * 5_000), "holds no weights")
    refused(tmp_path, Raw(b"N" + b")R" * 5_000), "holds no weights")


def test_too_many_opcodes_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_OPCODES", 1000)
    refused(tmp_path, Raw(b"N" + b"0N" * 1000), "too many opcodes: more than 1000")
    refused(tmp_path, Raw(b"Nr" + (10_000).to_bytes(4, "little")), "memo index that is too large")


def test_long_and_odd_names_end(tmp_path: Path) -> None:
    refused(tmp_path, Global("a" * 150, "b" * 150), "longer than 200 characters")
    refused(tmp_path, {"w" * 501: tensor(1)}, "its key has more than 500 characters")
    refused(tmp_path, {"w\x1b[2J": tensor(1)}, r"w\\x1b\[2J: its key is not printable")
    inner = module(LINEAR, _parameters={"w": tensor(1)})
    outer = module(LINEAR, _modules={"n" * 600: inner})
    refused(tmp_path, {"model": outer}, "its key has more than 500 characters")


def test_keys_whose_hashes_collide_are_no_trouble(tmp_path: Path) -> None:
    """All multiples of 2**61 - 1 hash to 0: a dict of 10,000 of them takes seconds to fill."""
    collide = Raw(b"}(" + b"".join(code(n * (2**61 - 1)) + b"N" for n in range(10_000)) + b"u")
    refused(tmp_path, {"model": collide}, "holds no weights")


def test_large_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_PICKLE_BYTES", 1000)
    refused(tmp_path, "x" * 1000, "pickle is too large: 1008 bytes")


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_zip(path, bytes(1_000_000), compression=zipfile.ZIP_DEFLATED)
    with harmless(megabytes=5), pytest.raises(CheckpointError, match="a zip bomb"):
        read_checkpoint(path)
    # The directory says less than there is: no more than it says is inflated.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(30_000_000))
        file.filelist[0].file_size = 100
    with harmless(megabytes=5), pytest.raises(CheckpointError, match="can't be read: Bad CRC-32"):
        read_checkpoint(path)


def test_a_directory_of_megabytes_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_READ", 70_000)
    path = write_zip(tmp_path / "a.pt", b"N.", {str(key): 1 for key in range(2000)})
    with harmless(megabytes=5), pytest.raises(CheckpointError, match="to be read at once"):
        read_checkpoint(path)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", b"N.", compression=zipfile.ZIP_LZMA)
    with pytest.raises(CheckpointError, match="compressed by method 14"):
        read_checkpoint(path)


def test_many_buffers_that_are_not_saved_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "MAX_ENTRIES", 100)
    hidden = Call(Global("__builtin__", "set"), ([str(number) for number in range(200)],))
    model = module(LINEAR, _non_persistent_buffers_set=hidden)
    refused(tmp_path, {"model": model}, "too many parts: more than 100")


# Whatever the bytes are.

SMALL = (RECORDED / "small.pt").read_bytes()
MODEL = pickled(
    {
        "model": module(LINEAR, _parameters={"w": tensor(2, 3)}, _modules={"a": module(LINEAR)}),
        "version": "8.4.190",
        "train_args": {"task": "detect"},
    }
)
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
edits = st.lists(st.tuples(st.integers(min_value=0), st.binary(max_size=4)), min_size=1, max_size=6)
# Opcodes and what may stand behind them, so that more than the first few are reached.
soup = st.lists(
    st.one_of(
        st.sampled_from(
            [b"(", b")", b"]", b"}", b"N", b"0", b"1", b"2", b"\x88", b"K\x01", b"q\x00"]
        ),
        st.sampled_from([b"h\x00", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"b"]),
        st.sampled_from(
            [b"R", b"\x81", b"Q", b"\x93", b"\x94", b"\x8f", b"\x90", b"\x91", b"\x92"]
        ),
        st.sampled_from([code("_modules"), code("_parameters"), code(tensor(1)), code({"a": 1})]),
        st.sampled_from([code(module(LINEAR)), code(Global("os", "system"))]),
        st.binary(min_size=1, max_size=3),
    ),
    max_size=40,
).map(b"".join)


def edited(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for at, new in changes:
        position = at % len(data)
        data = data[:position] + new + data[position + len(new) :]
    return data


def attempt(path: Path, *, verify: bool = False) -> None:
    with harmless(), contextlib.suppress(CheckpointError):
        lineage_of(read_checkpoint(path, verify=verify))


@quick
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(b"PK\x03\x04".__add__)))
def test_random_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    attempt(tmp_path / "a.pt")


@quick
@given(edits, st.integers(min_value=1, max_value=len(SMALL)) | st.none())
def test_mutated_files(tmp_path: Path, changes: list[tuple[int, bytes]], end: int | None) -> None:
    (tmp_path / "a.pt").write_bytes(edited(SMALL, changes)[:end])
    attempt(tmp_path / "a.pt", verify=True)


@quick
@given(edits)
def test_mutated_directories(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    """The headers are a small part of a file, and the part that zipfile believes."""
    start = SMALL.index(b"PK\x01\x02")
    (tmp_path / "a.pt").write_bytes(SMALL[:start] + edited(SMALL[start:], changes))
    attempt(tmp_path / "a.pt", verify=True)


@quick
@given(edits)
def test_mutated_pickles(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    attempt(write_zip(tmp_path / "a.pt", edited(MODEL, changes), {"0": 24}))


@quick
@given(soup)
def test_random_opcodes(tmp_path: Path, opcodes: bytes) -> None:
    attempt(write_zip(tmp_path / "a.pt", b"\x80\x02" + opcodes + b".", {"0": 4}))
