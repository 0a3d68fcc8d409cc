"""From what someone wrote to values with one meaning: versions, GPUs, platforms, drivers.

Parsers raise ValueError with a message that names the value and what was expected. They are cached,
because thousands of rows share few values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from builder.compat.facts import load

__all__ = [
    "CPU",
    "KEYS",
    "Base",
    "Cuda",
    "Gpu",
    "Python",
    "compatible",
    "cuda_tag",
    "parse",
    "parse_cuda",
    "sm_name",
]

_LONGEST = 300


class Cuda(NamedTuple):
    """A CUDA version as far as it was named; `minor` is None for a bare `12`. 0 is CPU only."""

    major: int
    minor: int | None
    patch: int | None

    @property
    def name(self) -> str:
        """`12.8`, or `12` when only the major is known."""
        return f"{self.major}" if self.minor is None else f"{self.major}.{self.minor}"

    def covers(self, other: Cuda) -> bool:
        """Whether `other` is what this names, as far as this names it."""
        return self.major == other.major and self.minor in {None, other.minor}


CPU = Cuda(0, 0, None)


class Python(NamedTuple):
    """CPython: `minor` as wheels name it (`3.13`, free-threaded `3.13t`), `version` as written."""

    minor: str
    version: Version
    exact: bool


class Gpu(NamedTuple):
    """A GPU model; `board` is the Jetson family (orin, xavier, thor, nano), else empty."""

    name: str
    sm: int
    kind: str
    board: str


class Base(NamedTuple):
    """A base image, taken apart as far as its name tells."""

    name: str
    tag: str
    cuda: Cuda | None
    patch: str | None
    cudnn: bool
    flavour: str
    glibc: str | None
    os: str


def sm_name(sm: int) -> str:
    """Return `sm_86` for 86."""
    return f"sm_{sm}"


def cuda_tag(cuda: str) -> str:
    """Return `cu128` for `12.8`."""
    return "cu" + cuda.replace(".", "")


def compatible(sm: int, code: int) -> bool:
    """Whether a GPU of capability `sm` runs native code for `code`: same major, not newer."""
    return sm // 10 == code // 10 and code <= sm


def _version(text: str) -> Version:
    cleaned = text.strip().removeprefix("==").rstrip(".")
    try:
        return Version(cleaned)
    except InvalidVersion:
        raise ValueError(f"{_short(text)} is not a version") from None


@lru_cache(maxsize=4096)
def parse_cuda(text: str) -> Cuda:
    """Parse `12.8`, `12.8.1`, `12`, `cu128`, or `cpu`."""
    lowered = text.strip().lower().rstrip(".")
    if lowered in {"cpu", "none", "no"}:
        return CPU
    tag = re.fullmatch(r"cu(\d{2})(\d)", lowered)
    if tag:
        return Cuda(int(tag[1]), int(tag[2]), None)
    match = re.fullmatch(
        r"(?:cuda[ -]?)?(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?(?:\.\d+)?", lowered
    )
    if match is None:
        raise ValueError(f"{_short(text)} is not a CUDA version such as 12.8")
    return Cuda(
        int(match[1]), *(None if part is None else int(part) for part in match.groups()[1:])
    )


def _python(text: str) -> Python:
    match = re.fullmatch(
        r"(?:cp|python)?(\d)\.?(\d+)((?:\.\d+)?)(t?)((?:a|b|rc)?\d*)", text.strip().lower()
    )
    if match is None:
        raise ValueError(f"{_short(text)} is not a Python version such as 3.11")
    minor = f"{match[1]}.{match[2]}"
    return Python(minor + match[4], Version(minor + match[3]), bool(match[3]))


_PLATFORMS = {
    "x86_64": ("amd64", "x86_64", "x86-64", "x64"),
    "aarch64": ("arm64", "aarch64", "sbsa", "arm64v8"),
}


def _platform(text: str) -> str:
    lowered = text.strip().lower()
    if lowered.startswith(("win", "cygwin")):
        return "windows"
    if lowered.startswith(("darwin", "mac")):
        return "macos"
    words = re.split(r"[/\s]|linux_|manylinux\w*?_(?=x86|aarch)", lowered)
    for name, spellings in _PLATFORMS.items():
        if any(word in spellings for word in words):
            return name
    raise ValueError(f"{_short(text)} is not a platform such as linux/amd64 or linux/arm64")


@lru_cache(maxsize=1)
def _gpu_names() -> dict[str, Gpu]:
    found: dict[str, Gpu] = {}
    for name, row in load("gpus")["gpus"].items():
        board = next((b for b in ("orin", "xavier", "thor", "nano") if b in name.lower()), "")
        gpu = Gpu(name, row["sm"], row["kind"], board if row["kind"] == "jetson" else "")
        for spelling in (name, *row["aliases"]):
            found[_plain(spelling)] = gpu
    return found


def _plain(name: str) -> str:
    lowered = re.sub(r"\b(nvidia|tesla|geforce|generation|laptop|gpu)\b", " ", name.lower())
    lowered = re.sub(r"\b(sxm\d?|pcie|hbm\d\w?|nvl|\d+ ?gb)\b", " ", lowered)
    return re.sub(r"[^a-z0-9]+", "", lowered)


def _gpu(text: str) -> Gpu | str:
    """Return the GPU, or the text itself when nobody knows that name."""
    plain = _plain(text)
    if not plain:
        raise ValueError(f"{_short(text)} is not a GPU name")
    return _gpu_names().get(plain) or text.strip()


def _sm(text: str) -> int:
    match = re.fullmatch(r"(?:sm_?|compute_?)?(\d{1,2})\.?(\d)([af]?)", text.strip().lower())
    if match is None:
        raise ValueError(f"{_short(text)} is not a compute capability such as sm_86 or 8.6")
    return int(match[1]) * 10 + int(match[2])


def _targets(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in re.split(r"[;, ]+", text.strip()) if part.strip()]
    return tuple(_sm(re.sub(r"\+ptx$", "", part, flags=re.IGNORECASE)) for part in parts)


def _driver(text: str) -> tuple[int, ...]:
    match = re.fullmatch(r"[rR]?(\d{3,4})((?:\.\d+){0,3})", text.strip().rstrip("."))
    if match is None:
        raise ValueError(f"{_short(text)} is not a driver version such as 570.26")
    return tuple(int(part) for part in (match[1] + match[2]).split("."))


def _abi(text: str) -> bool:
    return _bool(text, "TRUE or FALSE")


def _bool(text: str, expected: str = "true or false") -> bool:
    lowered = text.strip().lower()
    if lowered in {"true", "1", "yes", "on"}:
        return True
    if lowered in {"false", "0", "no", "off"}:
        return False
    raise ValueError(f"{_short(text)} is neither {expected}")


def _requirement(text: str) -> Requirement:
    cleaned = re.sub(r"(\d)\.+(?=\s*(,|;|$))", r"\1", text.strip())
    if re.fullmatch(r"\d[\w.]*", cleaned):
        cleaned = f"tensorrt=={cleaned}"
    try:
        requirement = Requirement(cleaned)
    except InvalidRequirement:
        requirement = None
    if requirement is None or requirement.url is not None:
        raise ValueError(f"{_short(text)} is not a requirement such as tensorrt-cu12==10.9.0.34")
    return requirement


def _onnxruntime(text: str) -> Version | None:
    """Return the version of onnxruntime-gpu; None for the CPU package."""
    name, mark, version = text.partition("==")
    if not mark:
        return _version(text)
    return (
        _version(version) if name.strip().lower().replace("_", "-") == "onnxruntime-gpu" else None
    )


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse_choice(text: str) -> str:
        lowered = text.strip().lower()
        if lowered not in allowed:
            raise ValueError(f"{_short(text)} is none of {', '.join(allowed)}")
        return lowered

    return parse_choice


_INDEXES = {"pypi": "pypi", "pytorch": "pytorch", "https://download.pytorch.org/whl": "pytorch"}


def _index(text: str) -> str:
    lowered = text.strip().lower()
    found = _INDEXES.get(lowered) or ("pytorch" if "download.pytorch.org" in lowered else None)
    if found is None:
        raise ValueError(f"{_short(text)} is neither pypi nor pytorch")
    return found


def _sha256(text: str) -> str:
    lowered = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", lowered):
        raise ValueError(f"{_short(text)} is not a sha256: expected 64 hexadecimal digits")
    return lowered


def _word(text: str) -> str:
    stripped = text.strip()
    if not stripped or not stripped.isprintable():
        raise ValueError(f"{_short(text)} is not a name")
    return stripped


def _lower(text: str) -> str:
    return _word(text).lower()


_GLIBC = {
    "ubuntu18.04": "2.27",
    "ubuntu20.04": "2.31",
    "ubuntu22.04": "2.35",
    "ubuntu24.04": "2.39",
    "buster": "2.28",
    "bullseye": "2.31",
    "bookworm": "2.36",
    "trixie": "2.41",
    "centos7": "2.17",
    "ubi8": "2.28",
    "rockylinux8": "2.28",
    "ubi9": "2.34",
    "rockylinux9": "2.34",
}
"""glibc of the systems that base images name; alpine has none (musl)."""


def _base(text: str) -> Base:
    reference = _word(text).partition("@")[0]
    path, _, last = reference.rpartition("/")
    image, _, tag = last.partition(":")
    name = f"{path}/{image}" if path else image
    name = re.sub(r"^(docker\.io/)?(library/)?", "", name)
    lowered = f"{image}-{tag}".replace("ubuntu-", "ubuntu").lower()
    system = next((os for os in _GLIBC if os in lowered), "alpine" if "alpine" in lowered else "")
    version = None
    if name.endswith("nvidia/cuda"):
        version = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", tag)
    cuda = parse_cuda(version[0]) if version else None
    flavour = next((f for f in ("devel", "runtime", "base") if f in tag.split("-")), "")
    cudnn = name.endswith("nvidia/cuda") and "cudnn" in tag
    patch = version[0] if version and version[3] else None
    return Base(name, tag, cuda, patch, cudnn, flavour, _GLIBC.get(system), system)


def _glibc(text: str) -> Version:
    return _version(text.strip().lower().removeprefix("glibc").strip())


def _jetpack(text: str) -> str:
    cleaned = text.strip().rstrip(".")
    if not re.fullmatch(r"\d+(\.\d+){0,2}( ?DP)?", cleaned):
        raise ValueError(f"{_short(text)} is not a JetPack version such as 6.2")
    return re.sub(r" ?DP$", " DP", cleaned)


_LINEAGES = {"ultralytics": "upstream", "fork": "turbo", "v1": "v1.0"}


def _lineage(text: str) -> str:
    lowered = _lower(text)
    return _LINEAGES.get(lowered, lowered)


KEYS: Mapping[str, Callable[[str], object]] = {
    "torch": _version,
    "torchvision": _version,
    "cuda": parse_cuda,
    "python": _python,
    "platform": _platform,
    "index": _index,
    "gpu": _gpu,
    "sm": _sm,
    "driver": _driver,
    "needs_ptx_jit": _bool,
    "flash_attn": _version,
    "flash_attn_source": _choice("wheel", "build"),
    "cxx11abi": _abi,
    "tensorrt": _requirement,
    "ultralytics": _version,
    "distribution": _choice("ultralytics", "yolov12-fork"),
    "weights": _word,
    "weights_lineage": _lineage,
    "asset_tag": _word,
    "sha256": _sha256,
    "numpy": _version,
    "glibc": _glibc,
    "base": _base,
    "nvcc_target": _targets,
    "jetpack": _jetpack,
    "export": _lower,
    "half": _bool,
    "task": _lower,
    "onnxruntime_gpu": _onnxruntime,
}
"""Every key a row may name, and what reads its text."""

_FLAGS = frozenset({"needs_ptx_jit", "half", "cxx11abi"})


def _short(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


@lru_cache(maxsize=20_000)
def _parse(key: str, text: str) -> object:
    if len(text) > _LONGEST:
        raise ValueError(f"{_short(text)} is {len(text)} characters long, far too many")
    if not text.isascii():  # digits of other scripts pass for numbers in some places, not in all
        raise ValueError(f"{_short(text)} has characters beyond ASCII")
    return KEYS[key](text)


def parse(key: str, raw: object) -> tuple[str, object]:
    """Return the text and the value of `raw` under `key`; ValueError says what is wrong with it."""
    if isinstance(raw, str):
        return raw, _parse(key, raw)
    if isinstance(raw, bool) and key in _FLAGS:
        return str(raw), raw
    if isinstance(raw, int) and not isinstance(raw, bool) and key == "driver":
        # A branch number such as 570 loses nothing as a JSON number.
        return str(raw), _parse(key, str(raw))
    raise ValueError(_not_text(raw))


def _not_text(raw: object) -> str:
    """Say why `raw` can't be a value; numbers are the mistake that everyone makes."""
    if isinstance(raw, bool):
        return f"{str(raw).lower()} is not text; put the value in quotes"
    if isinstance(raw, (int, float)):
        shown = str(raw) if isinstance(raw, float) or abs(raw) < 10**20 else "a huge number"
        return f"{shown} is a number, not text: YAML and JSON read 3.10 as 3.1, so quote it"
    return f"expected text, found {'a list' if isinstance(raw, list) else 'an object'}"
