"""Which calls of cached functions enclose the code that runs now.

Kept in a context variable, so that it reaches tasks and `asyncio.to_thread` by itself; a thread, executor or
process that a batch function starts is another caller.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

from batche._process import boot_ns, random_word, renew_after_fork
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
    """The id of the youngest enclosing call, but ``around`` itself, that holds claims; `None` where none does."""
    holders = [call.id for call in _enclosing.get() if call.holds and call is not around]
    return max(holders) if holders else None


def may_wait_for(owner: Owner, youngest: CallId | None) -> bool:
    """Whether waiting for ``owner`` cannot close a cycle.

    A caller that holds claims waits only for calls younger than all that hold claims around it: along any
    cycle of waits the ids would have to grow, so there is none.
    """
    return youngest is None or owner.call > youngest
