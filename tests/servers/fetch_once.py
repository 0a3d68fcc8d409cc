"""One `fetch` in a process of its own, for tests that need two of them, or kill one.

python -m tests.servers.fetch_once URL TARGET SHA256 SIZE
"""

from __future__ import annotations

import sys
from pathlib import Path

from builder.downloads import Patience, fetch
from builder.errors import ToolkitError
from builder.sources import Sources
from builder.talk import Talk

PATIENCE = Patience(attempts=3, first_wait=0.01, longest_wait=0.05, silence=5.0)


def main() -> int:
    """Fetch as the command line says; return the error's exit code, 0 without one."""
    url, target, sha256, size = sys.argv[1:]
    try:
        fetch(
            url,
            Path(target),
            sha256=sha256,
            size=int(size),
            sources=Sources(),
            talk=Talk(),
            patience=PATIENCE,
        )
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
