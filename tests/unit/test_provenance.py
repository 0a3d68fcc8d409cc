from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from builder.mirrors import public_url
from builder.plan import Plan
from builder.provenance import BUILD_TYPE, make_provenance
from builder.records import CompiledRecord
from builder.requirements import parse_lock
from tests.unit.documents_support import DIGEST, MISSING, REVISION, inventory, plan, record

ROW = "yolov12-cu128"
VERSIONS = {"uv": "0.13.9", "docker": "26.1.5"}


def statement(planned: Plan, labels: dict[str, str] | None = None, **changes: object) -> str:
    return make_provenance(
        planned,
        record(planned, **changes),
        inventory(planned),
        labels=planned.record.labels if labels is None else labels,
        versions=VERSIONS,
        sbom="{}\n",
    )


def dependencies(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert isinstance(found, list)
    return found


def by_uri(text: str) -> dict[str, dict[str, Any]]:
    return {item["uri"]: item for item in dependencies(text) if "uri" in item}


def test_it_is_a_statement_on_the_digest(root: Path) -> None:
    said = json.loads(statement(plan(root, ROW)))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert said["subject"] == [{"name": f"yolo-images/{ROW}", "digest": {"sha256": "a" * 64}}]
    definition = said["predicate"]["buildDefinition"]
    assert definition["buildType"] == BUILD_TYPE
    assert definition["externalParameters"] == {
        "row": ROW,
        "platform": "linux/amd64",
        "missing": [],
    }


def test_it_says_who_built_when_and_with_what(root: Path) -> None:
    planned = plan(root, ROW)
    run = json.loads(statement(planned))["predicate"]["runDetails"]
    assert run["builder"]["version"] == VERSIONS
    assert run["metadata"] == {
        "invocationId": planned.record.build_key,
        "startedOn": "2026-11-25T02:46:34Z",
        "finishedOn": "2026-11-25T02:49:44Z",
    }
    assert run["byproducts"][0]["digest"] == {"sha256": hashlib.sha256(b"{}\n").hexdigest()}


def test_times_are_utc_wherever_the_record_was_written(root: Path) -> None:
    said = json.loads(statement(plan(root, ROW), finished="2026-11-25T04:49:44+02:00"))
    assert said["predicate"]["runDetails"]["metadata"]["finishedOn"] == "2026-11-25T02:49:44Z"


def test_same_record_same_bytes(root: Path) -> None:
    assert statement(plan(root, ROW)) == statement(plan(root, ROW), status="unchanged")


def test_the_build_key_can_be_computed_from_it(root: Path) -> None:
    planned = plan(root, ROW)
    definition = json.loads(statement(planned))["predicate"]["buildDefinition"]
    inputs = definition["internalParameters"]["buildKeyInputs"]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    assert key == planned.record.build_key


def test_every_locked_distribution_is_there_with_its_hashes(root: Path) -> None:
    planned = plan(root, ROW)
    found = {uri.partition("?")[0]: item for uri, item in by_uri(statement(planned)).items()}
    for text in planned.requirements.values():
        for entry in parse_lock(text):
            item = found[f"pkg:pypi/{entry.name}@{planned.record.packages[entry.name]}"]
            one = {item["digest"]["sha256"]} if "digest" in item else set()
            assert one | set(item.get("annotations", {}).get("oneOfSha256", ())) == set(
                entry.hashes
            )
    packages = {uri for uri in found if uri.startswith("pkg:pypi/")}
    assert len(packages) == len(planned.record.packages)


def test_a_file_by_url_is_named_by_its_official_address(root: Path) -> None:
    planned = plan(root, ROW)
    found = by_uri(statement(planned))
    (uri,) = (uri for uri in found if uri.startswith("pkg:pypi/tensorrt-cu12-libs@10.9.0.34"))
    # The index has another file under this name, a stub: the name alone would be that one's.
    assert uri.partition("?")[2].startswith("download_url=https://pypi.nvidia.com/")
    libraries = found[uri]
    assert libraries["downloadLocation"].startswith("https://pypi.nvidia.com/")
    assert len(libraries["digest"]["sha256"]) == 64
    assert "file:" not in statement(planned)


@pytest.mark.parametrize("sha256", ["b" * 64, None])
def test_a_wheel_compiled_here_is_told_by_what_it_is_made_from(
    root: Path, sha256: str | None
) -> None:
    planned = plan(root, ROW)
    made = {"name": "flash-attn", "version": "2.8.3+own", "key": "c" * 64, "sha256": sha256}
    compiled = CompiledRecord.model_validate({**made, "architectures": ["sm_90"]})
    line = "flash-attn @ file:///run/wheelhouse/flash_attn.whl"
    text = f"{line} \\\n    --hash=sha256:{sha256}\n" if sha256 else f"{line}\n"
    own = dataclasses.replace(
        planned,
        record=planned.record.model_copy(update={"compiled": compiled}),
        requirements={**planned.requirements, "flash-attn": text},
    )
    (found,) = [item for uri, item in by_uri(statement(own)).items() if "flash-attn" in uri]
    assert found["uri"] == "pkg:pypi/flash-attn@2.8.3%2Bown"
    assert found["annotations"] == {"compiledFrom": "c" * 64}
    assert found.get("digest") == ({"sha256": sha256} if sha256 else None)


def test_missing_parts_are_parameters_and_no_dependencies(root: Path) -> None:
    text = statement(plan(root, ROW, MISSING))
    parameters = json.loads(text)["predicate"]["buildDefinition"]["externalParameters"]
    assert parameters["missing"] == ["tensorrt", "flash-attn", "weights"]
    assert not [uri for uri in by_uri(text) if "tensorrt" in uri or "flash" in uri]
    assert not [item for item in dependencies(text) if item.get("name", "").endswith(".pt")]


def test_official_checkpoints_are_dependencies(root: Path) -> None:
    planned = plan(root, ROW)
    found = {item.get("name"): item for item in dependencies(statement(planned))}
    for weight in planned.official_weights:
        assert found[weight.name]["digest"] == {"sha256": weight.sha256}
        assert found[weight.name]["downloadLocation"] == weight.url


def test_the_base_by_digest_and_the_base_from_packages(root: Path) -> None:
    digest = "sha256:" + "d" * 64
    registry = by_uri(statement(plan(root, ROW)))
    uri = f"pkg:oci/debian@{digest}?repository_url=docker.io/library/debian"
    assert registry[uri]["digest"] == {"sha256": "d" * 64}
    text = statement(plan(root, ROW, base_source="bootstrap"))
    assert {"name": "rootfs.tar of debian bookworm", "digest": {"sha256": "d" * 64}} in (
        dependencies(text)
    )
    assert "pkg:deb/debian/apt@2.6.2?arch=amd64&distro=bookworm" in by_uri(text)


def test_the_commit_is_that_of_the_image_not_of_the_checkout(root: Path) -> None:
    planned = plan(root, ROW)
    labels = {**planned.record.labels, "org.opencontainers.image.revision": "e" * 40}
    text = statement(planned, labels)
    uri = "git+https://example.org/yolo-images@" + "e" * 40
    assert by_uri(text)[uri]["digest"] == {"gitCommit": "e" * 40}
    assert REVISION not in text


@pytest.mark.parametrize("revision", [f"{REVISION}-dirty", "unknown", ""])
def test_changes_that_no_commit_has_are_not_called_a_commit(root: Path, revision: str) -> None:
    text = statement(plan(root, ROW, revision=revision))
    assert "gitCommit" not in text
    parameters = json.loads(text)["predicate"]["buildDefinition"]["internalParameters"]
    assert parameters["revision"] == revision


def test_every_dependency_can_be_found(root: Path) -> None:
    """A ResourceDescriptor needs a uri, a digest or content; all but Debian's have a digest."""
    for planned in (plan(root, ROW), plan(root, ROW, MISSING, source="", base_source="bootstrap")):
        for item in dependencies(statement(planned)):
            assert item.get("uri") or item.get("digest"), item
            if not item.get("uri", "").startswith("pkg:deb/"):
                assert item.get("digest") or item["annotations"]["oneOfSha256"], item


def test_nothing_of_this_machine_and_no_secret(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:s3cr3t@mirror.corp/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s3cr3t@proxy.corp:3128")
    planned = plan(root, ROW, source="https://user:s3cr3t@example.org/yolo-images?token=s3cr3t")
    poisoned = dataclasses.replace(
        planned,
        official_weights=tuple(
            dataclasses.replace(weight, url="https://u:s3cr3t@host/a.pt?key=s3cr3t")
            for weight in planned.official_weights
        ),
        artifacts=tuple(
            artifact.model_copy(update={"url": "https://u:s3cr3t@host/a.whl?key=s3cr3t"})
            for artifact in planned.artifacts
        ),
    )
    text = statement(poisoned, log=f"{root}/out/build.log", error=f"on {socket.gethostname()}")
    for secret in (
        "s3cr3t",
        ".corp",
        "user:",
        str(root),
        "build.log",
        f"on {socket.gethostname()}",
    ):
        assert secret not in text, secret


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://u:p@example.org:8443/a%2Bb.whl?x=1#y", "https://example.org:8443/a%2Bb.whl"),
        ("file:///run/wheelhouse/a.whl", ""),
        ("git@example.org:a/b.git", ""),
        ("", ""),
    ],
)
def test_public_url(url: str, public: str) -> None:
    assert public_url(url) == public


def test_a_failed_build_has_no_provenance(root: Path) -> None:
    with pytest.raises(ValueError, match="was not built"):
        statement(plan(root, ROW), digest=None, status="failed")
    assert DIGEST in str(record(plan(root, ROW)).digest)
