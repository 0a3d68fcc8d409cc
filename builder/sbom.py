"""Inventory -> SBOM: CycloneDX 1.6 JSON, the same bytes for the same digest.

Pure: the serial number is made from the digest and the time is that of the layers. Everything comes
from what the image said, beside which checkpoint is official: that is the plan's to know.
https://cyclonedx.org/docs/1.6/json/, read 2026-11-25.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packaging.markers import InvalidMarker, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.inventory import Checkpoint, DebianPackage, Distribution, Inventory, OperatingSystem
from builder.mirrors import public_url
from builder.plan import EPOCH, Plan
from builder.purls import debian_purl, image_purl, pypi_purl, repository

__all__ = ["make_sbom"]

_OWN = "org.yolo-images"
_DECLARED = LicenseAcknowledgement.DECLARED


def make_sbom(inventory: Inventory, plan: Plan, digest: str) -> str:
    """Return the document as JSON: the image, its system, packages, distributions, checkpoints."""
    image = _image(plan, digest)
    system = _system(inventory.os)
    urls = {item.name: public_url(item.url) for item in plan.artifacts if item.url is not None}
    distributions = {
        item: _distribution(item, urls.get(item.key, "") if item.importable else "")
        for item in inventory.distributions
    }
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, str(image.purl)),
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(EPOCH, tz=timezone.utc),
            component=image,
            tools=ToolRepository(
                components=[Component(type=ComponentType.APPLICATION, name="yolo-images")]
            ),
            lifecycles=[PredefinedLifecycle(LifecyclePhase.POST_BUILD)],
            properties=_properties({"python": inventory.python}),
        ),
        components=[
            system,
            *(_debian(item, inventory.os) for item in inventory.debian),
            *distributions.values(),
            *(_checkpoint(item, plan) for item in inventory.checkpoints),
        ],
    )
    bom.register_dependency(image, bom.components)
    for item, needed in _edges(inventory):
        bom.register_dependency(distributions[item], [distributions[other] for other in needed])
    output = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return output.output_as_string(indent=2) + "\n"


def _image(plan: Plan, digest: str) -> Component:
    purl = image_purl(plan.record.reference, digest, plan.row.platform)
    return Component(
        type=ComponentType.CONTAINER,
        name=repository(plan.record.reference),
        version=digest,
        purl=purl,
        bom_ref=str(purl),
        properties=_properties(
            {
                "row": plan.row.id,
                "lock": plan.record.labels[f"{_OWN}.lock"],
                "missing": plan.record.labels[f"{_OWN}.missing"],
            }
        ),
    )


def _system(system: OperatingSystem) -> Component:
    return Component(
        type=ComponentType.OPERATING_SYSTEM,
        name=system.id,
        version=system.version,
        description=system.name or None,
        bom_ref=f"os:{system.id}@{system.version}",
        external_references=_website(system.home),
        properties=_properties({"codename": system.codename}),
    )


def _debian(package: DebianPackage, system: OperatingSystem) -> Component:
    purl = debian_purl(package, system)
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=str(purl),
        properties=_properties({"source-package": package.source}),
    )


def _distribution(item: Distribution, download_url: str) -> Component:
    purl = pypi_purl(item.name, item.version, download_url)
    return Component(
        type=ComponentType.LIBRARY,
        name=item.key,
        version=item.version,
        purl=purl,
        # The same version may lie inside another one as well; a reference names one of them.
        bom_ref=str(purl) if item.importable else f"{purl}#{item.path}",
        licenses=_licenses(item),
        external_references=_website(item.home_page),
        properties=_properties(
            {
                # Not a hash of the component: a wheel's is not that of what it became here.
                "record-sha256": item.record_sha256 or "",
                "path": "" if item.importable else item.path,
            }
        ),
    )


def _checkpoint(item: Checkpoint, plan: Plan) -> Component:
    official = {weight.name: weight for weight in plan.official_weights}.get(item.file)
    url = public_url(official.url) if official else ""
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=item.file,
        bom_ref=f"checkpoint:{item.path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=item.sha256)],
        licenses=[_license(official.licence)] if official else [],
        external_references=[
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(url))
        ]
        if url
        else [],
        properties=_properties(
            {
                "checkpoint": "official" if official else "random",
                "path": item.path,
                "size-bytes": str(item.size),
            }
        ),
    )


def _properties(values: Mapping[str, str]) -> list[Property]:
    return [Property(name=f"{_OWN}.{name}", value=value) for name, value in values.items() if value]


def _website(url: str) -> list[ExternalReference]:
    public = public_url(url)
    if not public:
        return []
    return [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(public))]


def _licenses(item: Distribution) -> list[License]:
    """What the metadata declares: an SPDX id or expression, else a name, else the classifiers."""
    for said in (item.license_expression, item.license):
        # Some put the whole text of the licence there; its first line is no name.
        if said and "\n" not in said and said != "UNKNOWN":
            return [_license(said)]
    names = {line.rpartition(" :: ")[2] for line in item.classifiers}
    return [DisjunctiveLicense(name=name, acknowledgement=_DECLARED) for name in sorted(names)]


def _license(said: str) -> License:
    return LicenseFactory().make_from_string(said, license_acknowledgement=_DECLARED)


def _edges(inventory: Inventory) -> Iterator[tuple[Distribution, list[Distribution]]]:
    """Yield what each distribution needs, as far as it is installed."""
    installed = {item.key: item for item in inventory.distributions if item.importable}
    environment = _environment(inventory)
    for item in installed.values():
        names = set(_needed(item.requires, environment))
        yield item, [installed[name] for name in sorted(names & installed.keys())]


def _needed(requires: Iterable[str], environment: Mapping[str, str]) -> Iterator[str]:
    for text in requires:
        try:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate(dict(environment)):
                yield str(canonicalize_name(need.name))
        except (InvalidRequirement, InvalidMarker, UndefinedEnvironmentName):
            # The validator's check C02 reports these; an edge less is all that it costs here.
            continue


def _environment(inventory: Inventory) -> dict[str, str]:
    """The image's PEP 508 environment, where this machine's would be wrong."""
    return {
        "extra": "",
        "implementation_name": "cpython",
        "implementation_version": inventory.python,
        "os_name": "posix",
        "platform_machine": inventory.machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": inventory.python,
        "python_version": ".".join(inventory.python.split(".")[:2]),
        "sys_platform": "linux",
    }
