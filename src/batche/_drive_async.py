"""The driver for an async function: the same steps, while the loop goes on.

A step of the store is one transaction, done in the loop's thread: it takes microseconds, and a thread for it as long
again. Where another writer has its turn the task sleeps and asks again; where there is more than one transaction to do,
the loop turns between them. A task that waits holds no thread.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

from batche import _calls
from batche._drive import ask_store
from batche._engine import Run
from batche._process import renew_after_fork
from batche._steps import Compute, Delete, Listen, Put, Read, Step, Steps, StoreStep, Wait
from batche._types import Entry, Key, Stored
from batche._wakeups import Wakeups
from batche.errors import StoreError
from batche.stores.base import PATIENCE, StoreBusyError, attempt

MOST_KEYS: Final = 1000
"""Keys that a store is asked to read or to remove before the loop turns."""
_FIRST_TRY: Final = 0.0001
_LAST_TRY: Final = 0.002
_SHARE: Final = 0.0002
"""Seconds between two looks at the store by all waiting tasks together: so many of them look more seldom each."""

T = TypeVar("T")


async def drive_async(run: Run, function: Callable[[list[Any]], Awaitable[Any]]) -> list[Any]:
    """Run the steps of a call in this task; ``function`` is awaited with the items to compute."""
    abandoned = True  # by whatever is not an `Exception`: a cancellation, most of all
    steps = run.steps()
    try:
        with _calls.inside(run.call):
            results = await _advance(run, steps, function)
        abandoned = False
        return results
    except Exception:
        abandoned = False
        raise
    finally:
        try:
            run.end(abandoned=abandoned)
            steps.close()  # leaves what the run was inside of
        finally:
            run.let_go()


async def _advance(run: Run, steps: Steps, function: Callable[[list[Any]], Awaitable[Any]]) -> list[Any]:
    answer: Any = None
    trouble: StoreError | None = None
    while True:
        try:
            step = steps.throw(trouble) if trouble else steps.send(answer)
        except StopIteration as done:
            results: list[Any] = done.value
            return results
        answer, trouble = None, None
        try:
            answer = await _perform(run, step, function)
        except StoreError as error:
            if isinstance(step, Compute):
                raise  # the function's own, of another cache that it calls
            trouble = error


async def _perform(run: Run, step: Step, function: Callable[[list[Any]], Awaitable[Any]]) -> Any:
    match step:
        case Compute(items):
            return await function(items)
        case Listen(keys):
            return _listen(run.settings.wakeups, keys)
        case Wait(bell, seconds):
            return await bell.wait(seconds)
        case _:
            return await ask_store_async(run, step)


async def ask_store_async(run: Run, step: StoreStep) -> Any:
    """Do what is the store's to do, a transaction at a time."""
    match step:
        case Read(keys, use) if len(keys) > MOST_KEYS:
            found: list[list[Entry | None]] = [await _turn(run, Read(piece, use)) async for piece in _pieces(keys)]
            return list(itertools.chain.from_iterable(found))
        case Delete(keys) if len(keys) > MOST_KEYS:
            return sum([await _turn(run, Delete(piece)) async for piece in _pieces(keys)])
        case Put():
            return await _put(run, step)
        case _:
            return await _turn(run, step)


async def _pieces(keys: Sequence[Key]) -> AsyncIterator[Sequence[Key]]:
    """Parts of ``keys`` between which the loop turns."""
    for start in range(0, len(keys), MOST_KEYS):
        await asyncio.sleep(0)
        yield keys[start : start + MOST_KEYS]


async def _put(run: Run, step: Put) -> Stored:
    kept, too_large, entries = set[Key](), set[Key](), step.entries
    while True:
        stored: Stored = await _turn(run, Put(entries, step.drop, step.claim))
        kept |= stored.kept
        too_large |= stored.too_large
        if not stored.rest:
            return Stored(frozenset(kept), frozenset(too_large), stored.claims)
        entries = entries[-stored.rest :]
        await asyncio.sleep(0)


async def _turn(run: Run, step: StoreStep) -> Any:
    """Do one step, once it is this writer's turn."""
    deadline, delay = time.monotonic() + PATIENCE, _FIRST_TRY
    while True:
        try:
            with attempt:
                return ask_store(run, step)
        except StoreBusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LAST_TRY)


class _Waiting:
    """How many tasks of this process wait for somebody else's computation."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.tasks = 0


_waiting: Final = _Waiting()


class Bell:
    """Wakes one task, from whatever thread it is rung."""

    def __init__(self, wakeups: Wakeups, keys: Sequence[Key]) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self.listening = wakeups.listen(keys, self.ring)

    def ring(self) -> None:
        """Let the waiter go on, now or when it comes to wait."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float) -> None:
        """Wait until it is rung, at most so long; or longer, where a crowd waits."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, _SHARE * _waiting.tasks)):
                await self._rung.wait()
        if self._rung.is_set():
            self._rung.clear()
            self.listening.renew()


@contextmanager
def _listen(wakeups: Wakeups, keys: Sequence[Key]) -> Iterator[Bell]:
    bell = Bell(wakeups, keys)
    _waiting.tasks += 1
    try:
        with bell.listening:
            yield bell
    finally:
        _waiting.tasks -= 1


_numbers: Final = itertools.count(1)


async def in_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread of its own, which no other work can keep from starting: unlike a pool's."""
    loop, context = asyncio.get_running_loop(), copy_context()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Callable[[T], None] | Callable[[BaseException], None], value: Any) -> None:
        def settle() -> None:
            if not done.done():  # the task may have been cancelled
                outcome(value)

        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as error:
            tell(done.set_exception, error)
        else:
            tell(done.set_result, result)

    threading.Thread(target=work, name=f"batche-{next(_numbers)}", daemon=True).start()
    return await done
