"""Plan + build -> provenance: an in-toto statement on what an image was built from, and by what.

Pure: the same records give the same bytes. The statement is not signed here; publishing does that.
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.1/provenance, read 2026-11-25. docs/sbom-and-provenance.md explains ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from builder.inventory import Inventory
from builder.mirrors import public_url
from builder.plan import Plan
from builder.purls import base_purl, debian_purl, pypi_purl, repository
from builder.records import BuildRecord
from builder.requirements import STEPS, Locked, parse_lock

__all__ = ["BUILD_TYPE", "SBOM_FILE", "SBOM_FORMAT", "make_provenance"]

BUILD_TYPE = "urn:yolo-images:build-type:row:v1"
BUILDER_ID = "urn:yolo-images:builder:build.py"
"""Whoever ran build.py. Nobody vouches for that machine: SLSA Build L1 at most."""

SBOM_FILE = "sbom.cdx.json"
SBOM_FORMAT = "1"
"""Raised when an SBOM gets other content for the same image, so that older ones are replaced."""

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_OCI = "org.opencontainers.image"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Descriptor = dict[str, Any]


def make_provenance(
    plan: Plan,
    record: BuildRecord,
    inventory: Inventory,
    *,
    labels: Mapping[str, str],
    versions: Mapping[str, str],
    sbom: str,
) -> str:
    """Return the statement as JSON.

    `labels` are the image's own: its code may be older than this checkout. `versions` are those of
    the tools that built it, empty where that is not known any more; `sbom` is the text beside it.
    ValueError when `record` has no digest.
    """
    if record.digest is None:
        raise ValueError(f"{record.id} was not built: there is nothing to make a statement on")
    name = repository(record.reference)
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": _digest(record.digest)}],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": _definition(plan, inventory, labels),
            "runDetails": _run(record, versions, sbom),
        },
    }
    return json.dumps(statement, indent=2) + "\n"


def _definition(plan: Plan, inventory: Inventory, labels: Mapping[str, str]) -> dict[str, object]:
    revision = labels.get(f"{_OCI}.revision", "unknown")
    source = labels.get(f"{_OCI}.source", "")
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "row": plan.row.id,
            "platform": plan.row.platform,
            "missing": [item.part for item in plan.record.missing],
        },
        "internalParameters": {
            "buildKeyInputs": dict(sorted(plan.inputs.items())),
            "revision": revision,
        },
        "resolvedDependencies": [
            *_checkout(source, revision),
            _base(plan),
            *_debian(inventory),
            *_distributions(plan),
            *_checkpoints(plan),
        ],
    }


def _run(record: BuildRecord, versions: Mapping[str, str], sbom: str) -> dict[str, object]:
    finished = datetime.fromisoformat(record.finished).astimezone(timezone.utc)
    started = finished - timedelta(seconds=record.seconds)
    return {
        "builder": {"id": BUILDER_ID, "version": dict(sorted(versions.items()))},
        "metadata": {
            "invocationId": record.build_key,
            "startedOn": _time(started),
            "finishedOn": _time(finished),
        },
        "byproducts": [
            {
                "name": SBOM_FILE,
                "digest": {"sha256": hashlib.sha256(sbom.encode()).hexdigest()},
                "mediaType": "application/vnd.cyclonedx+json",
                "annotations": {"format": SBOM_FORMAT},
            }
        ],
    }


def _checkout(source: str, revision: str) -> Iterator[Descriptor]:
    """Yield the commit; nothing for a checkout with changes, which no commit describes."""
    if _COMMIT.fullmatch(revision):
        url = public_url(source)
        uri = {"uri": f"git+{url}@{revision}"} if url else {}
        yield {"name": "checkout", **uri, "digest": {"gitCommit": revision}}


def _base(plan: Plan) -> Descriptor:
    digest = _digest(plan.base.digest)
    if plan.base.source == "bootstrap":
        return {"name": f"rootfs.tar of debian {plan.row.stack.suite}", "digest": digest}
    purl = base_purl(plan.base_repository, plan.base.digest)
    return {"name": plan.base_repository, "uri": str(purl), "digest": digest}


def _debian(inventory: Inventory) -> Iterator[Descriptor]:
    """Yield the packages of the base and those installed on it; dpkg keeps no hash of any."""
    for package in sorted(inventory.debian, key=lambda item: (item.name, item.architecture)):
        yield {"uri": str(debian_purl(package, inventory.os))}


def _distributions(plan: Plan) -> Iterator[Descriptor]:
    # The requirements of a step name files that were downloaded before; the lock has the addresses.
    urls = {item.name: item.url for item in plan.artifacts if item.url is not None}
    compiled = plan.record.compiled
    for entry in sorted(_locked(plan), key=lambda entry: entry.name):
        version = plan.record.packages[entry.name]
        if compiled is None or entry.name != compiled.name:
            yield _distribution(entry, version, public_url(urls.get(entry.name, "")))
    if compiled is not None:
        known = {"digest": {"sha256": compiled.sha256}} if compiled.sha256 else {}
        uri = str(pypi_purl(compiled.name, compiled.version))
        yield {"uri": uri, **known, "annotations": {"compiledFrom": compiled.key}}


def _locked(plan: Plan) -> tuple[Locked, ...]:
    """Parse the requirements; the line of a wheel whose compilation is gone has no hash."""
    lines = [line for step in STEPS for line in plan.requirements[step].splitlines(keepends=True)]
    compiled = plan.record.compiled
    if compiled is not None and compiled.sha256 is None:
        lines = [line for line in lines if not line.startswith(f"{compiled.name} @ ")]
    return parse_lock("".join(lines))


def _distribution(entry: Locked, version: str, url: str) -> Descriptor:
    descriptor: Descriptor = {"uri": str(pypi_purl(entry.name, version, url))}
    if len(entry.hashes) == 1:
        descriptor["digest"] = {"sha256": entry.hashes[0]}
    else:
        # A digest set is several hashes of one file; a lock allows one of several files.
        descriptor["annotations"] = {"oneOfSha256": sorted(entry.hashes)}
    if url:
        descriptor["downloadLocation"] = url
    return descriptor


def _checkpoints(plan: Plan) -> Iterator[Descriptor]:
    for weight in plan.official_weights:
        url = public_url(weight.url)
        uri = {"uri": url, "downloadLocation": url} if url else {}
        yield {"name": weight.name, **uri, "digest": {"sha256": weight.sha256}}


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value}


def _time(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
