"""The fork gate: no fork happens while a thread is inside LMDB, and no thread enters while one forks.

A child whose parent had a thread inside an LMDB call or transaction can neither use nor close the environment
it inherited: it hangs on a mutex whose owner does not exist there. So every LMDB operation passes this gate.
Nothing that waits or runs a user's code happens inside it.

Entering costs two dictionary operations, which the interpreter makes atomic: no lock that a fork, or a signal
handler in the same thread, could find taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final, Protocol, TypeVar, TypeVarTuple
from weakref import WeakSet

from batche._forks import Fork, Order, ProcessLock, take_part

BOUND: Final = 1.0
"""Seconds that anybody waits at the gate; a fork that waited longer leaves its child without the store."""
_GLANCE: Final = 0.00005

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class GateClosedError(Exception):
    """The gate cannot be passed now: this thread is inside it already or is forking, or a fork takes too long."""


class ForkedUncleanlyError(Exception):
    """This process was forked without the gate: what it inherited of LMDB must never be touched."""


class Inherits(Protocol):
    """What holds an LMDB environment open, and learns of forks."""

    def forked(self, *, clean: bool) -> None:
        """Called in the child; ``clean`` says that no thread was inside LMDB at the fork."""


class ForkGate:
    """A re-entrancy check and a barrier between LMDB operations and forks. One for a process."""

    order = Order.GATE

    def __init__(self) -> None:
        self._inside: dict[int, None] = {}
        self._forking: dict[int, bool] = {}  # by thread: whether it has seen that nobody was inside
        self._one = ProcessLock()  # of those who want to be alone
        self._pid = os.getpid()
        self.heirs: WeakSet[Inherits] = WeakSet()

    def through(self, operation: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Run ``operation(*arguments)`` inside the gate.

        A signal handler may raise at the start of a Python function and after any call, but not between other
        instructions (CPython 3.11 to 3.14). So no call comes between noting this thread and the ``try`` that ends
        with forgetting it, nor is a Python function called for either; a ``with`` would call two.
        """
        thread, inside = get_ident(), self._inside
        if thread in inside or thread in self._forking:
            raise GateClosedError(
                "this thread is already inside the store (a signal handler, a finaliser or a fork hook)"
            )
        if os.getpid() != self._pid:
            raise ForkedUncleanlyError("forked without Python's fork hooks")
        try:
            try:
                inside[thread] = None  # before the look: whoever begins to fork after it waits for this thread
                if self._forking:
                    self._wait_for_fork(thread)
                return operation(*arguments)
            finally:
                inside.pop(thread, None)
        except BaseException:  # again, because it may have come in the midst of that
            inside.pop(thread, None)
            raise

    def _wait_for_fork(self, thread: int) -> None:
        deadline = time.monotonic() + BOUND
        while self._forking:
            self._inside.pop(thread, None)
            if time.monotonic() > deadline:
                raise GateClosedError("another thread has been forking for over a second")
            time.sleep(_GLANCE)
            self._inside[thread] = None

    def before_fork(self, fork: Fork) -> None:
        """Let nobody in and wait until the others are out."""
        me = get_ident()
        if me not in self._forking:
            fork.undo += [partial(self._forking.pop, me, None)]
        self._shut(me)

    def _shut(self, me: int) -> None:
        self._forking[me] = False
        deadline = time.monotonic() + BOUND
        while (others := self._inside.keys() - {me}) and time.monotonic() < deadline:
            time.sleep(_GLANCE)
        self._forking[me] = not others and me not in self._inside  # who knocks after this look is let in by nobody

    def alone(self, operation: Callable[[], object]) -> bool:
        """Run ``operation()`` with the gate closed and everybody out.

        `False`: it was not run, because somebody stays inside for too long, or forks, or this thread is inside.
        """
        me = get_ident()
        if me in self._inside or me in self._forking:
            return False
        with self._one.lock:
            try:
                try:
                    self._shut(me)
                    is_out = self._forking[me]
                    self._inside[me] = None  # before the look: whoever begins to fork after it waits for this thread
                    if not is_out or self._forking.keys() - {me}:
                        return False
                    operation()
                    return True
                finally:
                    self._let_others_in(me)
            finally:
                self._let_others_in(me)  # again, because a signal handler may have raised in the midst of it

    def _let_others_in(self, me: int) -> None:
        self._inside.pop(me, None)
        self._forking.pop(me, None)

    def after_fork(self) -> None:
        """In the child: close what was inherited, or leave it alone for ever."""
        is_clean, pid = self._forking.get(get_ident(), False), os.getpid()
        for heir in list(self.heirs):
            heir.forked(clean=is_clean)
        self._inside, self._forking, self._pid = {}, {}, pid  # no call, so that nothing comes in after it


GATE: Final = ForkGate()
take_part(GATE)
