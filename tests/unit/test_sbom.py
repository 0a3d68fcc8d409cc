from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from builder.sbom import make_sbom
from tests.unit.documents_support import DIGEST, MISSING, inventory, plan

ROW = "yolov8-cu128"
SECRET = "s3cr3t"


def sbom(root: Path, *, missing: Any = (), change: Any = None) -> dict[str, Any]:
    planned = plan(root, ROW, missing)
    found: dict[str, Any] = json.loads(make_sbom(inventory(planned, change), planned, DIGEST))
    return found


def component(document: dict[str, Any], reference: str) -> dict[str, Any]:
    (found,) = [item for item in document["components"] if item["bom-ref"] == reference]
    assert isinstance(found, dict)
    return found


def properties(item: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in item.get("properties", ())}


def test_it_is_valid_cyclonedx(root: Path) -> None:
    for missing in ((), MISSING):
        planned = plan(root, ROW, missing)
        text = make_sbom(inventory(planned), planned, DIGEST)
        problems = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text, all_errors=True)
        assert problems is None, [str(problem) for problem in problems]


def test_same_image_same_bytes_in_whatever_order_it_answers(root: Path) -> None:
    def shuffle(document: Any) -> None:
        for name in ("debian", "distributions", "checkpoints"):
            document[name].reverse()

    planned = plan(root, ROW)
    texts = {make_sbom(inventory(planned, change), planned, DIGEST) for change in (None, shuffle)}
    assert len(texts) == 1
    other = make_sbom(inventory(planned), planned, "sha256:" + "9" * 64)
    assert json.loads(other)["serialNumber"] != json.loads(texts.pop())["serialNumber"]


def test_no_clock_and_no_revision_in_it(root: Path) -> None:
    first, later = plan(root, ROW), plan(root, ROW, revision="f" * 40, source="https://fork")
    texts = {make_sbom(inventory(planned), planned, DIGEST) for planned in (first, later)}
    assert len(texts) == 1
    assert json.loads(texts.pop())["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"


def test_it_is_about_the_image(root: Path) -> None:
    document = sbom(root, missing=MISSING)
    image = document["metadata"]["component"]
    assert image["type"] == "container"
    assert image["name"] == "yolo-images/yolov8-cu128"
    assert image["version"] == DIGEST
    assert image["purl"] == f"pkg:oci/yolov8-cu128@{DIGEST}?arch=amd64"
    said = properties(image)
    assert said["org.yolo-images.row"] == ROW
    assert said["org.yolo-images.missing"] == "tensorrt,flash-attn,weights"
    assert len(said["org.yolo-images.lock"]) == 64
    assert document["metadata"]["lifecycles"] == [{"phase": "post-build"}]


def test_system_and_debian_packages(root: Path) -> None:
    document = sbom(root)
    assert component(document, "os:debian@12")["type"] == "operating-system"
    libc = component(document, "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=bookworm")
    assert libc["version"] == "2.36-9+deb12u10"
    assert properties(libc) == {"org.yolo-images.source-package": "glibc"}
    # An epoch's colon stays: the purl specification has it so since 2024.
    component(document, "pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64&distro=bookworm")


def test_distributions_have_one_spelling_and_no_pretended_hash(root: Path) -> None:
    jinja = component(sbom(root), "pkg:pypi/jinja2@3.1.6")
    assert jinja["name"] == "jinja2"
    assert "hashes" not in jinja
    assert properties(jinja) == {"org.yolo-images.record-sha256": "b" * 64}


def test_a_vendored_copy_is_told_from_the_real_one(root: Path) -> None:
    found = [item for item in sbom(root)["components"] if item["name"] == "packaging"]
    assert [item["purl"] for item in found] == ["pkg:pypi/packaging@26.3"] * 2
    assert len({item["bom-ref"] for item in found}) == 2
    (vendored,) = [item for item in found if "org.yolo-images.path" in properties(item)]
    assert "/setuptools/_vendor/" in vendored["bom-ref"]


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "wanted"),
    [
        ("MIT", "", [], [{"license": {"id": "MIT"}}]),
        ("", "mit", [], [{"license": {"id": "MIT"}}]),
        (
            "MIT OR Apache-2.0",
            "ignored",
            ["License :: OSI Approved :: MIT License"],
            [{"expression": "MIT OR Apache-2.0"}],
        ),
        ("", "NVIDIA Proprietary", [], [{"license": {"name": "NVIDIA Proprietary"}}]),
        (
            "",
            "Copyright (c) 2025\nall of it",
            ["License :: OSI Approved :: BSD License"],
            [{"license": {"name": "BSD License"}}],
        ),
        ("", "UNKNOWN", [], None),
        ("", "", [], None),
    ],
)
def test_licences(
    root: Path, expression: str, text: str, classifiers: list[str], wanted: Any
) -> None:
    def change(document: Any) -> None:
        document["distributions"][0].update(
            license_expression=expression, license=text, classifiers=classifiers
        )

    said = component(sbom(root, change=change), "pkg:pypi/jinja2@3.1.6").get("licenses")
    for item in said or ():
        assert item.get("license", item).pop("acknowledgement") == "declared"
    assert said == wanted


def test_checkpoints_say_whether_they_are_official(root: Path) -> None:
    official = component(sbom(root), "checkpoint:/opt/yolo/yolov8n.pt")
    assert official["type"] == "machine-learning-model"
    assert official["hashes"][0]["alg"] == "SHA-256"
    assert properties(official)["org.yolo-images.checkpoint"] == "official"
    assert official["externalReferences"][0]["url"].startswith("https://github.com/")
    assert official["licenses"][0]["license"]["id"] == "AGPL-3.0-only"
    random = component(sbom(root, missing=MISSING), "checkpoint:/opt/yolo/yolov8n-random.pt")
    assert properties(random)["org.yolo-images.checkpoint"] == "random"
    assert "externalReferences" not in random
    assert "licenses" not in random


def test_the_graph_has_what_is_installed_and_applies(root: Path) -> None:
    document = sbom(root)
    graph = {item["ref"]: item.get("dependsOn", []) for item in document["dependencies"]}
    assert graph["pkg:pypi/torch@2.8.0"] == ["pkg:pypi/jinja2@3.1.6"]
    assert graph["pkg:pypi/jinja2@3.1.6"] == ["pkg:pypi/markupsafe@3.0.4"]
    image = document["metadata"]["component"]["bom-ref"]
    assert set(graph[image]) == {item["bom-ref"] for item in document["components"]}


def test_a_requirement_that_nobody_can_read_costs_an_edge_only(root: Path) -> None:
    def change(document: Any) -> None:
        document["distributions"][2]["requires"] = ["!!", "jinja2; nonsense == '1'", "jinja2"]

    graph = {
        item["ref"]: item.get("dependsOn", []) for item in sbom(root, change=change)["dependencies"]
    }
    assert graph["pkg:pypi/torch@2.8.0"] == ["pkg:pypi/jinja2@3.1.6"]


@pytest.mark.parametrize(
    "url", [f"https://u:{SECRET}@example.org/a?token={SECRET}#{SECRET}", f"file:///root/{SECRET}"]
)
def test_no_password_of_a_url_gets_into_it(root: Path, url: str) -> None:
    def change(document: Any) -> None:
        document["distributions"][0]["home_page"] = url

    planned = plan(root, ROW)
    assert SECRET not in make_sbom(inventory(planned, change), planned, DIGEST)
