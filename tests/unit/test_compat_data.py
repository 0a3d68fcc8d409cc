"""The data: valid, consistent with each other, and what the generator makes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from packaging.version import Version

from builder.compat import document
from builder.compat.facts import load, ordered
from builder.compat.generate import FLOORS, generate, main, render
from builder.compat.package_index import PackageIndex

_DATA = Path(document.__file__).parent / "data"
_RECORDED = Path(__file__).parent / "recorded" / "package_index.json"
FILES = sorted(path.stem for path in _DATA.glob("*.json") if path.stem != "schema")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_its_schema_says(name: str) -> None:
    schema = json.loads((_DATA / "schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
    )
    assert [error.message for error in validator.iter_errors(load(name))] == []


def test_curated_and_generated_data_agree_on_torch() -> None:
    for version in ordered("torch"):
        index = load("index")["torch"][str(version)]["x86_64"]
        builds = load("torch")["releases"][str(version)]["builds"]
        assert index["cuda"] in builds, version


def test_every_tensorrt_release_has_bindings_listed() -> None:
    listed = {Version(key.partition(" ")[2]) for key in load("index")["tensorrt_bindings"]}
    assert {v for v in ordered("tensorrt") if v >= Version("10")} <= listed


def _recorded(recorded: dict[str, Any]) -> PackageIndex:
    """An index that gives the answers that were recorded, with what nobody reads left out."""

    def answer(request: httpx.Request) -> httpx.Response:
        *_, last = (part for part in request.url.path.split("/") if part)
        if last.endswith(".metadata"):
            lines = recorded["requires"][last.removesuffix(".metadata")]
            return httpx.Response(200, text="".join(f"Requires-Dist: {line}\n" for line in lines))
        files = [
            {
                "filename": name,
                "requires-python": python,
                "yanked": yanked or False,
                "url": f"https://index.invalid/files/{name}",
            }
            for name, python, yanked in recorded["files"][last]
        ]
        return httpx.Response(200, json={"files": files})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    return PackageIndex("https://index.invalid/simple", client)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(_RECORDED.read_text("utf-8"))
    return answers


def test_the_committed_table_is_what_the_generator_makes(recorded: dict[str, Any]) -> None:
    made = render(generate(_recorded(recorded)))
    assert made == (_DATA / "index.json").read_text("utf-8")


def test_a_shrunken_index_is_refused(recorded: dict[str, Any]) -> None:
    torch = [row for row in recorded["files"]["torch"] if not row[0].startswith("torch-2.8.0")]
    fewer = {**recorded, "files": {**recorded["files"], "torch": torch}}
    with pytest.raises(ValueError, match=f"torch: 27 entries, expected at least {FLOORS['torch']}"):
        generate(_recorded(fewer))


def test_a_difference_is_shown_and_written_on_demand(
    recorded: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "index.json"
    old = (_DATA / "index.json").read_text("utf-8").replace('"8.4.190": null', '"8.4.190": "old"')
    output.write_text(old, encoding="utf-8")
    arguments = ["--output", str(output)]
    assert main(arguments, connect=lambda: _recorded(recorded)) == 1
    shown = capsys.readouterr().out.splitlines()
    assert '-    "8.4.190": "old"' in shown
    assert '+    "8.4.190": null' in shown
    assert len(shown) == 5
    assert output.read_text("utf-8") == old
    assert main([*arguments, "--write"], connect=lambda: _recorded(recorded)) == 0
    assert main(arguments, connect=lambda: _recorded(recorded)) == 0


def test_metadata_is_read_out_of_the_wheel_where_the_index_has_none() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("big.bin", bytes(range(256)) * 4000)
        archive.writestr("torch-2.9.0.dist-info/METADATA", "Name: torch\nRequires-Dist: a==1\n")
    wheel = buffer.getvalue()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(".metadata"):
            return httpx.Response(404)
        if "Range" not in request.headers:
            name = "torch-2.9.0-cp311-cp311-manylinux_2_28_x86_64.whl"
            return httpx.Response(200, json={"files": [{"filename": name, "url": "https://i/w"}]})
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        part = wheel[int(first) : int(last) + 1]
        headers = {"Content-Range": f"bytes {first}-{last}/{len(wheel)}"}
        return httpx.Response(206, content=part, headers=headers)

    index = PackageIndex("https://i/simple", httpx.Client(transport=httpx.MockTransport(answer)))
    (file,) = index.wheels("torch")
    assert index.requires(file) == ["a==1"]


def test_the_committed_page_is_current() -> None:
    assert document.main([]) == 0


def test_the_page_names_what_clashes_in_the_advertised_combination() -> None:
    page = document.document()
    for words in ("FlashAttention-2 needs Ampere", "yolo12n.pt needs ultralytics 8.3.78"):
        assert words in page
