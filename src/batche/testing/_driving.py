"""Keys, values and calls for tests of stores, as the engine would make them."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier
from typing import Final, TypeVar

from batche import _calls
from batche._types import MINE, NOTHING_IS, Call, Key
from batche.stores.base import Store

NAMESPACE: Final = (1).to_bytes(8, "big")
OTHER: Final = (2).to_bytes(8, "big")
THREADS: Final = 8
"""How many race for one thing."""
T = TypeVar("T")


def key(number: int, namespace: bytes = NAMESPACE) -> Key:
    return namespace + number.to_bytes(20, "big")


def keys(numbers: Iterable[int], namespace: bytes = NAMESPACE) -> list[Key]:
    return [key(number, namespace) for number in numbers]


def value(number: int, size: int = 8) -> bytes:
    return number.to_bytes(8, "big").ljust(size, b".")


def by_use(numbers: Sequence[int]) -> list[int]:
    """The distinct ones, in the order of their last positions."""
    return list(reversed(OrderedDict.fromkeys(reversed(numbers))))


def shuffled(seed: int, number: int) -> list[int]:
    """The first numbers in some order, the same for each ``seed``."""
    numbers = list(range(number))
    Random(seed).shuffle(numbers)
    return numbers


def new_call(namespace: bytes = NAMESPACE) -> Call:
    return _calls.new_call(namespace)


def replacing_call(namespace: bytes = NAMESPACE) -> Call:
    """A call to which no entry is new enough."""
    call = new_call(namespace)
    call.newer_than = NOTHING_IS
    return call


def claim(store: Store, call: Call, numbers: Iterable[int], *, force: bool = False) -> list[int]:
    """Claim all of ``numbers`` for ``call``, however many steps that takes; returns those that were won."""
    won: list[int] = []
    left = list(numbers)
    while left:
        answers = store.claim(call, keys(left, call.namespace), force=force)
        assert answers, f"claim() tried none of {len(left)} keys: it must try at least the first"
        won += [number for number, answer in zip(left, answers, strict=False) if answer is MINE]
        left = left[len(answers) :]
    call.holds = call.holds or bool(won)
    return won


def use(store: Store, numbers: Sequence[int], *, size: int = 8, namespace: bytes = NAMESPACE) -> list[int]:
    """One call for a batch: hits are read, the rest is claimed, computed and stored. Returns what was missed."""
    order = by_use(numbers)
    found = store.read(keys(order, namespace))
    missed = [number for number, entry in zip(order, found, strict=True) if entry is None]
    call = new_call(namespace)
    outcomes = Counter(hits=len(numbers) - len(missed), misses=len(missed))
    try:
        won = claim(store, call, missed) if missed else []
        if won:
            store.put(call, [(key(number, namespace), value(number, size)) for number in won])
    finally:
        store.release(call, counts=outcomes)
    return missed


def replace(store: Store, number: int, by: bytes) -> None:
    """Store a value, whatever is there and whoever computes it."""
    call = replacing_call()
    claim(store, call, [number], force=True)
    store.put(call, [(key(number), by)])
    store.release(call)


def contents(store: Store, universe: Iterable[int], namespace: bytes = NAMESPACE) -> set[int]:
    """Which of ``universe`` have an entry; no use is noted."""
    universe = list(universe)
    found = store.read(keys(universe, namespace), use=False)
    return {number for number, entry in zip(universe, found, strict=True) if entry is not None}


def in_threads(number: int, body: Callable[[int], T]) -> list[T]:
    """Run ``body(0)``, ``body(1)`` ... at one time, and the interpreter changing threads as often as it can."""
    barrier = Barrier(number)

    def begin(index: int) -> T:
        barrier.wait(60)
        return body(index)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(number) as threads:
            return list(threads.map(begin, range(number)))
    finally:
        sys.setswitchinterval(interval)
