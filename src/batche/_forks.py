"""Forks: what waits for one, what is made anew in its child, and in which order.

Python calls hooks, and drops what they raise. A signal's handler may raise in one: Ctrl-C that comes during the fork
itself does so as the first hook after it begins. So all that the library does is in one hook, which does again what was
interrupted, and which is called twice after a fork.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from threading import RLock, get_ident
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakSet

PATIENCE: Final = 1.0
"""Seconds that one fork waits for all locks together."""

# ---- what a child has anew ----


class Forkable(Protocol):
    """What keeps locks or other state that a forked child must not inherit as it stands."""

    def after_fork(self) -> None:
        """Make the state a child's own. Runs in the child's only thread, before any other code of it."""


_forkables: WeakSet[Forkable] = WeakSet()


def renew_after_fork(forkable: Forkable) -> None:
    """Have ``forkable.after_fork()`` called in every forked child, for as long as the object lives."""
    _forkables.add(forkable)


def _renew_all() -> None:
    for forkable in list(_forkables):
        forkable.after_fork()


class ProcessLock:
    """``lock`` is re-entrant, for a signal handler may come in between, and free in a forked child whoever held it."""

    def __init__(self) -> None:
        self.lock = RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.lock = RLock()


# ---- what waits ----


class Order(IntEnum):
    """Who takes several locks takes the lowest first."""

    ENTRIES = 0  # user code may run under it, and come to open a store
    FILES = 1
    PLACE = 2


class HeldLock(ProcessLock):
    """A `ProcessLock` that a forking thread holds meanwhile, so that the child inherits nothing half changed.

    The wait is bounded: whoever is not done within a second is left out, and ``torn`` is true in the child.
    """

    torn = False

    def __init__(self, order: Order) -> None:
        self.order = order
        super().__init__()
        _held.add(self)


_held: WeakSet[HeldLock] = WeakSet()


class _Fork:
    """A fork that a thread makes, or several, one in a hook of the other: the locks that it takes for it."""

    def __init__(self) -> None:
        self.open: list[bool] = []
        """For each of the forks, the outermost first: whether its end has not come yet."""
        self._until = time.monotonic() + PATIENCE
        self._locks: list[tuple[HeldLock, Any, bool]] = []

    def take_locks(self) -> None:
        known = {id(held) for held, _, _ in self._locks}
        for held in _in_order():
            lock = held.lock
            if id(held) not in known:
                self._locks.append((held, lock, is_mine(lock)))  # before it is taken: it is known to be given back
            if not is_mine(lock):
                lock.acquire(timeout=max(0.0, self._until - time.monotonic()))

    def give_back_locks(self) -> None:
        for _, lock, was_mine in self._locks:
            if not was_mine and is_mine(lock):
                lock.release()

    def tell_torn(self) -> None:
        """In the child: which of them others held. The one thread of it is the one that made the fork."""
        for held, lock, _ in self._locks:
            held.torn = held.torn or not is_mine(lock)


def _in_order() -> list[HeldLock]:
    while True:
        try:
            return sorted(_held, key=lambda held: (held.order, id(held)))
        except RuntimeError:
            continue  # another thread has made or dropped one meanwhile


def is_mine(lock: Any) -> bool:
    """Whether this thread holds a re-entrant lock."""
    return bool(lock._is_owned())  # as `threading.Condition` asks


# ---- the one hook ----


class Participant(Protocol):
    """What does more at a fork than hold a lock.

    Each method may be called again where a signal's handler raised in the midst of it, and then does what is left.
    """

    def before_fork(self) -> None:
        """In the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """In the same thread. Not called after a fork in a hook of another fork, but after that one."""


Step: TypeAlias = Callable[[], object]


class _Forks:
    """The forks that threads are making, and the steps of the hooks, which others add theirs to."""

    def __init__(self) -> None:
        self.forget_all()
        self.before: list[Step] = [self._begin, self._take_locks]
        self.in_parent: list[Step] = [
            self._end,
            *(partial(self._at_last, step) for step in (self._give_back_locks, self._forget)),
        ]
        self.in_child: list[Step] = [_renew_all, self._tell_torn, self.forget_all]

    def add(self, participant: Participant, *, before_locks: bool) -> None:
        before, after = participant.before_fork, partial(self._at_last, participant.after_fork_in_parent)
        self.before.insert(1 if before_locks else len(self.before), before)
        self.in_parent.insert(len(self.in_parent) - 1 if before_locks else 1, after)

    def forget_all(self) -> None:
        self._by_thread: dict[int, _Fork] = {}

    def _mine(self) -> _Fork:
        """Of this thread; an empty one where its beginning was missed."""
        return self._by_thread.setdefault(get_ident(), _Fork())

    def _begin(self) -> None:
        forks = self._mine().open
        while forks and not forks[-1]:
            del forks[-1]
        forks += [True]  # no call, and at the end: it is not interrupted, and so not done twice

    def _end(self) -> None:
        """The first time for a fork it is noted that its end has come, the second time it is forgotten."""
        forks = self._mine().open
        if forks and forks[-1]:
            forks[-1] = False
        elif forks:
            del forks[-1]

    def _at_last(self, step: Step) -> None:
        """Take a step if no other fork is around this one."""
        if not any(self._mine().open):
            step()

    def _take_locks(self) -> None:
        self._mine().take_locks()

    def _give_back_locks(self) -> None:
        self._mine().give_back_locks()

    def _tell_torn(self) -> None:
        self._mine().tell_torn()

    def _forget(self) -> None:
        self._by_thread.pop(get_ident(), None)


def _hook(steps: list[Step]) -> Callable[[], None]:
    """What takes all steps, each again where it was interrupted, and raises at the end what interrupted it."""

    def run() -> None:
        left, interrupted, error = steps[::-1], None, None
        while left:
            try:
                while left:  # in the ``try``: the end of each round lets a signal in
                    left[-1]()
                    left.pop()
            except BaseException as raised:
                error = raised
                if left and left[-1] is interrupted:
                    left.pop()  # it fails by itself
                interrupted = left[-1] if left else None
        if error is not None:
            raise error

    return run


_FORKS: Final = _Forks()


def take_part(participant: Participant, *, before_locks: bool = False) -> None:
    """Have it called at every fork: as the last before one and the first after it, or the other way round."""
    _FORKS.add(participant, before_locks=before_locks)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hook(_FORKS.before))
    for _ in range(2):
        os.register_at_fork(after_in_parent=_hook(_FORKS.in_parent), after_in_child=_hook(_FORKS.in_child))
