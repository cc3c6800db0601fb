"""A journal outside of the cache: what really happened, written down by those to whom it happened.

Each line is 64 bytes, a divisor of a page: the kernel cuts an append short, when its writer is killed, only between
pages. So no line is torn, whenever SIGKILL comes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

WIDTH: Final = 64


class Line(NamedTuple):
    """Who did what when. ``number`` is an item, or whatever else the kind of line is about."""

    what: str
    worker: int
    pid: int
    call: int
    number: int
    when: int


@dataclass(frozen=True)
class Book:
    """The journal of one run."""

    path: Path

    def note(self, what: str, worker: int, call: int, *numbers: int, pid: int = 0) -> None:
        """Append a line for each of ``numbers``, by one system call. Lines of one call are in order."""
        begun = f"{what} {worker} {pid or os.getpid()} {call}"
        text = "".join(f"{begun} {number} {time.monotonic_ns()}".ljust(WIDTH - 1) + "\n" for number in numbers)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def lines(self) -> Iterator[Line]:
        for text in self.path.read_text().splitlines():
            what, *numbers = text.split()
            yield Line(what, *map(int, numbers))
