"""What the system's errors mean for a store, and what helps: every one of them leaves a store as a `StoreError`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from batche.errors import StoreError

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where a file system, or a user's share of it, is full."""
PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this process, or the system, lacks at the moment: it says nothing of the file that was asked for."""
FULL: Final = (
    "there is no room left for it: make room on its file system, set a smaller max_bytes, or choose another directory"
)
_REMEDIES: Final = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer named functions",
    errno.ENFILE: "close files of other programs: the system has no more to give",
    errno.ENOMEM: "raise the limit of address space (ulimit -v)",
}


class StoreFullError(StoreError):
    """There is no room for what is to be written. What is there can be read, and removing some of it makes room."""


class translated:
    """Lets exceptions of ``kinds`` leave its ``with`` as what ``translate`` makes of them, a `StoreError` as it is.

    No generator, and no exception in a variable: what is raised would be part of a reference cycle (that of a generator
    is so from Python 3.12 on), and all that was half open would stay so until the collector runs.
    """

    def __init__(
        self,
        kinds: type[BaseException] | tuple[type[BaseException], ...],
        translate: Callable[[Any], StoreError],
    ) -> None:
        self._kinds = kinds
        self._translate = translate

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._kinds) and not isinstance(error, StoreError):
            raise self._translate(error) from error


def is_passing(error: BaseException) -> bool:
    """Whether ``error``, or what it was raised from, is one of `PASSING`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in PASSING:
            return True
        cause = cause.__cause__
    return False


def store_error(store: str, error: OSError) -> StoreError:
    """What ``error`` says, as trouble of ``store``, with the remedy."""
    if error.errno in NO_ROOM:
        return StoreFullError(store, FULL)
    remedy = _REMEDIES.get(error.errno or 0, "make room or give leave, or choose another")
    return StoreError(store, f"its directory cannot be made or used ({error}): {remedy}")
