"""What a user would build instead: two plain Dockerfiles, or bake targets without our ordering."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from bench.process import run
from bench.project import Project
from builder.apt import render_sources
from builder.sources import Sources

__all__ = ["PLAIN_BASE", "Baseline", "pip_conf", "unordered"]

PLAIN_BASE = "yolo-bench/base"
_HERE = Path(__file__).parent
_WHEELHOUSE = "/run/wheelhouse"
_SECRETS = ("pip", "uv", "ca", "apt-conf", "apt-sources")


def pip_conf(sources: Sources) -> str:
    """Return what pip needs inside a build to reach what this machine's pip reaches.

    Index, proxy, certificates and local wheels are those that our own builds get for uv.
    """
    remote = [url for url in sources.extra_indexes if url.startswith(("http:", "https:"))]
    default = sources.default_index or ""
    settings = {
        "index-url": default if default.startswith(("http:", "https:")) else "",
        "extra-index-url": " ".join(() if sources.no_index else remote),
        "no-index": "true" if sources.no_index else "",
        "find-links": _WHEELHOUSE,
        "trusted-host": " ".join(sources.insecure_hosts),
        "proxy": sources.proxies.https or sources.proxies.http or "",
        "cert": "/run/secrets/ca" if sources.ca_bundle else "",
        "timeout": "180",
        "disable-pip-version-check": "true",
    }
    lines = [f"{name} = {value}\n" for name, value in settings.items() if value]
    return "[global]\n" + "".join(lines)


def unordered(bake: Mapping[str, Any], dockerfile: str, wheelhouse: str) -> dict[str, Any]:
    """Turn our bake file into independent targets: same packages, no shared chain. Pure.

    Every row stands on the base alone and is made by the one Dockerfile given as text.
    """
    targets: dict[str, Any] = {}
    for row in bake["group"]["default"]["targets"]:
        ours = bake["target"][row]
        stack = bake["target"][_target_under(ours, "stack")]
        base = _target_under(stack, "base")
        targets[base] = bake["target"][base]
        targets[row] = {
            **{key: value for key, value in ours.items() if key != "dockerfile"},
            # In a bake file `${` is bake's own; the Dockerfile's is written with a second dollar.
            "dockerfile-inline": dockerfile.replace("${", "$${"),
            "contexts": {
                "base": f"target:{base}",
                "tools": ours["contexts"]["tools"],
                "row": ours["contexts"]["row"],
                "weights": ours["contexts"]["weights"],
                "stack-requirements": stack["contexts"]["requirements"],
                "row-requirements": ours["contexts"]["requirements"],
                "wheelhouse": wheelhouse,
            },
            "args": {**stack["args"], **ours["args"]},
            "tags": [f"yolo-bench/{row}:unordered"],
        }
    return {"group": bake["group"], "target": targets}


def _target_under(target: Mapping[str, Any], role: str) -> str:
    return cast("str", target["contexts"][role]).removeprefix("target:")


class Baseline:
    """Builds from the contexts that an earlier `build.py build` in `project` left behind.

    `environment` names the engine. Secrets exist while a build runs, in the copy's own cache.
    """

    def __init__(
        self, project: Project, sources: Sources, environment: Mapping[str, str], log: Path
    ) -> None:
        self._project = project
        self._sources = sources
        self._environment = environment
        self._log = log
        self._secrets = project.root / ".cache" / "secrets"
        self._wheelhouse = project.root / ".cache" / "bench-wheelhouse"

    def import_base(self, plan: Mapping[str, Any], suite: str) -> None:
        """Give the engine the base of `plan` under a name that the plain Dockerfiles can use."""
        tar = self._project.root / ".cache" / "rootfs" / suite / "rootfs.tar"
        if tar.is_file():
            self._run("docker", "import", str(tar), PLAIN_BASE)
            return
        labels = plan["labels"]
        known = "org.opencontainers.image.base"
        repository = labels[f"{known}.name"].rpartition(":")[0]
        reference = f"{repository}@{labels[f'{known}.digest']}"
        self._run("docker", "pull", "--quiet", reference)
        self._run("docker", "tag", reference, PLAIN_BASE)

    def plain(self, plan: Mapping[str, Any], folder: str, suite: str) -> float:
        """Build bench/plain/`folder` with the versions of `plan`; return the seconds."""
        tag = f"yolo-bench/{folder}:plain"
        arguments = {
            "TORCH": plan["torch"],
            "TORCHVISION": plan["torchvision"],
            "ULTRALYTICS": plan["ultralytics"],
            "ONNXRUNTIME": plan["onnxruntime"],
        }
        with self._secret_files([suite]):
            return self._run(
                "docker", "buildx", "build", "--progress", "plain", "--network", "host",
                "--build-context", f"base=docker-image://{PLAIN_BASE}",
                "--build-context", f"wheelhouse={self._wheelhouse}",
                *(f"--build-arg={name}={value}" for name, value in arguments.items()),
                *(f"--secret=id={name},src={self._secrets / name}" for name in _SECRETS),
                "--tag", tag, str(_HERE / "plain" / folder),
            )  # fmt: skip

    def unordered(self, suites: Sequence[str]) -> float:
        """Build all rows of the project as independent targets; return the seconds."""
        text = (_HERE / "unordered" / "Dockerfile").read_text()
        wheelhouse = self._wheelhouse.relative_to(self._project.root)
        file = self._project.root / ".cache" / "unordered.json"
        file.write_text(
            json.dumps(unordered(self._project.bake_file(), text, str(wheelhouse)), indent=1)
        )
        with self._secret_files(suites):
            return self._run(
                "docker", "buildx", "bake", "--progress", "plain",
                "--file", str(file), *_permissions(),
            )  # fmt: skip

    def image_bytes(self, tag: str) -> int:
        """Return the compressed size of an image in the engine."""
        done = run(
            ["docker", "image", "inspect", "--format", "{{.Size}}", tag],
            cwd=self._project.root,
            log=self._log,
            environment=self._environment,
        )
        return int(done.stdout)

    def _run(self, *argv: str) -> float:
        finished = run(argv, cwd=self._project.root, log=self._log, environment=self._environment)
        return finished.seconds

    @contextmanager
    def _secret_files(self, suites: Sequence[str]) -> Iterator[None]:
        self._secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._sources.write_secrets(self._secrets, suites)
            apt = [entry for suite in sorted(set(suites)) for entry in self._sources.apt_for(suite)]
            texts = {"pip": pip_conf(self._sources), "apt-sources": render_sources(apt)}
            for name, text in texts.items():
                path = self._secrets / name
                path.touch(mode=0o600)
                path.write_text(text)
            self._collect_wheels()
            yield
        finally:
            shutil.rmtree(self._secrets, ignore_errors=True)

    def _collect_wheels(self) -> None:
        """Put the local files of all steps into one folder: these builds have only one step."""
        self._wheelhouse.mkdir(exist_ok=True)
        cache = self._project.root / ".cache"
        for found in (*cache.glob("wheelhouse/*"), *cache.glob("contexts/*/wheelhouse/*/*")):
            target = self._wheelhouse / found.name
            if not target.exists():
                os.link(found, target)


def _permissions() -> list[str]:
    """Since buildx 0.19 bake wants leave for host networking and for paths outside its folder."""
    shown = subprocess.run(
        ["docker", "buildx", "bake", "--help"], capture_output=True, text=True, check=True
    ).stdout
    return ["--allow", "network.host", "--allow", "fs.read=*"] if "--allow " in shown else []
