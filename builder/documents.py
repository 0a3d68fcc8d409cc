"""BuildRecord -> SBOM and provenance beside it, ready to be attached to the digest.

Both are about one digest. They are written together, after one look into the image, and name each
other's content: a damaged, older or missing one is noticed by `have_documents` and written anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from docker import DockerClient

from builder.engine.client import ImageFacts, inspect_image
from builder.errors import BuildFailed, Finding, InvalidInput
from builder.inventory import take_inventory
from builder.plan import Plan
from builder.provenance import BUILD_TYPE, SBOM_FILE, SBOM_FORMAT, make_provenance
from builder.records import BuildRecord, write_atomic
from builder.talk import Talk, human_seconds

__all__ = ["PROVENANCE_FILE", "SBOM_FILE", "have_documents", "write_documents"]

PROVENANCE_FILE = "provenance.json"


def have_documents(folder: Path, digest: str) -> bool:
    """Whether `folder` holds both documents of `digest`, whole and in today's form."""
    try:
        sbom = (folder / SBOM_FILE).read_bytes()
        statement = json.loads((folder / PROVENANCE_FILE).read_bytes())
        predicate = statement["predicate"]
        (byproduct,) = predicate["runDetails"]["byproducts"]
        found = (
            statement["subject"][0]["digest"]["sha256"],
            byproduct["digest"]["sha256"],
            byproduct["annotations"]["format"],
            predicate["buildDefinition"]["buildType"],
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False
    content = hashlib.sha256(sbom).hexdigest()
    return found == (digest.removeprefix("sha256:"), content, SBOM_FORMAT, BUILD_TYPE)


def write_documents(
    client: DockerClient,
    plan: Plan,
    record: BuildRecord,
    folder: Path,
    *,
    versions: Mapping[str, str],
    talk: Talk,
) -> None:
    """Look into the image of `record` and write both documents to `folder`.

    `versions` are those of the tools that built it, empty where they are not known any more.
    BuildFailed when the image can't be asked, contradicts the plan, or a file can't be written; no
    document of an older image is left then. EngineLost when the engine went away.
    """
    # Imported here: it takes 0.2 s, which a build that finds everything unchanged has no use for.
    from builder.sbom import make_sbom  # noqa: PLC0415

    begun = time.monotonic()
    try:
        for name in (SBOM_FILE, PROVENANCE_FILE):
            (folder / name).unlink(missing_ok=True)
        image = _image(client, record)
        inventory = take_inventory(client, image, plan, folder / "logs" / "inventory.log")
        sbom = make_sbom(inventory, plan, image.digest)
        provenance = make_provenance(
            plan, record, inventory, labels=image.labels, versions=versions, sbom=sbom
        )
        write_atomic(folder / SBOM_FILE, sbom)
        write_atomic(folder / PROVENANCE_FILE, provenance)
    except OSError as error:
        raise BuildFailed(
            Finding(
                place=record.id,
                what=f"its SBOM and provenance can't be written: {error}",
                why="The image itself is built.",
                todo="Make room or correct the folder's owner, and build again.",
            )
        ) from error
    talk.line(
        f"{record.id}: SBOM ({len(inventory.distributions)} Python distributions, "
        f"{len(inventory.debian)} Debian packages) and provenance in "
        f"{human_seconds(time.monotonic() - begun)}"
    )


def _image(client: DockerClient, record: BuildRecord) -> ImageFacts:
    try:
        image = inspect_image(client, record.reference)
    except InvalidInput as error:
        raise BuildFailed(*error.findings) from error
    if image.digest != record.digest:
        raise BuildFailed(
            Finding(
                place=record.id,
                what=f"{record.reference} is {image.digest}, built was {record.digest}",
                why="Something else was given that tag in the meantime.",
                todo="Build the row again.",
            )
        )
    return image
