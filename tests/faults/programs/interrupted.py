"""Calls that an exception ends at a step of the test's choice, and what is left of them."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

from batche import _calls as calls
from batche import _forks
from batche._forks import is_mine
from batche.stores.lmdb import records
from batche.stores.lmdb.gate import GATE
from batche.stores.lmdb.place import _REGISTRY
from batche.stores.lmdb.records import ENTRY
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.workers import State
from batche.stores.lmdb.writing import claimed_keys
from tests.faults._injection import Steps, raiser
from tests.processes._tools import Scene, exit_status, fork, until
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


class _StepsOfHooks(Steps):
    """But for the beginning of the first hook: then nothing is done before the fork, and the child has no store."""

    _begun = False

    def _take(self, frame: FrameType, event: str) -> None:
        if self._begun:
            super()._take(frame, event)
        self._begun = True


def interrupt_fork(scene: Scene, kind: str, step: int, error: type[BaseException], items: list[int]) -> Ended:
    """Fork a child that makes a call, with ``error`` raised at ``step`` of the hooks, which Python drops."""
    with _StepsOfHooks(kind, step, raiser(error)) as steps:
        pid = fork(partial(_call_in_child, scene, items))
    status = exit_status(pid)
    return Ended(
        steps.places,
        steps.places[step - 1] if len(steps.places) >= step > 0 else "",
        answer_to(items) if status == 0 else None,
        "",
        leftovers(function(scene, as_told)),
    )


def _call_in_child(scene: Scene, items: list[int]) -> int:
    sys.setprofile(None)  # hooks only
    left = leftovers(function(scene, as_told))
    return 0 if left == [] and scenes.call(scene, as_told, items) == answer_to(items) else 1


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
        steps.places[step - 1] if len(steps.places) >= step > 0 else "",
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
        "a fork": _forks._FORKS._by_thread,
        "a lock that forks wait for": any(is_mine(held.lock) for held in _forks._held),
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
