"""Locks that a fork waits for, so that a child does not inherit what another thread was changing.

The wait is bounded: whoever is not done within a second (user code under the lock that waits for something) is left
out, and the child is told that its copy may be torn.
"""

from __future__ import annotations

import os
import time
from threading import get_ident
from typing import Any, Final, Protocol
from weakref import WeakSet

FORK_PATIENCE: Final = 1.0
"""Seconds that one fork waits for all locks together."""


class Locked(Protocol):
    """What changes under a lock."""

    _lock: Any

    def forked(self, *, quiet: bool) -> None:
        """In a forked child: whether nobody else held the lock at the fork."""


_locked: WeakSet[Locked] = WeakSet()
_held: dict[int, list[tuple[Locked, Any]]] = {}  # by thread: two may fork at one time


def hold_at_forks(owner: Locked) -> None:
    """Have forks wait for ``owner``'s lock, for as long as it lives."""
    _locked.add(owner)


def _before() -> None:
    deadline = time.monotonic() + FORK_PATIENCE
    held = _held[get_ident()] = []
    for owner in _in_one_order():
        lock = owner._lock
        if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            held.append((owner, lock))


def _in_one_order() -> list[Locked]:
    """All of them, so that two threads that fork do not wait for one another."""
    while True:
        try:
            return sorted(_locked, key=id)
        except RuntimeError:
            continue  # another thread has made or dropped one meanwhile


def _after_in_parent() -> None:
    for _, lock in _held.pop(get_ident(), ()):
        lock.release()


def _after_in_child() -> None:
    held = {id(owner) for owner, _ in _held.get(get_ident(), ())}
    _held.clear()
    for owner in _locked:
        owner.forked(quiet=id(owner) in held)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
