"""A fork while another thread holds a lock of the library's: the child has it anew, and does not wait for nobody."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from batche import _calls, cache_batch_variable
from batche._forks import Fork, HeldLock, Order, ProcessLock
from batche._hooks import hooks
from batche.stores import mapping
from batche.stores.lmdb import words
from batche.stores.null import NullStore
from batche.testing import _recording, disabled, recording
from tests.processes._tools import exit_status, fork

NULL = NullStore()


def count() -> None:
    NULL.release(_calls.new_call(b"function"), counts={"misses": 1})
    assert NULL.stats(b"function").misses == 1


def decorate_with_a_mapping() -> None:
    assert squares(store={})([2]) == [4]


def disable() -> None:
    with disabled():
        assert squares(store={})([2]) == [4]


def record() -> None:
    function = squares(store={})
    with recording(function) as computed:
        assert function([2]) == [4]
    assert computed == [2]


def use_the_runtime_place() -> None:
    assert squares()([2]) == [4]


def squares(**options: Any) -> Any:
    @cache_batch_variable("numbers", **options)
    def square(numbers: list[int]) -> list[int]:
        return [number * number for number in numbers]

    return square


@contextmanager
def held_by_another_thread(lock: AbstractContextManager[object]) -> Iterator[None]:
    """Have another thread inside of ``lock``."""
    inside, out = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            out.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(60)
        yield
    finally:
        out.set()
        thread.join()


@contextmanager
def forking(lock: HeldLock) -> Iterator[None]:
    """Hold ``lock`` as a thread does that forks."""
    fork = Fork()
    lock.before_fork(fork)
    yield
    for undo in fork.undo:
        undo()


@pytest.mark.parametrize(
    ("lock", "use"),
    [
        (NULL._counting, count),
        (mapping._choosing, decorate_with_a_mapping),
        (hooks._switching, disable),
        (_recording._attaching, record),
        (words._ASSIGNING, use_the_runtime_place),
    ],
)
def test_a_child_uses_what_another_thread_held_when_it_was_forked(lock: ProcessLock, use: Callable[[], None]) -> None:
    with held_by_another_thread(lock.lock):
        child = multiprocessing.get_context("fork").Process(target=use)
        child.start()
        child.join(30)
        stuck = child.exitcode is None
        child.kill()
        child.join()
        assert not stuck, "it waits for a thread that it does not have"
        assert child.exitcode == 0


@pytest.mark.parametrize("holds", ["for a fork", "otherwise"])
def test_a_child_is_told_what_was_being_changed_and_nothing_else(holds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batche._forks.PATIENCE", 0.05)
    held, free = HeldLock(Order.ENTRIES), HeldLock(Order.ENTRIES)
    with held_by_another_thread(held.lock if holds == "otherwise" else forking(held)):
        pid = fork(lambda: 2 * held.torn + free.torn)
        assert exit_status(pid) == (2 if holds == "otherwise" else 0)
    assert not held.torn
    assert not free.torn
