"""The boot that this process runs in: what tells it from others, its clock; and words that nothing else has."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Final

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
