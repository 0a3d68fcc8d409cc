"""The connection to the container engine, and what an image says without being started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker import DockerClient
from docker.context import Context, ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from builder.errors import EngineUnavailable, Finding, InvalidInput

__all__ = [
    "LOCAL_HOST",
    "ContainerLost",
    "EngineLost",
    "EngineTrouble",
    "ImageFacts",
    "Layer",
    "Machine",
    "StartRefused",
    "connect",
    "engine_errors",
    "engine_host",
    "engine_machine",
    "engine_version",
    "inspect_image",
]

# Longest silence of the engine on one call. Creating a container of a 12 GB image right after a
# build can take tens of seconds while the disk is still busy.
CALL_TIMEOUT = 180
LOCAL_HOST = "unix:///var/run/docker.sock"


class EngineTrouble(Exception):
    """The engine or the host failed, not the image."""


class EngineLost(EngineTrouble):
    """The engine does not answer any more."""


class StartRefused(EngineTrouble):
    """The engine would not create or start the container."""


class ContainerLost(EngineTrouble):
    """The container ended or vanished while it was in use; `oom` when it hit its memory limit."""

    def __init__(self, message: str, *, oom: bool = False) -> None:
        super().__init__(message)
        self.oom = oom


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One step of the image's history: the command that made it, and its unpacked bytes."""

    command: str
    size: int


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What `docker image inspect` and `docker image history` say.

    `size` is what the engine calls the size: with the containerd image store the compressed bytes
    of all content (what a registry transfers), with the classic store the unpacked bytes. `id` is
    what containers are made from: it can't move as a tag can.
    """

    reference: str
    id: str
    digest: str
    platform: str
    size: int
    labels: Mapping[str, str]
    env: Mapping[str, str]
    user: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    workdir: str
    healthcheck: tuple[str, ...]
    layers: tuple[Layer, ...]


def engine_host() -> str:
    """Return where the engine listens: DOCKER_HOST, the docker context in use, or the socket.

    SDK, docker client and buildx don't agree on contexts, so what is in use is exported as
    DOCKER_HOST: all of them then speak to the same engine. EngineUnavailable for a context that
    does not exist, or has certificates, which DOCKER_HOST alone can't carry.
    """
    if not os.environ.get("DOCKER_HOST"):
        name = os.environ.get("DOCKER_CONTEXT")
        context: Context | None = ContextAPI.get_context(name)
        if context is None:
            raise _unusable(name, "it does not exist", "docker context ls shows those that do.")
        if context.TLSMaterial["TLSMaterial"]:
            raise _unusable(
                context.Name,
                "it has certificates of its own",
                "Set DOCKER_HOST, DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH instead.",
            )
        host = str(context.Host or "") or LOCAL_HOST
        os.environ.pop("DOCKER_CONTEXT", None)
        if host == LOCAL_HOST:
            return LOCAL_HOST
        os.environ["DOCKER_HOST"] = host
    return os.environ["DOCKER_HOST"]


def _unusable(name: str | None, why: str, todo: str) -> EngineUnavailable:
    return EngineUnavailable(
        Finding(place=f"docker context {name}", what="can't be used here", why=why + ".", todo=todo)
    )


def connect() -> DockerClient:
    """Return a client of the engine at `engine_host`; it has answered. Close it after use."""
    engine_host()
    try:
        client = docker.from_env(version="auto", timeout=CALL_TIMEOUT)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        raise EngineUnavailable(
            Finding(
                place="",
                what=f"no container engine answers: {error}",
                why="Images are built and checked by a Docker engine.",
                todo="Run `make engine`, or set DOCKER_HOST to one that runs.",
            )
        ) from error
    return client


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what the SDK raises while `doing` something into EngineTrouble."""
    try:
        yield
    except NotFound as error:
        raise ContainerLost(f"{doing}: {error.explanation or error}") from error
    except APIError as error:
        text = str(error.explanation or error)
        if error.status_code == requests.codes.conflict and "is not running" in text:
            raise ContainerLost(f"{doing}: {text}") from error
        raise StartRefused(f"{doing}: {text}") from error
    except (DockerException, requests.RequestException, ConnectionError) as error:
        raise EngineLost(f"{doing}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where builds run: its cores, and its memory in bytes."""

    cores: int
    memory: int


def engine_machine(client: DockerClient) -> Machine:
    """Return the machine that the engine runs on, which need not be this one."""
    with engine_errors("asking the engine for its machine"):
        info = client.info()
        return Machine(cores=int(info["NCPU"]), memory=int(info["MemTotal"]))


def engine_version(client: DockerClient) -> str:
    """Return the engine's version, for the record."""
    with engine_errors("asking the engine for its version"):
        return str(client.version()["Version"])


def inspect_image(client: DockerClient, reference: str) -> ImageFacts:
    """Return what the engine knows about `reference`; InvalidInput when it isn't there."""
    try:
        raw: dict[str, Any] = client.api.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stubs leave it open
        history: list[dict[str, Any]] = client.api.history(reference)  # type: ignore[no-untyped-call]  # likewise
    except ImageNotFound as error:
        raise InvalidInput(
            Finding(
                place=reference,
                what="the engine has no such image",
                todo="Build the row first (`build.py build`), or pull the image.",
            )
        ) from error
    except (DockerException, requests.RequestException) as error:
        raise EngineLost(f"inspecting {reference}: {error}") from error
    return _facts(reference, raw, history)


def _facts(reference: str, raw: dict[str, Any], history: list[dict[str, Any]]) -> ImageFacts:
    config: dict[str, Any] = raw.get("Config") or {}
    pairs = (str(entry).partition("=") for entry in config.get("Env") or ())
    return ImageFacts(
        reference=reference,
        id=str(raw.get("Id") or ""),
        digest=_digest(raw),
        platform=f"{raw.get('Os', '')}/{raw.get('Architecture', '')}",
        size=int(raw.get("Size") or 0),
        labels={str(key): str(value) for key, value in (config.get("Labels") or {}).items()},
        env={name: value for name, _, value in pairs},
        user=str(config.get("User") or ""),
        entrypoint=_words(config.get("Entrypoint")),
        command=_words(config.get("Cmd")),
        workdir=str(config.get("WorkingDir") or ""),
        healthcheck=_words((config.get("Healthcheck") or {}).get("Test")),
        layers=tuple(
            Layer(command=str(entry.get("CreatedBy") or ""), size=int(entry.get("Size") or 0))
            for entry in history
        ),
    )


def _digest(raw: dict[str, Any]) -> str:
    """Return the manifest digest where the engine knows one, else the image id."""
    for name in raw.get("RepoDigests") or ():
        return str(name).rpartition("@")[2]
    return str(raw.get("Id") or "")


def _words(value: object) -> tuple[str, ...]:
    """Return an exec-form list as words; a lone string is the shell form."""
    if isinstance(value, str):
        return ("/bin/sh", "-c", value)
    return tuple(str(word) for word in value) if isinstance(value, list) else ()
