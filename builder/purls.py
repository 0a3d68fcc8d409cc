"""Package URLs: one name for a thing in every document, https://github.com/package-url/purl-spec.

The rules of each type are in its definition there (`types/`, read 2026-11-25).
"""

from __future__ import annotations

from packageurl import PackageURL
from packaging.utils import canonicalize_name

from builder.inventory import DebianPackage, OperatingSystem

__all__ = ["base_purl", "debian_purl", "image_purl", "pypi_purl", "repository"]


def pypi_purl(name: str, version: str, download_url: str = "") -> PackageURL:
    """`pkg:pypi/torch@2.8.0`: a distribution of the package index.

    One from elsewhere says so: the index has other files, or other code, under its name.
    """
    qualifiers = {"download_url": download_url} if download_url else None
    return PackageURL(
        type="pypi", name=canonicalize_name(name), version=version, qualifiers=qualifiers
    )


def debian_purl(package: DebianPackage, system: OperatingSystem) -> PackageURL:
    """`pkg:deb/debian/apt@2.6.2?arch=amd64&distro=bookworm`."""
    return PackageURL(
        type="deb",
        namespace=system.id,
        name=package.name,
        version=package.version,
        qualifiers={"arch": package.architecture, "distro": system.codename or system.version},
    )


def image_purl(reference: str, digest: str, platform: str) -> PackageURL:
    """`pkg:oci/yolov8-cu128@sha256:...?arch=amd64`: the last part of the repository, no tag.

    Where it was pushed to is left out: the same digest may lie in many registries.
    """
    return PackageURL(
        type="oci",
        name=repository(reference).rpartition("/")[2],
        version=digest,
        qualifiers={"arch": platform.partition("/")[2]},
    )


def base_purl(repository_url: str, digest: str) -> PackageURL:
    """`pkg:oci/debian@sha256:...?repository_url=docker.io/library/debian`."""
    return PackageURL(
        type="oci",
        name=repository_url.rpartition("/")[2],
        version=digest,
        qualifiers={"repository_url": repository_url},
    )


def repository(reference: str) -> str:
    """Return the reference without its tag; a port is not a tag."""
    head, colon, tail = reference.rpartition(":")
    return head if colon and "/" not in tail else reference
