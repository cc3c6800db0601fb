"""What a process must know of itself: which one it is, what to renew after a fork, and the boot clock."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from threading import RLock
from typing import Final, Protocol
from weakref import WeakSet

from batche._trouble import PASSING, store_error

BOOT_ID: str = "/proc/sys/kernel/random/boot_id"  # where the system tells one boot from another
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC if hasattr(time, "CLOCK_MONOTONIC") else None)

boot_ns: Final[Callable[[], int]] = (
    functools.partial(time.clock_gettime_ns, _BOOT_CLOCK) if _BOOT_CLOCK is not None else time.monotonic_ns
)
"""Nanoseconds since the system was booted, sleep included where the platform can tell.

The same for all processes of a host; it never goes back and means nothing after a reboot. No function of Python,
because every hit calls it.
"""


def boot_identity() -> int:
    """A number that tells one boot of this host from another; always the same where the platform cannot tell.

    Raises:
        StoreError: it cannot be read now; to take that for another boot would cost every entry.
    """
    return _identity_in(BOOT_ID)


@functools.cache
def _identity_in(path: str) -> int:
    try:
        with open(path, "rb") as file:  # text would import a codec: not fork-safe
            return int(file.read().replace(b"-", b""), 16) >> 65 | 1
    except OSError as error:
        if error.errno in PASSING:
            raise store_error(path, error) from error
        return 1


def random_word() -> int:
    """63 random bits, never zero, from the operating system: a fork does not repeat them."""
    return int.from_bytes(os.urandom(8), "big") >> 1 | 1


class Forkable(Protocol):
    """What keeps locks or other state that a forked child must not inherit as it stands."""

    def after_fork(self) -> None:
        """Make the state a child's own. Runs in the child's only thread, before any other code of it."""


class ProcessLock:
    """``lock`` is re-entrant, for a signal handler may come in between, and free in a forked child whoever held it."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.lock = RLock()


_forkables: WeakSet[Forkable] = WeakSet()


def renew_after_fork(forkable: Forkable) -> None:
    """Have ``forkable.after_fork()`` called in every forked child, for as long as the object lives."""
    _forkables.add(forkable)


def _renew_all() -> None:
    for forkable in list(_forkables):
        forkable.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
