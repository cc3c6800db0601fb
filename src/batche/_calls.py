"""Which calls of cached functions enclose the code that runs now.

Kept in a context variable, so that it reaches tasks and `asyncio.to_thread` by itself; a thread, executor or
process that a batch function starts is another caller.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from batche._process import boot_ns, random_word
from batche._types import Call, CallId, Owner

_enclosing: ContextVar[tuple[Call, ...]] = ContextVar("batche_enclosing_calls", default=())


def new_call(namespace: bytes) -> Call:
    """A call that begins now."""
    return Call((boot_ns(), random_word()), os.getpid(), namespace)


@contextmanager
def inside(call: Call) -> Iterator[None]:
    """Make ``call`` enclose the code of the ``with``."""
    token = _enclosing.set((*_enclosing.get(), call))
    try:
        yield
    finally:
        _enclosing.reset(token)


def youngest_holder() -> CallId | None:
    """The id of the youngest enclosing call that still holds claims; `None` where none does."""
    holders = [call.id for call in _enclosing.get() if call.holds]
    return max(holders) if holders else None


def may_wait_for(owner: Owner, youngest: CallId | None) -> bool:
    """Whether waiting for ``owner`` cannot close a cycle.

    A caller that holds claims waits only for calls younger than all that hold claims around it: along any
    cycle of waits the ids would have to grow, so there is none.
    """
    return youngest is None or owner.call > youngest
