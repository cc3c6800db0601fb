"""A file of 64-bit words that all processes map: plain 8-byte loads and stores, no lock.

Allocated in full before it is mapped, so that a full file system is an error here and never SIGBUS later; it only
ever grows.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Any, Final

from batche._forks import ProcessLock
from batche._places import as_store_error
from batche.errors import StoreError
from batche.stores.lmdb import descriptors

WORD: Final = 8
_FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, where fsync stops at the drive's own cache
_NO_DESCRIPTOR: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""A map of Python keeps a descriptor of its own, unless it is told not to."""


_ASSIGNING: Final = ProcessLock()
"""Guards the assignment of views, so that a smaller one never takes the place of a larger one."""


class Words:
    """The words of one file. ``view[i]`` is the i-th one; take ``view`` anew after `refresh` or `grow`."""

    def __init__(self, path: Path, *, head: int = 0, unit: int = 1, inside: int | None = None) -> None:
        self.path = path
        self.view = memoryview(b"").cast("Q")
        self._head = head * WORD
        self._unit = unit * WORD
        self._file: tuple[int, int] | None = None  # not used again for another one: it is mapped
        self._map(inside)

    def _map(self, inside: int | None = None) -> None:
        """Map the file as it is. What another thread mapped meanwhile is larger, and stays."""
        with as_store_error(str(self.path)):
            view = self._mapped(inside)
        with _ASSIGNING.lock:
            if len(view) > len(self.view):
                self.view = view

    def _mapped(self, inside: int | None) -> memoryview:
        descriptor = open_file(self.path, os.O_RDWR, inside)
        try:
            status = os.fstat(descriptor)
            return _map(descriptor, self._size(status), descriptors.file_in(status))
        except ValueError as error:
            raise StoreError(str(self.path), f"is damaged: {error}; delete the directory") from error
        finally:
            os.close(descriptor)

    def _size(self, status: os.stat_result) -> int:
        """The bytes to map: ``head`` words and whole units, as a crash may leave a part of one.

        `StoreError` for another file than the one that is mapped.
        """
        file = descriptors.file_in(status)
        if self._file not in (None, file):
            raise StoreError(str(self.path), "was replaced while it was in use")
        self._file = file
        return status.st_size - max(0, status.st_size - self._head) % self._unit

    def __len__(self) -> int:
        return len(self.view)

    def refresh(self) -> None:
        """Map again what another process has added."""
        with as_store_error(str(self.path)):
            size = self._size(os.stat(self.path, follow_symlinks=False))
        if size > len(self.view) * WORD:
            self._map()

    def grow(self, words: int, *, synced: bool = False) -> None:
        """Have at least ``words`` words, zero where they are new. The caller holds the writer's lock.

        ``synced``: they survive a crash. `StoreFullError`: there is no room for them; all that were there before are
        there still.
        """
        with as_store_error(str(self.path)):
            self._extend(words * WORD, synced=synced)
        self._map()

    def _extend(self, size: int, *, synced: bool) -> None:
        descriptor = open_file(self.path, os.O_RDWR)
        try:
            self._size(os.fstat(descriptor))
            _allocate(descriptor, size)
            if synced:
                sync(descriptor)
        finally:
            os.close(descriptor)


def _map(descriptor: int, size: int, file: descriptors.File) -> memoryview:
    """Map ``file``. A map that keeps a descriptor of its own is not closed where that is somebody else's by then."""
    if _NO_DESCRIPTOR:
        return memoryview(mmap.mmap(descriptor, size, **_NO_DESCRIPTOR)).cast("Q")
    before = descriptors.open_on({file})
    mapped = mmap.mmap(descriptor, size)
    own = descriptors.Held({file}, 1, known=before)
    view = memoryview(mapped).cast("Q")
    weakref.finalize(view, descriptors.let_go, mapped, _nothing, own).atexit = False
    return view


def _nothing() -> None:
    """Nothing refers to the map any more: so it is closed."""


def open_file(path: Path, flags: int, inside: int | None = None) -> int:
    """A descriptor of ``path``, found by its name in the open directory ``inside`` where there is one."""
    name = path if inside is None else path.name
    return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=inside)


def allocate(path: Path, size: int, *, mark: tuple[int, int] | None = None, inside: int | None = None) -> None:
    """Make ``path`` a file of at least ``size`` bytes that really exist, zeroes where they are new.

    ``mark`` is the index of a word and what is written there; ``inside`` an open descriptor of the file's directory.
    """
    descriptor = open_file(path, os.O_RDWR | os.O_CREAT, inside)
    try:
        _allocate(descriptor, size)
        if mark is not None:
            os.pwrite(descriptor, mark[1].to_bytes(WORD, sys.byteorder), mark[0] * WORD)
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS: written in full, which allocates as well
        have = os.fstat(descriptor).st_size
        os.lseek(descriptor, have, os.SEEK_SET)
        os.write(descriptor, bytes(size - have))


def sync_path(path: Path, inside: int | None = None) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = open_file(path, os.O_RDONLY, inside)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until what was written to an open file is on the disk."""
    if _FULL_SYNC is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, _FULL_SYNC)
