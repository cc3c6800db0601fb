"""A file whose bytes are locked by `fcntl.lockf`, opened once for each use and closed when nobody holds it.

Closing any descriptor of a file drops all locks that the process has on that file. So of several descriptors of one
file none is closed while another is in use: they are closed together with the last one.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

from batche._forks import ProcessLock
from batche.stores.lmdb.descriptors import File, file_at, file_of


class _Open(ProcessLock):
    """How many descriptors of each file are in use, and those that are to be closed once none is."""

    def __init__(self) -> None:
        self.files: Counter[File] = Counter()
        self.unused: defaultdict[File, list[int]] = defaultdict(list)
        super().__init__()


_OPEN: Final = _Open()


class LockFile:
    """An open file. ``descriptor`` is for `fcntl.lockf` and its probes; `close` may be called twice.

    ``inside`` is an open descriptor of its directory, if the caller has checked one.
    """

    def __init__(self, path: Path, *, inside: int | None = None) -> None:
        name = path if inside is None else path.name
        with _OPEN.lock:
            self.descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=inside)
            self.file: File = file_at(self.descriptor)
            _OPEN.files[self.file] += 1
        self.close = weakref.finalize(self, _let_go, self.descriptor, self.file)
        self.close.atexit = False  # the kernel does it

    def is_open(self) -> bool:
        """Whether ``descriptor`` is still this file's: somebody may have closed it for us (`os.closerange`)."""
        return file_of(self.descriptor) == self.file


def _let_go(descriptor: int, file: File) -> None:
    with _OPEN.lock:
        _OPEN.files[file] -= 1
        _OPEN.unused[file].append(descriptor)
        if _OPEN.files[file] <= 0:
            del _OPEN.files[file]
            for unused in _OPEN.unused.pop(file):
                if file_of(unused) == file:  # else somebody closed it for us, and it may be theirs by now
                    os.close(unused)
