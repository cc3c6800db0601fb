"""Descriptors that somebody else may have closed: `os.closerange`, as a process does that becomes a daemon.

The number of a closed descriptor goes to the next file that is opened. Who goes on using it writes into that file,
locks it or closes it. So whoever keeps a descriptor notes which file it was opened for, and looks before it is used.

Limit: what closes descriptors in one thread while another one is between the look and the use is not noticed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

File: TypeAlias = tuple[int, int]
"""What tells a file: its device and inode."""
_LISTS: Final = ("/proc/self/fd", "/dev/fd")
_MOST_UNLISTED: Final = 1024


def file_in(status: os.stat_result) -> File:
    """The file that ``status`` tells of."""
    return status.st_dev, status.st_ino


def file_of(descriptor: int) -> File | None:
    """The file that ``descriptor`` is open on; `None` where it is closed."""
    try:
        return file_in(os.fstat(descriptor))
    except OSError:
        return None


def file_at(descriptor: int) -> File:
    """The same of one that is open for sure."""
    return file_in(os.fstat(descriptor))


def are_open(descriptors: Mapping[int, File]) -> bool:
    """Whether each descriptor is still open on its file. Costs about half a microsecond for each."""
    try:
        for descriptor, file in descriptors.items():
            status = os.fstat(descriptor)
            if status.st_ino != file[1] or status.st_dev != file[0]:
                return False
    except OSError:
        return False
    return True


class Held:
    """The descriptors that a library holds on its files without telling which they are.

    ``files`` are the files, ``needed`` how many descriptors it holds on them. What else of this process is open on them
    when they are looked for is somebody's for a moment, and found out when it is closed.
    """

    def __init__(self, files: set[File], needed: int, known: Mapping[int, File] | None = None) -> None:
        found = {descriptor: file_of(descriptor) for descriptor in _all() if descriptor not in (known or {})}
        self._open = {
            descriptor: file
            for descriptor, file in found.items()
            if file in files and file is not None and _is_writable(descriptor)  # not one that only syncs the file
        }
        self._needed = min(needed, len(self._open))

    def are_open(self) -> bool:
        """Whether all of them are open on their files still."""
        if are_open(self._open):
            return True
        left = {descriptor: file for descriptor, file in self._open.items() if file_of(descriptor) == file}
        if len(left) < self._needed:
            return False
        self._open = left
        return True


def open_on(files: set[File]) -> dict[int, File]:
    """The descriptors of this process that are open on one of ``files``."""
    found = {descriptor: file_of(descriptor) for descriptor in _all()}
    return {descriptor: file for descriptor, file in found.items() if file in files and file is not None}


def _is_writable(descriptor: int) -> bool:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _all() -> list[int]:
    for listing in _LISTS:
        with suppress(OSError):
            return [int(name) for name in os.listdir(listing)]
    return list(range(_MOST_UNLISTED))


def let_go(thing: object, close: Callable[[], object], held: Held) -> None:
    """Close ``thing``, unless one of its descriptors is somebody else's by now; then it is kept for ever."""
    if held.are_open():
        close()
    else:
        keep(thing)
        make_immortal(thing)


_kept: Final[list[object]] = []


def keep(thing: object) -> None:
    """See to it that ``thing`` is not closed while this process runs."""
    _kept.append(thing)


def make_immortal(thing: object) -> None:
    """See to it that not even the interpreter closes ``thing`` at its end, when others still write their files."""
    with suppress(ImportError):
        import ctypes  # 5 ms that only this needs

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
