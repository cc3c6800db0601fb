"""Which calls of cached functions enclose the code that runs now.

Kept in a context variable, so that it reaches tasks and `asyncio.to_thread` by itself; a thread, executor or
process that a batch function starts is another caller. Calls that wait in a thread keep its event loop from going on:
to these the calls of the loop's tasks are enclosing calls too.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Final

from batche._boot import boot_ns, random_word
from batche._forks import renew_after_fork
from batche._types import Call, CallId, Owner

_WORD: Final = (1 << 64) - 1
_enclosing: ContextVar[tuple[Call, ...]] = ContextVar("batche_enclosing_calls", default=())


class _Serials:
    """Numbers that no other call of any process has: they begin at a random place in each process."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.next = itertools.count(random_word()).__next__


_serials: Final = _Serials()


def new_call(namespace: bytes) -> Call:
    """A call that begins now."""
    return Call((boot_ns(), _serials.next() & _WORD), os.getpid(), namespace)


class _Tasks:
    """The calls that tasks make, by the thread of their loop."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.by_thread: dict[int, dict[CallId, Call]] = {}


_tasks: Final = _Tasks()


@contextmanager
def in_task(call: Call) -> Iterator[None]:
    """Note that ``call`` is made by a task of this thread's loop."""
    here = _tasks.by_thread.setdefault(get_ident(), {})  # the collector may end a call in another thread
    here[call.id] = call
    try:
        yield
    finally:
        here.pop(call.id, None)


def _stopped_by(call: Call | None) -> list[Call]:
    """The calls of tasks that cannot go on while ``call`` waits in this thread; a task's call stops none."""
    here = _tasks.by_thread.get(get_ident())
    if not here or call is None or call.id in here:
        return []
    return list(here.values())


@contextmanager
def inside(call: Call) -> Iterator[None]:
    """Make ``call`` enclose the code of the ``with``."""
    token = _enclosing.set((*_enclosing.get(), call))
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine that the collector closes ends in another context
            _enclosing.reset(token)


def youngest_holder(*, around: Call | None = None) -> CallId | None:
    """The id of the youngest call that encloses ``around``, and holds claims; `None` where none does."""
    enclosing = (*_enclosing.get(), *_stopped_by(around))
    holders = [call.id for call in enclosing if call.holds and call is not around]
    return max(holders) if holders else None


def may_wait_for(owner: Owner, youngest: CallId | None) -> bool:
    """Whether waiting for ``owner`` cannot close a cycle.

    A caller that holds claims waits only for calls younger than all that hold claims around it: along any
    cycle of waits the ids would have to grow, so there is none.
    """
    return youngest is None or owner.call > youngest
