"""A storm of forks: from two threads of a process whose other threads read, write, compute and wait."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.faults._recount_open import readers, recount
from tests.faults._report import Report
from tests.processes._tools import Scene, exit_status, fork, until
from tests.processes.programs import scenes
from tests.processes.programs.scenes import function

HIT: Final = [1, 2, 3]
"""Items that are there from the beginning."""
_OWN: Final = 1_000_000
"""Each child has this many items of its own, which begin at a multiple of it."""
_RIGHT, _WRONG, _UNCACHED, _RAISED, _WITHOUT_HOOKS = 0, 1, 2, 3, 4
_C_FORKS: Final = 5


def briefly(scene: Scene, items: list[Any]) -> None:
    """Compute for a while, so that others wait."""
    time.sleep(0.002)


def ask(scene: Scene, items: list[int]) -> bool:
    """Whether the answer is right. What was asked for is written down once it is answered."""
    right = scenes.call(scene, briefly, items) == [10 * item for item in items]
    scene.journal("asked").note(len(items))
    return right


class _Load:
    """The parent's other threads. Each goes on between any two forks, or the storm would not be one."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._over = threading.Event()
        self.wrong = 0
        works = {"reads": self._read, "writes": self._write, "shares": self._share, "shares too": self._share}
        self.rounds = dict.fromkeys(works, 0)
        self._threads = [threading.Thread(target=self._run, args=pair) for pair in works.items()]

    def _run(self, name: str, work: Callable[[int], list[int]]) -> None:
        for number in itertools.count(1):
            if self._over.is_set():
                return
            self.wrong += not ask(self._scene, work(number))
            self.rounds[name] += 1

    def _read(self, number: int) -> list[int]:
        return HIT

    def _write(self, number: int) -> list[int]:
        return [10_000 + 3 * number + i for i in range(3)]

    def _share(self, number: int) -> list[int]:
        """Two threads ask for the same: one computes, the other waits."""
        return [500_000 + number, *HIT]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def await_a_round(self) -> None:
        """Return once each has gone on, or has ended."""
        before = dict(self.rounds)
        until(lambda: all(self.rounds[name] > before[name] for name in before) or self.over, "the threads go on")

    @property
    def over(self) -> bool:
        return not all(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def fork_storm(scene: Scene, forks: int) -> Report:
    """Run one storm, in a process of its own."""
    report = Report("fork under load", {"forks": 0, "forks made in C": _C_FORKS})
    ask(scene, HIT)
    load, statuses = _Load(scene), list[int]()
    load.start()
    try:
        forking = [
            threading.Thread(target=_fork_on, args=(scene, load, range(first, forks + 1, 2), statuses))
            for first in (1, 2)
        ]
        for thread in forking:
            thread.start()
        for thread in forking:
            thread.join()
    finally:
        load.end()
    ended = Counter(statuses)
    report.injected["forks"] = len(statuses)
    report.found |= {"rounds of the parent": sum(load.rounds.values()), "uncached children": ended[_UNCACHED]}
    report.check(ended.total() == forks, f"only {ended.total()} of {forks} children ended")
    report.check(ended[_RIGHT] + ended[_RAISED] == forks, f"children ended with {ended}")
    report.check(load.wrong == 0, f"{load.wrong} wrong answers in the parent")
    _check_store(scene, report)
    for number in range(_C_FORKS):  # nobody else runs: what a thread held then would be held for ever in the child
        status = exit_status(_fork_in_c(partial(_compute_alone, scene, number)))
        report.check(status == _WITHOUT_HOOKS, f"a child of a fork made in C ended with {status}")
    _check_store(scene, report)
    return report


def _fork_on(scene: Scene, load: _Load, numbers: range, statuses: list[int]) -> None:
    for number in numbers:
        statuses.append(_WAYS[number % len(_WAYS)](scene, number))
        load.await_a_round()


# ---- children ----


def _use(scene: Scene, first: int) -> int:
    """Hit, miss, and ask for what the parent is about to compute."""
    own = [first, first + 1]
    if not ask(scene, [*HIT, *own]) or not ask(scene, [500_000 + first // _OWN % 50, first]):
        return _WRONG
    if not all(scenes.contains(scene, briefly, own)):
        return _UNCACHED
    store = function(scene, briefly).store
    has_its_own = os.getpid() in store._opened.lmdb.read(lambda _: readers(store))  # a place among LMDB's readers
    return _RIGHT if has_its_own else _WRONG


def _ends_at_once(scene: Scene, number: int) -> int:
    return exit_status(fork(partial(_use, scene, number * _OWN)))


def _ends_by_exception(scene: Scene, number: int) -> int:
    process: Any = multiprocessing.get_context("fork").Process(target=_use_and_raise, args=(scene, number * _OWN))
    process.start()
    until(lambda: process.exitcode is not None, "a child ends")  # whichever thread reaps it, `multiprocessing` knows
    return _RAISED if process.exitcode == 1 else _WRONG


def _use_and_raise(scene: Scene, first: int) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  the interpreter prints there until the very end
    status = _use(scene, first)
    if status == _RIGHT:
        raise ZeroDivisionError
    os._exit(90 + status)


def _forks_again(scene: Scene, number: int) -> int:
    def both() -> int:
        before = fork(partial(_use, scene, number * _OWN))
        own = _use(scene, number * _OWN + 10)
        after = fork(partial(_use, scene, number * _OWN + 20))
        return max(own, exit_status(before), exit_status(after))

    return exit_status(fork(both))


def _forks_inside_a_call(scene: Scene, number: int) -> int:
    """The child comes back up through the call, of which nothing is stored or counted by it."""
    me, children = os.getpid(), list[int]()

    def compute_and_fork(items: list[Any]) -> list[Any]:
        scene.journal().note(*items)
        children.append(os.fork())
        return [10 * item for item in items]

    call = function(scene, briefly)
    answer = _again(call, compute_and_fork)([number * _OWN])
    if os.getpid() != me:
        status = _WRONG
        try:
            status = _use(scene, number * _OWN + 10) if answer == [10 * number * _OWN] else _WRONG
        finally:
            os._exit(status)
    scene.journal("asked").note(1)
    return exit_status(children[0])


def _again(cached: Any, compute: Callable[[list[Any]], list[Any]]) -> Any:
    """The same function for the store, computed in another way."""
    from batche import cache_batch_variable

    parameters = cached.cache_parameters()
    return cache_batch_variable("items", name=parameters["name"], version="1", store=parameters["store"])(compute)


def _fork_in_c(work: Callable[[], int]) -> int:
    """As `fork`, without Python's hooks."""
    pid = int(ctypes.PyDLL(None).fork())
    if pid == 0:
        status = 98
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


def _compute_alone(scene: Scene, number: int) -> int:
    """Without the hooks nothing of the parent's store is touched, be it there or not."""
    before = len(scene.journal().lines())
    items = [*HIT, -1 - number]
    right = scenes.call(scene, briefly, items) == [10 * item for item in items]
    computed = scene.journal().lines()[before:]
    scene.journal("without-hooks").note(*computed)
    return _WITHOUT_HOOKS if right and computed == list(map(str, items)) else _WRONG


_WAYS: Final = [_ends_at_once, _ends_by_exception, _forks_again, _ends_at_once, _forks_inside_a_call]


# ---- what must hold ----


def _check_store(scene: Scene, report: Report) -> None:
    """Each item was computed once, each position is counted once, and the store is what it says it is."""
    computed = scene.journal().counts() - scene.journal("without-hooks").counts()
    twice = [item for item, number in computed.items() if number > 1]
    report.check(not twice, f"{len(twice)} items were computed more than once: {twice[:5]}")
    store = function(scene, briefly).store
    try:
        until(lambda: _write_once_more(scene) == 0, "no claim is left", 16)
    except TimeoutError:
        report.lost.append(f"{recount(store).claims} claims are left")
    counted, found = scenes.info(scene, briefly), recount(store)
    asked = sum(map(int, scene.journal("asked").lines()))
    report.found |= {"positions": asked, "waits": counted.waits, "entries": found.entries}
    positions = counted.hits + counted.misses + counted.waits
    report.check(positions == asked, f"{positions} positions are counted, and {asked} were answered")
    report.check(counted.errors == 0, f"{counted.errors} errors of the store")
    report.check(counted.misses == computed.total(), f"{counted.misses} misses, and {computed.total()} computed")
    report.check(found.entries == len(computed), f"{found.entries} entries of {len(computed)} items")
    report.check((counted.currsize, counted.bytes) == (found.entries, found.bytes), f"{counted} is not what is there")
    report.lost += found.wrong
    left = readers(store) - {os.getpid()}
    report.check(not left, f"{len(left)} readers of children are left")


def _write_once_more(scene: Scene) -> int:
    scenes.invalidate(scene, briefly, [-100])
    return recount(function(scene, briefly).store).claims
