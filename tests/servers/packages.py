"""Small wheels, sdists and archives: real formats, a few bytes of content.

Times and owners are fixed, so the same arguments give the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

__all__ = ["sdist", "tar_gz", "wheel"]


def wheel(
    name: str,
    version: str,
    files: Mapping[str, str],
    *,
    tag: str = "py3-none-any",
    local: str = "",
    requires: Iterable[str] = (),
) -> tuple[str, bytes]:
    """Return file name and content. `local` is in the file's name only, as in flash-attn's."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Requires-Dist: {requirement}\n" for requirement in requires]
    pure = "true" if tag.endswith("-any") else "false"
    content = {
        **files,
        f"{info}/METADATA": "".join(metadata),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {pure}\nTag: {tag}\n",
    }
    record = "".join(f"{file},{_record_hash(text)},{len(text)}\n" for file, text in content.items())
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for file, text in {**content, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    full = f"{version}+{local}" if local else version
    return f"{name}-{full}-{tag}.whl", target.getvalue()


def sdist(name: str, version: str, files: Mapping[str, str]) -> tuple[str, bytes]:
    """Return file name and content of a source distribution."""
    stem = f"{name}-{version}"
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return f"{stem}.tar.gz", tar_gz(stem, {**files, "PKG-INFO": info})


def tar_gz(top: str, files: Mapping[str, str]) -> bytes:
    """Return an archive with all files below the folder `top`."""
    target = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path, text in files.items():
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return target.getvalue()


def _record_hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return "sha256=" + digest.rstrip(b"=").decode()
