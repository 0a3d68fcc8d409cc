"""The documents beside a build, from real images: honest ones, mute ones, and ones that lie."""

from __future__ import annotations

import json
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from builder import documents
from builder.build import Builder
from builder.commands.building import compatible_rows
from builder.documents import PROVENANCE_FILE, SBOM_FILE, have_documents, write_documents
from builder.engine.client import inspect_image
from builder.errors import BuildFailed
from builder.lock import make_lock
from builder.plan import Plan
from builder.records import BuildRecord, read_record
from builder.sources import Proxies, Sources
from builder.talk import Talk

ROW = "yolov8-fixture"
SECRET = "s3cr3t-in-a-url"
Derived = Callable[[str], BuildRecord]

LISTING = """\
import importlib.metadata, json
print(json.dumps([[d.metadata["Name"], d.version] for d in importlib.metadata.distributions()]))
"""


@pytest.fixture
def builder(
    fixture_builder: Builder, fixture_sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> Builder:
    """A builder of the locked fixture row, on a machine full of secrets."""
    for row in compatible_rows(fixture_builder.folders.root, None):
        make_lock(fixture_builder.folders.locks, row, sources=fixture_sources, talk=lambda _: None)
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"https://user:{SECRET}@mirror.invalid/simple")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    proxy = f"http://user:{SECRET}@127.0.0.1:9"
    sources = replace(
        fixture_sources,
        default_index=f"https://user:{SECRET}@mirror.invalid/simple",
        proxies=Proxies(http=proxy, https=proxy),
    )
    return replace(fixture_builder, sources=sources)


def build(builder: Builder) -> tuple[Plan, BuildRecord]:
    plans = builder.plan(compatible_rows(builder.folders.root, None))
    (record,) = builder.build(plans)
    return plans[0], record


def texts(folder: Path) -> tuple[str, str]:
    return (folder / SBOM_FILE).read_text(), (folder / PROVENANCE_FILE).read_text()


def inside(client: DockerClient, image: str, *argv: str) -> str:
    said = client.containers.run(
        image, list(argv[1:]), entrypoint=argv[0], remove=True, network_mode="none", read_only=True
    )
    return bytes(said).decode()


def test_a_build_leaves_both_documents_and_they_are_true(
    builder: Builder, client: DockerClient
) -> None:
    _, record = build(builder)
    folder = builder.folders.row(ROW)
    assert record.digest is not None
    assert have_documents(folder, record.digest)
    sbom, provenance = map(json.loads, texts(folder))

    found: dict[str, set[tuple[str, str]]] = {"pypi": set(), "deb": set()}
    for item in sbom["components"]:
        kind = item.get("purl", "pkg:/").removeprefix("pkg:").partition("/")[0]
        if kind in found:
            found[kind].add((item["name"], item["version"]))
    listed = json.loads(inside(client, record.reference, "/opt/venv/bin/python", "-c", LISTING))
    assert found["pypi"] == {(name.replace("_", "-"), version) for name, version in listed}
    dpkg = inside(client, record.reference, "dpkg-query", "-W", "-f", "${Package} ${Version}\\n")
    assert found["deb"] == {tuple(line.split()) for line in dpkg.splitlines()}
    assert len(found["deb"]) > 50

    assert provenance["subject"][0]["digest"] == {"sha256": record.digest.removeprefix("sha256:")}
    versions = provenance["predicate"]["runDetails"]["builder"]["version"]
    assert versions["docker"] == client.version()["Version"]
    assert set(versions) >= {"yolo-images", "docker", "buildx", "uv"}


def test_nothing_of_the_machine_is_in_them(builder: Builder) -> None:
    build(builder)
    for text in texts(builder.folders.row(ROW)):
        for private in (SECRET, "mirror.invalid", str(builder.folders.root), str(Path.home())):
            assert private not in text, private
        assert f'"{socket.gethostname()}"' not in text


def test_unchanged_starts_nothing_and_a_lost_document_comes_back_the_same(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(builder)
    folder = builder.folders.row(ROW)
    sbom, provenance = texts(folder)

    def must_not(*_: object) -> Any:
        raise AssertionError("a container was started for nothing")

    with monkeypatch.context() as patched:
        patched.setattr(documents, "take_inventory", must_not)
        assert build(builder)[1].status == "unchanged"

    (folder / SBOM_FILE).unlink()
    assert build(builder)[1].status == "unchanged"
    again, statement = texts(folder)
    assert again == sbom
    # Which tools built the image is not known any more; all else is.
    before, after = json.loads(provenance), json.loads(statement)
    assert before["predicate"]["runDetails"]["builder"].pop("version")
    assert after["predicate"]["runDetails"]["builder"].pop("version") == {}
    assert after == before


@pytest.fixture
def derived(
    builder: Builder, client: DockerClient, tmp_path: Path
) -> Iterator[tuple[Plan, Path, Derived]]:
    """The fixture row with one more step, in the place of what was built."""
    plan, record = build(builder)
    tag = f"yolo-images-test/documents:{uuid.uuid4().hex[:12]}"

    def derive(step: str) -> BuildRecord:
        context = tmp_path / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {record.reference}\nUSER 0\n{step}\n")
        argv = ["docker", "buildx", "build", "--network=none", "--load", "-t", tag, str(context)]
        subprocess.run(argv, check=True, timeout=120)
        digest = inspect_image(client, tag).digest
        return record.model_copy(update={"reference": tag, "digest": digest})

    yield plan, builder.folders.row(ROW), derive
    client.images.remove(tag, force=True)


def in_the_place_of_python(script: str) -> str:
    return f"""\
RUN rm /opt/venv/bin/python
COPY --chmod=755 <<'SCRIPT' /opt/venv/bin/python
#!/bin/sh
{script}
SCRIPT"""


def zeros(count: int) -> str:
    return f"head -c {count} /dev/zero | tr '\\0' 0"


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("RUN rm /opt/venv/bin/python", r"could not be asked(.|\n)*an image of this project has"),
        (in_the_place_of_python(zeros(12_000_000)), r"says too much(.|\n)*12000000 bytes"),
        # The engine keeps the end of so long a log only.
        (in_the_place_of_python(zeros(40_000_000)), "says too much|can't be read"),
        (in_the_place_of_python("printf '\\377\\376'"), "document: Invalid JSON"),
        ("RUN rm /opt/yolo/*.pt", r"checkpoint yolov8n\.pt is planned but not in its image"),
        (
            "RUN sed -i s/bookworm/trixie/ /etc/os-release",
            "stands on debian trixie, the row says debian bookworm",
        ),
    ],
    ids=["no-python", "too-long", "endless", "not-utf-8", "no-checkpoint", "other-suite"],
)
def test_an_image_that_cannot_be_believed_fails_its_row(
    derived: tuple[Plan, Path, Derived], client: DockerClient, step: str, why: str
) -> None:
    plan, folder, derive = derived
    record = derive(step)
    with pytest.raises(BuildFailed, match=why) as caught:
        write_documents(client, plan, record, folder, versions={}, talk=Talk())
    assert {finding.place for finding in caught.value.findings} == {ROW}
    assert not (folder / SBOM_FILE).exists()
    assert not (folder / PROVENANCE_FILE).exists()
    assert read_record(folder / "build.json", BuildRecord) is not None
    assert not client.containers.list(all=True, filters={"ancestor": record.reference})
