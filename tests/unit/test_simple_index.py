from __future__ import annotations

import pytest

from builder.simple_index import links_of, wheel_of

# As NVIDIA's and PyTorch's indexes write them: relative, rooted, with and without a hash.
PAGE = """
<a href="tensorrt_cu12_libs-10.9.0.34-py2.py3-none-manylinux_2_28_aarch64.whl#sha256=aa">x</a>
<a href="tensorrt_cu12_libs-10.9.0.34-py2.py3-none-win_amd64.whl#sha256=bb">x</a>
<a href="tensorrt_cu12_libs-10.9.0.34-py2.py3-none-manylinux_2_28_x86_64.whl#sha256=cc">x</a>
<a href="/whl/cpu/torch-2.8.0%2Bcpu-cp310-cp310-manylinux_2_28_x86_64.whl">x</a>
<a href="/whl/cpu/torch-2.8.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl">x</a>
<a href="broken-name.whl">x</a><a href="notes.txt">x</a><a name="no-href">x</a>
"""


@pytest.mark.parametrize(
    ("name", "version", "url", "sha256"),
    [
        (
            "tensorrt-cu12-libs",
            "10.9.0.34",
            "https://h/p/tensorrt_cu12_libs-10.9.0.34-py2.py3-none-manylinux_2_28_x86_64.whl",
            "cc",
        ),
        (
            "torch",
            "2.8.0+cpu",
            "https://h/whl/cpu/torch-2.8.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl",
            None,
        ),
    ],
)
def test_the_wheel_for_this_python_and_platform_is_found(
    name: str, version: str, url: str, sha256: str | None
) -> None:
    link = wheel_of(links_of(PAGE, "https://h/p/"), name, version, "cp311")
    assert link is not None
    assert (link.url, link.sha256) == (url, sha256)


@pytest.mark.parametrize(
    ("name", "version", "python"),
    [("torch", "2.8.0+cpu", "cp312"), ("torch", "2.8.1+cpu", "cp311"), ("tor", "1", "cp311")],
)
def test_what_is_not_listed_is_not_found(name: str, version: str, python: str) -> None:
    assert wheel_of(links_of(PAGE, "https://h/p/"), name, version, python) is None
