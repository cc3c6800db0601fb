"""Cached functions whose behaviour a test chooses, and what actors do with them.

A function of a scene is found by the scene and the name of its behaviour, so every process of a test finds the same
one, however it was started. All of them write down each item they compute, and return ten times the item.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from batche import CacheInfo, cache_batch_variable
from tests.processes._tools import Scene, until

Behaviour = Callable[[Scene, list[Any]], "list[Any] | None"]
_functions: dict[tuple[Scene, Behaviour], Any] = {}


def function(scene: Scene, behaviour: Behaviour) -> Any:
    """The cached function of a scene that behaves so: one in a process, without a lock that a fork could find taken."""
    found = _functions.get((scene, behaviour))
    return found or _functions.setdefault((scene, behaviour), _made(scene, behaviour))


def _made(scene: Scene, behaviour: Behaviour) -> Any:
    def compute(items: list[Any]) -> list[Any]:
        scene.journal().note(*items)
        answer = behaviour(scene, items)
        return [10 * item for item in items] if answer is None else answer

    options = {"store": str(scene.place), "version": "1", "name": behaviour.__name__, **dict(scene.options)}
    return cache_batch_variable("items", **options)(compute)


def call(scene: Scene, behaviour: Behaviour, items: Sequence[Any]) -> list[Any]:
    answer: list[Any] = function(scene, behaviour)(list(items))
    return answer


def call_in_threads(scene: Scene, behaviour: Behaviour, items: Sequence[Any], threads: int) -> list[Any]:
    """What each of several threads got: its answer, or the exception itself."""
    answers: list[Any] = []
    start = threading.Barrier(threads)

    def one() -> None:
        start.wait()
        try:
            answers.append(call(scene, behaviour, items))
        except Exception as error:
            answers.append(error)

    running = [threading.Thread(target=one) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return answers


def info(scene: Scene, behaviour: Behaviour) -> CacheInfo:
    found: CacheInfo = function(scene, behaviour).cache_info()
    return found


def contains(scene: Scene, behaviour: Behaviour, items: Sequence[Any]) -> list[bool]:
    found: list[bool] = function(scene, behaviour).cache_contains(list(items))
    return found


def invalidate(scene: Scene, behaviour: Behaviour, items: Sequence[Any]) -> int:
    removed: int = function(scene, behaviour).cache_invalidate(list(items))
    return removed


def clear(scene: Scene, behaviour: Behaviour) -> None:
    function(scene, behaviour).cache_clear()


def wait_for_waiters(scene: Scene, behaviour: Behaviour, number: int) -> None:
    """Return once ``number`` calls of this process wait for somebody else's computation."""
    listeners = function(scene, behaviour).store.wakeups._listeners
    until(lambda: len({ring for rings in list(listeners.values()) for ring in rings}) >= number, f"{number} waiters")


# ---- behaviours ----


def plain(scene: Scene, items: list[Any]) -> None:
    """Just compute."""


def held(scene: Scene, items: list[Any]) -> None:
    """Tell that it is computing, and go on when the test says so."""
    scene.flag(f"inside-{items[0]}").set()
    scene.flag(f"go-{items[0]}").wait()


def sized_and_held(scene: Scene, items: list[Any]) -> None:
    """As `held`; how many items each call has is written down."""
    scene.journal("sizes").note(len(items))
    held(scene, items)


def signed(scene: Scene, items: list[Any]) -> list[Any]:
    """The answer says which computation it is of, counted over all processes; each waits for its own word to go on."""
    number = len(scene.journal().lines())
    scene.flag(f"inside-{number}").set()
    scene.flag(f"go-{number}").wait()
    return [number for _ in items]


def meeting(scene: Scene, items: list[Any]) -> None:
    """Go on once another computation is inside as well."""
    scene.journal("meeting").note(os.getpid())
    scene.journal("meeting").wait_for(2)


class FailedError(Exception):
    """Names the call that failed: process and thread."""


def _note_call(scene: Scene) -> int:
    """Write down that this thread was called; the first one of all waits for the test's word."""
    scene.journal("calls").note(f"{os.getpid()}-{threading.get_ident()}")
    if (number := len(scene.journal("calls").lines())) == 1:
        scene.flag("inside").set()
        scene.flag("go").wait()
    return number


def failing_once(scene: Scene, items: list[Any]) -> None:
    """The first call of all fails."""
    if _note_call(scene) == 1:
        raise FailedError(os.getpid(), threading.get_ident())


def failing_always(scene: Scene, items: list[Any]) -> None:
    _note_call(scene)
    raise FailedError(os.getpid(), threading.get_ident())


def succeeding(scene: Scene, items: list[Any]) -> None:
    _note_call(scene)


def unstorable(scene: Scene, items: list[Any]) -> list[Any]:
    """Results that no codec takes."""
    _note_call(scene)
    return [threading.Lock() for _ in items]


def interrupted_once(scene: Scene, items: list[Any]) -> None:
    if _note_call(scene) == 1:
        raise KeyboardInterrupt


def exiting_once(scene: Scene, items: list[Any]) -> None:
    if _note_call(scene) == 1:
        raise SystemExit(3)
