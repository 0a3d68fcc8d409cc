from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.requirements import STEPS, Locked, parse_lock, render, step_of

HASH = "a" * 64


def test_parse_reads_versions_urls_and_hashes() -> None:
    text = (
        "# a comment\n"
        f"torch==2.8.0 \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{'b' * 64}\n"
        f"    # via ultralytics\n"
        f"Flash_Attn @ https://host/x%2Bcu12.whl --hash=sha256:{HASH}\n"
    )
    torch, flash = parse_lock(text)
    assert (torch.name, torch.version, torch.hashes) == ("torch", "2.8.0", (HASH, "b" * 64))
    assert (flash.name, flash.url) == ("flash-attn", "https://host/x%2Bcu12.whl")


@pytest.mark.parametrize("line", ["torch==2.8.0", "torch>=2 --hash=sha256:" + HASH, "-r other.txt"])
def test_a_line_without_pin_or_hash_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not name==version with a sha256 hash"):
        parse_lock(line)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("nvidia-cudnn-cu12", "cuda"),
        ("cuda-toolkit", "cuda"),
        ("nvidia-ml-py", "deps"),
        ("triton", "torch"),
        ("setuptools", "torch"),
        ("tensorrt-cu12-bindings", "tensorrt"),
        ("einops", "flash-attn"),
        ("numpy", "deps"),
        ("ultralytics-thop", "ultralytics"),
    ],
)
def test_each_distribution_has_one_step(name: str, step: str) -> None:
    assert step_of(name) == step


names = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True)


@given(st.dictionaries(names, st.integers(0, 99), min_size=1))
def test_rendering_and_parsing_lose_nothing_and_order_does_not_matter(
    versions: dict[str, int],
) -> None:
    entries = [
        Locked(name=name, version=str(number), hashes=(HASH,)) for name, number in versions.items()
    ]
    files = render(entries)
    assert set(files) == set(STEPS)
    assert files == render(reversed(entries))
    parsed = [entry for text in files.values() for entry in parse_lock(text)]
    assert sorted(parsed, key=str) == sorted(entries, key=str)


def test_every_committed_lock_can_be_parsed(root: Path) -> None:
    paths = sorted((root / "locks").glob("*-c*.txt"))
    assert len(paths) == 14
    for path in paths:
        steps = {step_of(entry.name) for entry in parse_lock(path.read_text())}
        assert {"deps", "torch"} <= steps, path
