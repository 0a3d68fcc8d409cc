"""The local store of files from outside the package index: found, fetched, completed, handed out.

TensorRT's libraries, flash-attn wheels, PyTorch's CPU wheels, a source archive and checkpoints are
downloaded before a build, by hash, and reach it through a folder per step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from builder.artifacts import ArtifactLock
from builder.downloads import discover, fetch
from builder.errors import Finding, InvalidInput
from builder.folders import Folders
from builder.httpclient import open_client
from builder.indexes import asked_indexes
from builder.known import known_artifacts
from builder.lineages import check_lineage
from builder.mirrors import file_of
from builder.simple_index import Link, links_of, wheel_of
from builder.sources import Sources
from builder.spec import Weight
from builder.talk import Talk, human_bytes
from builder.wheelhouse import place, sha256_of

__all__ = ["Store"]

_PAGE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Store:
    """Files by hash below `folders.cache`, and how this machine gets those that are not there."""

    folders: Folders
    sources: Sources
    talk: Talk
    _completed: dict[tuple[ArtifactLock, str], ArtifactLock] = field(
        default_factory=dict, init=False
    )

    def has(self, item: Weight | ArtifactLock) -> bool:
        """Whether the file is here or in a local folder of wheels; its hash is checked at use."""
        if isinstance(item, Weight):
            return self.folders.weight(item).is_file()
        return self._stored(item) is not None or self._given(item) is not None

    def weight(self, weight: Weight) -> Path:
        """Return the checkpoint, whole, verified, and of the lineage that the matrix says.

        SourceUnreachable when it can't be had, InvalidInput when it is another kind of network.
        """
        path = self.folders.weight(weight)
        fetch(
            weight.url,
            path,
            sha256=weight.sha256,
            size=weight.size,
            sources=self.sources,
            talk=self.talk,
        )
        check_lineage(weight, path)
        return path

    def hand_out(self, artifact: ArtifactLock, folder: Path) -> Path:
        """Make `folder` hold the artifact, whole and verified; return it."""
        assert artifact.url is not None
        assert artifact.sha256 is not None
        target = folder / file_of(artifact.url)
        given = self._given(artifact)
        if given is not None and sha256_of(given) == artifact.sha256:
            place(given, target)
            return target
        path = self.folders.file(artifact.sha256, artifact.url)
        fetch(
            artifact.url,
            path,
            sha256=artifact.sha256,
            size=artifact.size,
            sources=self.sources,
            talk=self.talk,
        )
        place(path, target)
        return target

    def complete(self, artifact: ArtifactLock, python: str) -> ArtifactLock:
        """Return an unresolved artifact with the hash of the file that its source serves now.

        `python` is the tag of the row's interpreter, such as `cp311`. A hash that public locks
        agree on is believed before what a server sends: InvalidInput where they differ. What
        several rows need is downloaded once.
        """
        key = (artifact, python)
        if key not in self._completed:
            self._completed[key] = (
                self._promised(artifact) if artifact.url is None else self._found(artifact, python)
            )
        return self._completed[key]

    def _promised(self, artifact: ArtifactLock) -> ArtifactLock:
        """Complete a source archive that the package index serves, by what its page promises.

        The resolver can't lock it: it would run the archive's setup to learn what it requires.
        """
        for sha256 in self._hashes_of(artifact):
            self.talk.line(f"{artifact.name} {artifact.version}: sha256 {sha256}, now locked")
            return artifact.model_copy(update={"sha256": sha256, "status": "single"})
        return artifact

    def _hashes_of(self, artifact: ArtifactLock) -> Iterator[str]:
        def is_it(file: str) -> bool:
            # NVIDIA wrote tensorrt-cu12-10.3.0.tar.gz, and later tensorrt_cu12-10.9.0.34.tar.gz.
            wanted = f"{artifact.name}-{artifact.version}.tar.gz"
            return file.replace("-", "_") == wanted.replace("-", "_")

        for folder in _local_folders(self.sources.find_links):
            yield from (sha256_of(path) for path in folder.glob("*.tar.gz") if is_it(path.name))
        for index in asked_indexes(self.sources):
            for link in self._page(f"{index.rstrip('/')}/{artifact.name}/"):
                if link.sha256 is not None and is_it(file_of(link.url)):
                    yield link.sha256

    def _found(self, artifact: ArtifactLock, python: str) -> ArtifactLock:
        """Complete a file by downloading it."""
        assert artifact.url is not None
        link = self._listed(artifact, python)
        url = link.url if link is not None else artifact.url
        path = discover(url, self.folders.files, sources=self.sources, talk=self.talk)
        sha256 = path.parent.name
        expected = {item.sha256 for item in known_artifacts() if item.file == file_of(url)}
        promised = {link.sha256} if link is not None and link.sha256 is not None else set()
        for source, hashes in (("public locks have", expected), ("its index has", promised)):
            if hashes and sha256 not in hashes:
                path.unlink()
                raise InvalidInput(
                    Finding(
                        place=url,
                        what=f"its sha256 is {sha256}",
                        why=f"For this file {source} {', '.join(sorted(hashes))}.",
                        todo="Find out who serves another file under this name, then lock again.",
                    )
                )
        size = path.stat().st_size
        # A mirror's word alone: nothing that only it says may look like the project's own hash.
        mirrored = not expected and self.sources.mirrors.candidates(url) != (url,)
        by = " from a mirror: compare it with the project's own before you commit the lock"
        self.talk.line(
            f"{file_of(url)}: {human_bytes(size)}, sha256 {sha256}, now locked"
            + (by if mirrored else "")
        )
        status = "mirrored" if mirrored else "computed"
        return artifact.model_copy(
            update={"url": url, "sha256": sha256, "size": size, "status": status}
        )

    def _stored(self, artifact: ArtifactLock) -> Path | None:
        if artifact.sha256 is None or artifact.url is None:
            return None
        path = self.folders.file(artifact.sha256, artifact.url)
        return path if path.is_file() else None

    def _given(self, artifact: ArtifactLock) -> Path | None:
        """A file of the right name and size in one of the local folders of wheels."""
        if artifact.url is None or artifact.sha256 is None:
            return None
        for folder in _local_folders(self.sources.find_links):
            path = folder / file_of(artifact.url)
            if path.is_file() and artifact.size in {None, path.stat().st_size}:
                return path
        return None

    def _listed(self, artifact: ArtifactLock, python: str) -> Link | None:
        """Ask the artifact's index, where it has one, how the file is really called."""
        page = artifact.index_page
        if page is None:
            return None
        link = wheel_of(self._page(page), artifact.name, artifact.version, python)
        if link is None:
            return None
        # Pages of a mirror name the mirror; a lock names the official address.
        assert artifact.url is not None
        folder = artifact.url.rpartition("/")[0]
        return Link(f"{folder}/{urlsplit(link.url).path.rpartition('/')[2]}", link.sha256)

    def _page(self, page: str) -> list[Link]:
        with open_client(self.sources, _PAGE_SECONDS) as client:
            for address in self.sources.mirrors.candidates(page):
                try:
                    answer = client.get(address)
                except httpx.HTTPError:
                    continue
                # A page without links is somebody's login page, or a mirror that has no files.
                if answer.is_success and (links := list(links_of(answer.text, address))):
                    return links
        return []


def _local_folders(find_links: Iterable[str]) -> Iterable[Path]:
    for text in find_links:
        parts = urlsplit(text)
        if parts.scheme in {"", "file"}:
            yield Path(unquote(parts.path)).expanduser()
