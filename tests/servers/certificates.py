"""Certificates that no machine knows, made by the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificate", "make_certificate"]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate that is its own authority: whoever should trust it needs `path` as bundle."""

    path: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """What a server shows to its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context


def make_certificate(folder: Path, *names: str) -> Certificate:
    """Make one for host names and addresses (`IP:127.0.0.1`, `DNS:github.com`), good for a day."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificate(path=folder / "ca.pem", key=folder / "key.pem")
    argv = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "1", "-subj", "/CN=play server", "-addext",
        f"subjectAltName={','.join(names)}", "-keyout", str(made.key), "-out", str(made.path),
    ]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    return made
