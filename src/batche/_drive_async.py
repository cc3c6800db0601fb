"""The driver for an async function: the same steps, while the loop goes on.

A step of the store is one transaction, done in the loop's thread: it takes microseconds, and a thread for it as long
again. Where another writer has its turn the task sleeps and asks again; where there is more than one transaction to do,
the loop turns between them. A task that waits holds no thread.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

from batche import _calls
from batche._drive import ask_store
from batche._engine import Run
from batche._forks import renew_after_fork
from batche._steps import Compute, Delete, Listen, Owners, Put, Read, Step, Steps, StoreStep, Wait
from batche._types import Key, Owner, Stored
from batche._wakeups import Wakeups
from batche.errors import StoreError
from batche.stores.base import PATIENCE, StoreBusyError, attempt

KEYS_A_TURN: Final = 1000
"""Keys that a store is asked about between two turns of the loop: fewer than one transaction may hold."""
_STEP: Final = 31
"""Keys that asking a store for anything at all takes as long as."""
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
        with _calls.inside(run.call), _calls.in_task(run.call):
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
    asking = Asking(run)
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
            answer = await _perform(run, step, asking, function)
        except StoreError as error:
            if isinstance(step, Compute):
                raise  # the function's own, of another cache that it calls
            trouble = error


async def _perform(run: Run, step: Step, asking: Asking, function: Callable[[list[Any]], Awaitable[Any]]) -> Any:
    match step:
        case Compute(items):
            return await function(items)
        case Listen(keys):
            return _listen(run.settings.wakeups, keys)
        case Wait(bell, seconds):
            return await bell.wait(seconds)
        case _:
            return await asking.ask(step)


async def ask_store_async(run: Run, step: StoreStep) -> Any:
    """Do what is the store's to do, a transaction at a time."""
    return await Asking(run).ask(step)


class _InParts(list[Owner | None]):
    """Owners as they were asked for: a store knows its own earlier answer again."""

    def __init__(self, parts: Sequence[Sequence[Owner | None]]) -> None:
        super().__init__(itertools.chain.from_iterable(parts))
        self.parts = parts


class Stint(threading.local):
    """What the tasks of this thread's loop had stores do since one of them last let the loop turn, in keys."""

    work = 0

    def allows(self, keys: int) -> bool:
        """Whether so much more may be done before the loop turns. Costs a call 0.1 us, and a turn now and then."""
        self.work += keys + _STEP
        return self.work <= KEYS_A_TURN + _STEP

    async def pause(self, keys: int, seconds: float = 0.0) -> None:
        """Let the loop turn; then so much is to be done."""
        await asyncio.sleep(seconds)
        self.work = keys + _STEP


stint: Final = Stint()


class Asking:
    """Has a store do the steps of one run, with at most `KEYS_A_TURN` keys between two turns of the loop."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def ask(self, step: StoreStep) -> Any:
        """Do a step, in parts where it is a large one."""
        match step:
            case Read(keys, use) if len(keys) > KEYS_A_TURN:
                found = [await self._turn(Read(part, use), len(part)) for part in _parts(keys)]
                return list(itertools.chain.from_iterable(found))
            case Delete(keys) if len(keys) > KEYS_A_TURN:
                return sum([await self._turn(Delete(part), len(part)) for part in _parts(keys)])
            case Owners(keys, before) if len(keys) > KEYS_A_TURN:
                return await self._owners(keys, before)
            case Put():
                return await self._put(step)
            case _:
                return await self._turn(step, len(step.keys))

    async def _owners(self, keys: Sequence[Key], before: Sequence[Owner | None] | None) -> _InParts:
        parts = list(_parts(keys))
        known = before.parts if isinstance(before, _InParts) else [None] * len(parts)
        asked = zip(parts, known, strict=True)
        return _InParts([await self._turn(Owners(part, then), len(part)) for part, then in asked])

    async def _put(self, step: Put) -> Stored:
        kept, too_large, entries = set[Key](), set[Key](), step.entries
        while True:
            number = len(entries) + len(step.drop) + len(step.claim)
            stored: Stored = await self._turn(step._replace(entries=entries), number)
            kept |= stored.kept
            too_large |= stored.too_large
            if not stored.rest:
                return Stored(frozenset(kept), frozenset(too_large), stored.claims)
            entries = entries[-stored.rest :]

    async def _turn(self, step: StoreStep, keys: int) -> Any:
        """Do one step, once the loop has turned, if that is due, and it is this writer's turn."""
        if not stint.allows(keys):
            await stint.pause(keys)
        begun, delay = time.monotonic(), _FIRST_TRY
        while True:
            waited = time.monotonic() - begun
            try:
                with attempt.after(waited):
                    return ask_store(self._run, step)
            except StoreBusyError:
                if waited > PATIENCE:
                    raise
            await stint.pause(keys, delay)
            delay = min(2 * delay, _LAST_TRY)


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), KEYS_A_TURN):
        yield keys[start : start + KEYS_A_TURN]


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
    done = Future[T]()
    _begin(function, done)
    return await _outcome(done)


class Together:
    """Calls something in a thread: one call at a time, for all who want it, in tasks of whatever loops."""

    def __init__(self) -> None:
        self._under_way: dict[int, Future[Any]] = {}  # by process: a fork does not inherit the thread

    async def in_thread(self, function: Callable[[], T], known: Callable[[], T | None]) -> T:
        """What a call of ``function`` comes to, or what is ``known`` of an earlier one. Who is cancelled stops none."""
        process, new = os.getpid(), Future[T]()
        done = self._under_way.setdefault(process, new)
        if done is new:
            new.add_done_callback(lambda _: self._under_way.pop(process, None))
            found = known()  # after winning, because another one may just have ended
            if found is not None:
                new.set_result(found)
                return found
            _begin(function, new)
        return await _outcome(done)


def _begin(function: Callable[[], T], done: Future[T]) -> None:
    context = copy_context()

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    try:
        threading.Thread(target=work, name=f"batche-{next(_numbers)}", daemon=True).start()
    except RuntimeError:  # there may be no more threads
        work()


async def _outcome(done: Future[T]) -> T:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not waiter.done():  # the task may have been cancelled
            waiter.set_result(None)

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)

    done.add_done_callback(tell)
    await waiter
    return done.result()
