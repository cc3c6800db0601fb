"""Calls that an exception ends at a step of the test's choice, and what is left of them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

from batche import _calls as calls
from batche import _forks
from batche._forks import HeldLock, is_mine
from batche.stores.lmdb import records
from batche.stores.lmdb.gate import GATE
from batche.stores.lmdb.place import _REGISTRY
from batche.stores.lmdb.records import ENTRY
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.workers import State
from batche.stores.lmdb.writing import claimed_keys
from tests.faults._injection import Signalled, Steps, place_of, raiser
from tests.processes._tools import LONGEST, Scene, exit_status, fork, until
from tests.processes.programs import scenes
from tests.processes.programs.scenes import function

ITEMS: Final = 3
"""Items of each batch."""
_told: dict[int, str] = {}
Operation = Callable[[Any, list[int]], object]
"""Something that is done with a cached function beside calling it."""


@dataclass(frozen=True)
class Ended:
    """How a call came to its end, and what it left in its process that it must not leave.

    Ended by ``answer``, or by the error whose name is ``error``; ``place`` says where that was injected.
    """

    places: list[str]
    place: str
    answer: Any
    error: str
    left: list[str]


# ---- what calls do ----


def as_told(scene: Scene, items: list[Any]) -> None:
    """What this process was told to do with a batch that begins so; else just compute."""
    order = _told.pop(items[0], "")
    if order == "abandon":
        raise KeyboardInterrupt
    if order == "hold":
        scenes.held(scene, items)


def batch_of(number: int) -> list[int]:
    """A batch of items that no other number has."""
    return [ITEMS * number + item for item in range(ITEMS)]


def answer_to(items: list[int]) -> list[int]:
    return [10 * item for item in items]


def hold(scene: Scene, items: list[int]) -> list[int]:
    """Compute, until the test says go."""
    _told[items[0]] = "hold"
    return scenes.call(scene, as_told, items)


def abandon(scene: Scene, items: list[int]) -> None:
    """Leave claims behind as an owner does that an interrupt has ended."""
    _told[items[0]] = "abandon"
    try:
        scenes.call(scene, as_told, items)
    except KeyboardInterrupt:
        return
    raise AssertionError("nothing was computed, so nothing is abandoned")


# ---- the call that is interrupted ----


def interrupt(scene: Scene, kind: str, step: int, error: type[BaseException], items: list[int]) -> Ended:
    """Make a call in this thread, with ``error`` raised at ``step``."""
    return _interrupted(scene, kind, step, error, partial(function(scene, as_told), items))


def interrupt_waiting(scene: Scene, kind: str, step: int, error: type[BaseException], items: list[int]) -> Ended:
    """The same, for a call that waits for another process, which goes on once this one waits, or has ended."""
    over = threading.Event()
    listeners = function(scene, as_told).store.wakeups._listeners

    def let_go() -> None:
        until(lambda: listeners or over.is_set(), "the call waits, or has ended")
        scene.flag(f"go-{items[0]}").set()

    helper = threading.Thread(target=let_go)
    helper.start()
    try:
        return interrupt(scene, kind, step, error, items)
    finally:
        over.set()
        helper.join()


def interrupt_operation(
    scene: Scene, kind: str, step: int, error: type[BaseException], items: list[int], operation: Operation
) -> Ended:
    """The same, for something else that is done with the entries of ``items``."""
    return _interrupted(scene, kind, step, error, partial(operation, function(scene, as_told), items))


def interrupt_fork(scene: Scene, kind: str, step: int, error: type[BaseException] | None, items: list[int]) -> Ended:
    """Fork a child that makes a call, with an ``error`` raised at ``step`` of the hooks and one at the next.

    Python drops them. Without an ``error`` other children are forked there, as a signal's handler may do.
    Steps before the fork are the parent's, and those after it are taken by both, each its own.
    """
    reading, writing = os.pipe()
    with Steps(kind, step, _fork_another if error is None else raiser(error), times=2) as steps:
        pid = fork(partial(_call_in_child, scene, items, steps, writing))
    os.close(writing)
    with open(reading) as pipe:
        places = max(steps.places, pipe.read().splitlines(), key=len)
    status = exit_status(pid)
    return Ended(
        places,
        place_of(places, step),
        answer_to(items) if status == 0 else None,
        "",
        leftovers(function(scene, as_told)),
    )


def _fork_another() -> None:
    exit_status(fork(lambda: 0))


def _call_in_child(scene: Scene, items: list[int], steps: Steps, writing: int) -> int:
    sys.setprofile(None)  # hooks only
    os.write(writing, "\n".join(steps.places).encode())
    left = leftovers(function(scene, as_told))
    return 0 if left == [] and scenes.call(scene, as_told, items) == answer_to(items) else 1


@dataclass(frozen=True)
class Forked:
    """What came of forks under signals: children that did not end well, exceptions that Python dropped."""

    bad: int
    dropped: int
    left: list[str]


def fork_under_signals(scene: Scene, forks: int) -> Forked:
    """Fork children that call, while another process signals, and another thread has the interpreter busy."""
    items, armed, dropped = batch_of(1), [False], itertools.count()

    def handle(number: int, frame: FrameType | None) -> None:
        if armed[0]:
            raise Signalled

    def use_up() -> None:
        while not over.is_set():
            sum(range(1000))

    scenes.call(scene, as_told, items)
    over, me = threading.Event(), os.getpid()
    before = signal.signal(signal.SIGUSR1, handle), sys.unraisablehook
    sys.unraisablehook = partial(next, dropped)  # no function of Python, in which a handler would raise as well
    busy = threading.Thread(target=use_up)
    busy.start()
    sender = fork(lambda: _signal_often(me))
    os.setpgid(sender, sender)  # so that it is not waited for with the others
    bad = 0
    try:
        for _ in range(forks):
            try:
                armed[0] = True
                os.fork()
                armed[0] = False
            except Signalled:  # no call before the handler is disarmed, so that it raises once at most
                armed[0] = False
            if os.getpid() != me:
                signal.alarm(int(LONGEST))
                right = leftovers(function(scene, as_told)) == [] and scenes.call(scene, as_told, items)
                os._exit(0 if right == answer_to(items) else 1)
            bad += _ended_badly()
    finally:
        os.kill(sender, signal.SIGKILL)
        os.waitpid(sender, 0)
        over.set()
        busy.join()
        signal.signal(signal.SIGUSR1, before[0])
        sys.unraisablehook = before[1]
    return Forked(bad, next(dropped), leftovers(function(scene, as_told)))


def fork_with_little_stack(scene: Scene) -> list[str]:
    """Fork with fewer and fewer frames left up to the limit of recursion; what is left of it."""
    scenes.call(scene, as_told, batch_of(1))
    me, before = os.getpid(), sys.unraisablehook
    sys.unraisablehook = partial(next, itertools.count())
    try:
        for frames in range(30, 1, -1):
            with contextlib.suppress(RecursionError):
                _fork_under(frames, sys.getrecursionlimit() - len(traceback.extract_stack()))
            if os.getpid() != me:
                os._exit(1)
    finally:
        sys.unraisablehook = before
    _ended_badly()
    return leftovers(function(scene, as_told))


def _fork_under(frames: int, left: int) -> None:
    if left > frames:
        _fork_under(frames, left - 1)
    elif os.fork() == 0:
        os._exit(0)


def _ended_badly() -> int:
    """Wait for all children of this process's group; how many did not end well."""
    bad = 0
    while True:
        try:
            bad += os.waitpid(0, 0)[1] != 0
        except ChildProcessError:
            return bad


def _signal_often(pid: int) -> int:
    moments = random.Random(pid)
    while os.getppid() == pid:
        time.sleep(moments.uniform(0, 0.01))
        os.kill(pid, signal.SIGUSR1)
    return 0


def _interrupted(scene: Scene, kind: str, step: int, error: type[BaseException], call: Callable[[], Any]) -> Ended:
    answer, caught = None, ""
    with Steps(kind, step, raiser(error)) as steps:
        try:
            answer = call()
        except BaseException as raised:
            caught = type(raised).__name__
    gc.collect(1)  # what the error's traceback holds
    return Ended(
        steps.places,
        place_of(steps.places, step),
        answer,
        caught,
        leftovers(function(scene, as_told)),
    )


def leftovers(cached: Any) -> list[str]:
    """What is held still in this process, where no call is under way."""
    inside = [*GATE._inside, *GATE._forking]
    GATE._inside.clear()  # so that the rest can be looked at
    GATE._forking.clear()
    environment, listeners = cached.store._opened.lmdb, len(cached.store.wakeups._listeners)
    cached.store.wakeups._listeners.clear()
    held = {
        "the gate": inside,
        "the writer's turn": environment._turn._is_owned(),
        "the registry's lock": _REGISTRY.lock._is_owned(),  # type: ignore[attr-defined]  # typeshed leaves it out
        "a reader": "no active readers" not in environment._handle().readers(),
        "a claim": claims_that_hold(cached),
        "a listener": listeners,
        "an enclosing call that holds": calls.youngest_holder(),
        "a fork": any(not fork.over for fork in _forks._mine.forks),
        "a lock that forks wait for": any(
            isinstance(each, HeldLock) and is_mine(each.lock) for each in _forks._in_order()
        ),
    }
    return [name for name, is_held in held.items() if is_held]


def claims_that_hold(cached: Any) -> int:
    """The claims of this process that hold."""
    opened = cached.store._opened
    raws = opened.lmdb.read(lambda transaction: claimed_keys(transaction, b"", 100_000))
    handles = [claim.handle for _, raw in raws if (claim := records.unpack_claim(raw))]
    workers = opened.workers
    return sum(handle.token == workers.token and workers.state(handle) is State.RUNNING for handle in handles)


def reports(scene: Scene) -> list[str]:
    return sorted(function(scene, as_told)._reports._said)


# ---- what may be interrupted beside calls ----


def tells(cached: Any, items: list[int]) -> None:
    cached.cache_info()
    cached.cache_contains(items)


def invalidates(cached: Any, items: list[int]) -> None:
    cached.cache_invalidate(items)


def refreshes(cached: Any, items: list[int]) -> None:
    cached.cache_refresh(items)


def puts(cached: Any, items: list[int]) -> None:
    cached.cache_put(answer_to(items), items)


def warms(cached: Any, items: list[int]) -> None:
    cached.cache_invalidate(items[:1])
    cached.cache_warm(items)


def clears(cached: Any, items: list[int]) -> None:
    cached.cache_clear()


def makes_sure(cached: Any, items: list[int]) -> None:
    """Has all of it survive a crash of the system, twice: with a write in between."""
    cached.store.sync()
    cached.cache_invalidate(items[:1])
    cached.store.sync()


def closes(cached: Any, items: list[int]) -> None:
    cached.store.close()
    cached(items)


def scans(cached: Any, items: list[int]) -> None:
    """Takes the oldest entry, and looks through the others."""
    namespace = cached._bound().settings.namespace
    taken = cached.store.take_oldest(namespace)
    assert taken is not None
    cached.store.take(list(cached.store.keys(namespace))[:2])


OPERATIONS: Final[tuple[Operation, ...]] = (
    tells,
    invalidates,
    refreshes,
    puts,
    warms,
    clears,
    makes_sure,
    closes,
    scans,
)


# ---- what comes after it ----


def follow(scene: Scene, items: list[int]) -> tuple[list[int], int]:
    """Another caller's call with the same items: its answer, and how many were waited for."""
    waits = scenes.info(scene, as_told).waits
    answer = scenes.call(scene, as_told, items)
    return answer, scenes.info(scene, as_told).waits - waits


@dataclass(frozen=True)
class Counted:
    """Positions that were counted, and entries and bytes: as counted, and as they are."""

    positions: int
    stored: tuple[int, int]
    recounted: tuple[int, int]


def count(scene: Scene) -> Counted:
    cached = function(scene, as_told)
    told = cached.cache_info()
    sizes = cached.store._opened.lmdb.read(_sizes)
    return Counted(told.hits + told.misses + told.waits, (told.currsize, told.bytes), (len(sizes), sum(sizes)))


def _sizes(transaction: Transaction) -> list[int]:
    cursor = transaction.cursor()
    sizes = []
    there = cursor.set_range(ENTRY)
    while there and cursor.key().startswith(ENTRY):
        sizes.append(records.size_of(len(cursor.value()) - records.OVERHEAD_BYTES))
        there = cursor.next()
    return sizes
