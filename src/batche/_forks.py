"""Forks: what waits for one, what is made anew in its child, and in which order.

Python calls hooks, and drops what they raise. A signal's handler may raise in one: Ctrl-C that comes during the fork
itself does so as the first hook after it begins, of which then nothing is done. So what is to be done is kept in lists,
from which an action goes once it is done, and the hooks that go through them are called more than once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from threading import RLock
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakSet, WeakValueDictionary

PATIENCE: Final = 1.0
"""Seconds that one fork waits for all that is of one order."""
_HOOKS: Final = 3
"""How often a hook after a fork is called: so many signals may come, each as one of them begins."""
_TRIES: Final = 100
"""After so many failures in a row an action is taken to fail by itself."""

Action: TypeAlias = Callable[[], object]
"""May be called again where a signal's handler raised in the midst of it, and then does what is left."""

# ---- what a child has anew ----


class Forkable(Protocol):
    """What keeps locks or other state that a forked child must not inherit as it stands."""

    def after_fork(self) -> None:
        """Make the state a child's own. Runs in the child's only thread; an `Action`."""


_forkables: WeakSet[Forkable] = WeakSet()


def renew_after_fork(forkable: Forkable) -> None:
    """Have ``forkable.after_fork()`` called in every forked child, for as long as the object lives."""
    _forkables.add(forkable)


class ProcessLock:
    """``lock`` is re-entrant, for a signal handler may come in between, and free in a forked child whoever held it."""

    torn = False
    """Whether another thread was changing what it guards when this process was forked, as far as it is known."""

    def __init__(self) -> None:
        self.lock = RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.lock = RLock()


def is_mine(lock: Any) -> bool:
    """Whether this thread holds a re-entrant lock."""
    return bool(lock._is_owned())  # as `threading.Condition` asks


# ---- what takes part in a fork ----


class Order(IntEnum):
    """Before a fork in this order, after it in the opposite one. Who holds a lock may take one of a higher order."""

    THREADS = 0
    ENTRIES = 1  # a user's code may run under such a lock, and come to open a store
    FILES = 2
    PLACE = 3
    GATE = 4  # who holds a lock may have to pass it


class Participant(Forkable, Protocol):
    """What does something before a fork."""

    order: Order

    def before_fork(self, fork: Fork) -> None:
        """Do it in the thread that forks, once ``fork.undo`` says how to undo it in the parent; an `Action`.

        What a fork around this one has done already is done, and is not undone.
        """


class Fork:
    """One fork of one thread: what is still to be done for it. The last action of a list is the next."""

    def __init__(self) -> None:
        self.begun = False
        """Whether the first hook before it has come, and the second has not."""
        self.over = False
        """Whether a hook after it has come."""
        self.before: list[Action] = [partial(each.before_fork, self) for each in reversed(_in_order())]
        self.undo: list[Action] = []
        self.renew: list[Action] | None = None
        self._until: dict[Order, float] = {}

    def seconds_left(self, order: Order) -> float:
        """Of its patience with all that is of one order."""
        now = time.monotonic()
        return max(0.0, self._until.setdefault(order, now + PATIENCE) - now)


class HeldLock(ProcessLock):
    """A `ProcessLock` that a forking thread holds meanwhile, so that the child inherits nothing half changed.

    The wait is bounded: where another thread held it for longer, ``torn`` is true in the child.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self._idle = False  # held, but only for a fork
        super().__init__()
        take_part(self)

    def before_fork(self, fork: Fork) -> None:
        lock = self.lock
        if not is_mine(lock):
            fork.undo += [partial(self._give_back, lock)]
            if lock.acquire(timeout=fork.seconds_left(self.order)):
                self._idle = True

    def _give_back(self, lock: Any) -> None:
        if is_mine(lock):
            self._idle = False
            lock.release()

    def after_fork(self) -> None:
        torn = self.torn or not (self._idle or self.lock.acquire(blocking=False))  # nobody else is here to take it
        lock = RLock()
        self.torn, self._idle, self.lock = torn, False, lock  # no call, so that nothing comes in between


_participants: WeakValueDictionary[int, Participant] = WeakValueDictionary()


def take_part(participant: Participant) -> None:
    """Have it take part in every fork, for as long as the object lives."""
    _participants[id(participant)] = participant


def _in_order() -> list[Participant]:
    there = [participant for each in _participants.valuerefs() if (participant := each()) is not None]
    return sorted(there, key=lambda each: (each.order, id(each)))


# ---- the hooks ----


class _Mine(threading.local):
    """The forks that this thread makes: more than one where a hook of a fork, or a signal's handler, makes another."""

    def __init__(self) -> None:
        self.forks: list[Fork] = []


_mine: Final = _Mine()


def _before() -> None:
    forks = _mine.forks
    while forks and forks[-1].over:
        del forks[-1]
    fork = Fork()
    forks += [fork]
    try:
        _do(fork.before)
    finally:
        fork.begun = True


def _before_again() -> None:
    forks = _mine.forks
    try:
        if forks and forks[-1].begun:
            _do(forks[-1].before)
        else:
            _before()
    finally:
        for fork in forks[-1:]:
            fork.begun = False


def _in_parent() -> None:
    for fork in _mine.forks[-1:]:
        try:
            _do(fork.undo)
        finally:
            fork.over = True


def _in_child() -> None:
    forks = _mine.forks
    if not forks:
        forks += [Fork()]  # the hooks before it were interrupted
    fork = forks[-1]
    if fork.renew is None:
        fork.renew = _renewals()
    try:
        _do(fork.renew)
    finally:
        fork.over = True


def _renewals() -> list[Action]:
    """What renews all: locks first, and those that take part in forks last, as the gate closes what is open."""
    every = dict.fromkeys((*_forkables, *_in_order()))  # a lock may be among both
    locks_first = sorted(every, key=lambda each: not isinstance(each, ProcessLock))
    return [each.after_fork for each in reversed(locks_first)]


def _at_the_end(hook: Callable[[], None]) -> Callable[[], None]:
    """The last of the hooks of a fork, which is over after it."""

    def run() -> None:
        try:
            hook()
        finally:
            forks = _mine.forks
            if forks and forks[-1].over:
                del forks[-1]

    return run


def _do(actions: list[Action]) -> None:
    """Take each action, again where it was interrupted. What interrupted it is raised at the end."""
    failures = 0
    error: BaseException | None = None
    while actions:
        try:
            while actions:  # in the ``try``: the end of each round lets a signal in
                actions[-1]()
                del actions[-1]
                failures = 0
        except BaseException as raised:  # no call in what follows, so that no second one comes in
            error = raised
            failures += 1
            if failures == _TRIES:
                del actions[-1]
                failures = 0
    if error is not None:
        try:
            raise error
        finally:
            del error  # which has this frame


if hasattr(os, "register_at_fork"):
    # Before a fork the hooks run from the last to the first, after it from the first to the last.
    os.register_at_fork(before=_before_again)
    os.register_at_fork(before=_before)
    for _ in range(_HOOKS - 1):
        os.register_at_fork(after_in_parent=_in_parent, after_in_child=_in_child)
    os.register_at_fork(after_in_parent=_at_the_end(_in_parent), after_in_child=_at_the_end(_in_child))
