"""Unit tests reach neither an engine nor the network; loopback is fine."""

from __future__ import annotations

import socket
from typing import Any

import docker
import pytest


@pytest.fixture(autouse=True)
def _no_engine_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_engine(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a unit test asked for a container engine")

    real = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a unit test connects to {address}")
        real(self, address)

    monkeypatch.setattr(docker, "from_env", no_engine)
    monkeypatch.setattr(docker, "DockerClient", no_engine)
    monkeypatch.setattr(socket.socket, "connect", loopback_only)
