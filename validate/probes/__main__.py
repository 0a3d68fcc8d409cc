"""Runs probe sections in an image and writes one JSON document to standard output.

Libraries print what they like: before anything is imported, standard output is moved to a private
descriptor and the old one joined to standard error, so that only the document reaches the reader.
"""

from __future__ import annotations

import time

STARTED = time.time()

# ruff: noqa: E402 - the clock starts before the imports, which are part of what is measured
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

SECTIONS = ("cold", "environment", "export", "gpu", "packages", "steady", "weights")
LONGEST_LIST = 100
LONGEST_TEXT = 400
DOWNLOADERS = frozenset({"pip", "pip3", "uv", "apt", "apt-get", "curl", "wget", "git", "conda"})


class Attempts:
    """Every try to reach the network or to start an installer, seen by Python's audit hook.

    A try that fails because there is no network is still a try: with one it would have succeeded.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.network: list[dict[str, str]] = []
        self.installers: list[dict[str, str]] = []

    def enter(self, phase: str) -> None:
        """Say what is being done from here on, so that a try can be told to belong to it."""
        self.phase = phase

    def _note(self, tries: list[dict[str, str]], what: str) -> None:
        if len(tries) < LONGEST_LIST:
            tries.append({"phase": self.phase, "what": what[:LONGEST_TEXT]})

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what matters; called by the interpreter for every audit event."""
        if event == "socket.getaddrinfo" and arguments[0] not in {None, "localhost", b"localhost"}:
            self._note(self.network, f"resolve {arguments[0]}")
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            self._note(self.network, f"connect {arguments[1]}")
        elif event == "subprocess.Popen":
            self._command(arguments[1])
        elif event == "os.system":
            self._command(os.fsdecode(arguments[0]).split())

    def _command(self, argv: Any) -> None:
        words = [os.fsdecode(word) for word in ([argv] if isinstance(argv, str | bytes) else argv)]
        names = {Path(part).name for word in words for part in word.split()}
        if names & DOWNLOADERS:
            self._note(self.installers, " ".join(words))


def _section(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run one section; what it raises is part of the answer, not the end of the document."""
    begun = time.perf_counter()
    options["enter"](name)
    try:
        facts = importlib.import_module(f".{name}", __package__).collect(options)
    except Exception as error:  # noqa: BLE001 - any failure of the image's code is a fact
        message = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()[-6000:]
        return {"seconds": time.perf_counter() - begun, "error": message[:4000], "trace": trace}
    return {"seconds": time.perf_counter() - begun, "facts": facts}


def main() -> None:
    """Run the sections named on the command line; `options` is a JSON object before them."""
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    options = json.loads(sys.argv[1]) | {"started": STARTED}
    attempts = Attempts()
    if options.get("audit", True):
        sys.addaudithook(attempts.hook)
    options["enter"] = attempts.enter
    sections = {name: _section(name, options) for name in sys.argv[2:] if name in SECTIONS}
    answer = {
        "schema_version": 1,
        "sections": sections,
        "network": attempts.network,
        "installers": attempts.installers,
    }
    with document:
        json.dump(answer, document)
    # Some native libraries crash while they unload; the answer is complete, so leave at once.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
