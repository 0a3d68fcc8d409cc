"""What the tools say while they work: to stderr, one place for terminals and plain logs.

stdout belongs to data. On a terminal a changing status line is drawn below the lines that stay; in
a log each status is a line of its own, not more often than every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

__all__ = ["Talk", "human_bytes", "human_seconds"]

_QUIET_SECONDS = 5.0


class Talk:
    """Progress to stderr. `clock` returns seconds and exists for tests."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = clock
        self._start = clock()
        self._last = clock()

    def line(self, text: str) -> None:
        """Say something that stays."""
        self._last = self._clock()
        stamp = f"{self._clock() - self._start:6.1f}s"
        self.console.print(f"[dim]{stamp}[/dim]  {escape(text)}")

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that `text` goes on; call the yielded function with news of it."""
        if self.console.is_terminal:
            with self.console.status(escape(text)) as status:
                yield lambda news: status.update(escape(f"{text}: {news}"))
        else:
            self.line(text)

            def plain(news: str) -> None:
                if self._clock() - self._last >= _QUIET_SECONDS:
                    self.line(f"{text}: {news}")

            yield plain


def human_bytes(count: float) -> str:
    """`3.8 GB`: decimal units, as registries and disks count."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float) -> str:
    """`8.4 s`, or `2 min 5 s` from a minute on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
