"""A file of 64-bit words that all processes map: plain 8-byte loads and stores, no lock.

Allocated in full before it is mapped, so that a full file system is an error here and never SIGBUS later; it only
ever grows.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from batche.errors import StoreError

WORD: Final = 8


class Words:
    """The words of one file. ``view[i]`` is the i-th one; take ``view`` anew after `refresh` or `grow`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.view: memoryview
        self._map()

    def _map(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            self.view = memoryview(mmap.mmap(descriptor, size)).cast("Q")
        except ValueError as error:
            raise StoreError(str(self.path), f"is damaged: {error}; delete the directory") from error
        finally:
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self.view)

    def refresh(self) -> None:
        """Map again what another process has added."""
        try:
            if os.stat(self.path).st_size > len(self.view) * WORD:
                self._map()
        except OSError as error:
            raise StoreError(str(self.path), f"is gone or cannot be read ({error})") from error

    def grow(self, words: int) -> None:
        """Add ``words`` zero words at the end. The caller holds the writer's lock."""
        self.refresh()
        allocate(self.path, (len(self.view) + words) * WORD)
        self._map()


def allocate(path: Path, size: int) -> None:
    """Make ``path`` a file of at least ``size`` bytes that really exist, zeroes where they are new."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS: written in full, which allocates as well
            have = os.fstat(descriptor).st_size
            os.lseek(descriptor, have, os.SEEK_SET)
            os.write(descriptor, bytes(size - have))
    finally:
        os.close(descriptor)
