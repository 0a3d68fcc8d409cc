"""What the toolkit left in the engine: find it by our labels and names, and remove only that."""

from __future__ import annotations

from collections.abc import Iterator

import requests
from docker import DockerClient
from docker.errors import APIError, NotFound

from builder.engine.client import engine_errors
from builder.engine.containers import TOOLKIT_LABEL

__all__ = ["remove_build_cache", "remove_containers", "remove_images", "tags_of"]

_ROW_LABEL = "org.yolo-images.row"


def remove_containers(client: DockerClient) -> int:
    """Remove the containers that carry our label, running ones too; return how many."""
    removed = 0
    found = client.containers.list(all=True, filters={"label": TOOLKIT_LABEL}, ignore_removed=True)
    for container in found:
        try:
            container.remove(force=True, v=True)
            removed += 1
        except NotFound:  # it ended by itself in the meantime
            continue
    return removed


def remove_images(client: DockerClient, prefix: str) -> tuple[list[str], list[str]]:
    """Remove our tags; return the removed ones, and a line for each one that had to stay.

    The label alone is not enough: an image that a user builds on ours inherits it. Ours have a name
    that starts with `prefix`.
    """
    removed, left = [], []
    for tag in sorted(_our_tags(client, prefix)):
        try:
            client.images.remove(tag)
            removed.append(tag)
        except APIError as error:
            if error.status_code != requests.codes.conflict:
                raise
            left.append(f"{tag}: {error.explanation}")
    return removed, left


def _our_tags(client: DockerClient, prefix: str) -> Iterator[str]:
    for image in client.images.list(filters={"label": _ROW_LABEL}):
        yield from (tag for tag in image.tags if tag.startswith(prefix))


def tags_of(client: DockerClient, repository: str) -> list[str]:
    """Return all tags of a repository in the engine, as references."""
    with engine_errors(f"listing the tags of {repository}"):
        images = client.images.list(name=repository)
    found = (tag for image in images for tag in image.tags)
    return sorted(tag for tag in found if tag.rpartition(":")[0] == repository)


def remove_build_cache(client: DockerClient) -> int:
    """Empty the engine's build cache, whoever filled it; return the bytes it gave back."""
    return int(client.api.prune_builds(all=True).get("SpaceReclaimed") or 0)
