"""What LMDB's errors mean, and what helps."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

import lmdb

from batche._capacity import free_room, is_in_memory
from batche._trouble import FULL, NO_ROOM, PASSING, StoreFullError, store_error
from batche.errors import StoreError
from batche.stores.lmdb.damage import DamagedError, UnreadableError

_LITTLE: Final = 16 << 20
"""Free bytes below which a write that was cut short (EIO) is taken to have met the end of the room."""
_DAMAGE: Final = (
    UnreadableError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)
"""What says that the file itself is wrong."""
SPENT: Final = (lmdb.PanicError, lmdb.BadTxnError)
"""What says that this process cannot use the file as it has it open: it may be fine when it is opened again."""
_REMEDIES: Final[dict[type[Exception], str]] = {
    lmdb.LockError: "a process of another PID namespace (a container) that has this one's pid uses it: give each "
    "namespace a directory of its own, or all of them one namespace",
    lmdb.ReadersFullError: "all its reader slots are in use: have fewer threads and processes read at one time",
    lmdb.MapResizedError: "it has grown beyond the map of this process: raise the limit of address space (ulimit -v)",
}


def as_trouble(path: Path, error: Exception) -> StoreError:
    """``error``, which LMDB or the system raised, as a `StoreError` about the environment at ``path``."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, _DAMAGE):
        remedy = "it may be damaged: it is set aside if this is so, or delete it"
        return DamagedError(str(path), f"{type(error).__name__}: {error}; {remedy}")
    if isinstance(error, lmdb.MapFullError):
        problem = "its map is full: set a smaller max_bytes, or delete the directory so that it is made anew"
        return StoreFullError(str(path), problem)
    if isinstance(error, lmdb.Error) and _is_for_lack_of_room(path, error):
        return StoreFullError(str(path), FULL)
    code: int | None = getattr(error, "code", None)  # of LMDB's errors; those of the system have an errno
    if code is not None and code in PASSING and type(error) not in _REMEDIES:
        error = OSError(code, os.strerror(code))
    if isinstance(error, OSError):
        return store_error(str(path), error)
    return StoreError(str(path), _REMEDIES.get(type(error), f"{type(error).__name__}: {error}"))


def _is_for_lack_of_room(path: Path, error: lmdb.Error) -> bool:
    """A write that the end of the room cut short is EIO to LMDB, wherever it happens; a tmpfs has no other EIO."""
    code = getattr(error, "code", None)
    return code in NO_ROOM or (code == errno.EIO and _is_short_of_room(path))


def _is_short_of_room(path: Path) -> bool:
    with contextlib.suppress(OSError):
        free = free_room(path)
        return is_in_memory(path) or (free is not None and free < _LITTLE)
    return False
