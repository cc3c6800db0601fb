"""The driver for a sync function: does what the engine asks for, and waits in the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

from batche import _calls
from batche._engine import Run
from batche._steps import Claim, Compute, Delete, Listen, Owners, Put, Read, Step, Steps, StoreStep, Wait
from batche._types import Key
from batche._wakeups import Wakeups
from batche.errors import StoreError


def drive(run: Run, function: Callable[[list[Any]], Any]) -> list[Any]:
    """Run the steps of a call in this thread; ``function`` is called with the items to compute."""
    abandoned = True  # by whatever is not an `Exception`: an interrupt, a cancellation
    steps = run.steps()
    try:
        with _calls.inside(run.call):  # all of it: a signal handler or a codec may call a cached function at any step
            results = _advance(run, steps, function)
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


def _advance(run: Run, steps: Steps, function: Callable[[list[Any]], Any]) -> list[Any]:
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
            answer = _perform(run, step, function)
        except StoreError as error:
            if isinstance(step, Compute):
                raise  # the function's own, of another cache that it calls
            trouble = error


def _perform(run: Run, step: Step, function: Callable[[list[Any]], Any]) -> Any:
    match step:
        case Compute(items):
            return function(items)
        case Listen(keys):
            return _listen(run.settings.wakeups, keys)
        case Wait(bell, seconds):
            return bell.wait(seconds)
        case _:
            return ask_store(run, step)


def ask_store(run: Run, step: StoreStep) -> Any:
    """Do what is the store's to do."""
    store, limit = run.settings.store, run.settings.batch_size
    match step:
        case Read(keys, use):
            return store.read(keys, use=use)
        case Claim(keys, force):
            return store.claim(run.call, keys, limit, force=force)
        case Put(entries, drop, claim, force):
            return store.put(run.call, entries, drop, claim, limit, force=force)
        case Delete(keys):
            return store.delete(keys)
        case Owners(keys, before):
            return store.owners(keys, before)


class Bell:
    """Wakes one thread. A bare lock: unlike an event, it may be rung by a signal handler in the thread that waits."""

    def __init__(self, wakeups: Wakeups, keys: Sequence[Key]) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.listening = wakeups.listen(keys, self.ring)

    def ring(self) -> None:
        """Let the waiter go on, now or when it comes to wait."""
        with suppress(RuntimeError):  # it has been rung already
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Wait until it is rung, at most so long."""
        if self._lock.acquire(timeout=seconds):
            self.listening.renew()


@contextmanager
def _listen(wakeups: Wakeups, keys: Sequence[Key]) -> Iterator[Bell]:
    bell = Bell(wakeups, keys)
    with bell.listening as listening:
        try:
            yield bell
        finally:
            listening.end()
