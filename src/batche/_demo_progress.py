"""How far the demo is: a line that is rewritten on a terminal, a plain line for each finished part elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TextIO

WIDTH: Final = 30
INTERVAL: Final = 0.1
"""Seconds between two rewritings, so that showing progress takes no time of its own."""


class Progress:
    """Shows the progress of one part after another on ``stream``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rewrites = stream.isatty()
        self._shown = 0.0

    @contextmanager
    def of(self, part: str, total: int) -> Generator[Callable[[], None], None, None]:
        """Show one part of ``total`` steps; the function given is called after each step."""
        began, done = time.monotonic(), 0

        def advance() -> None:
            nonlocal done
            done += 1
            self._rewrite(part, done, total)

        yield advance
        self._finish(f"{part}: {done} batches in {time.monotonic() - began:.1f} s")

    def _rewrite(self, part: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._rewrites and now - self._shown >= INTERVAL:
            self._shown = now
            bar = "#" * (WIDTH * done // total)
            self._stream.write(f"\r{part:<16} [{bar:<{WIDTH}}] {done}/{total}")
            self._stream.flush()

    def _finish(self, line: str) -> None:
        self._stream.write(f"\r{line:<79}\n" if self._rewrites else f"{line}\n")
        self._stream.flush()
