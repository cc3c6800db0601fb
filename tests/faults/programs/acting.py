"""Calls in the midst of which something else happens in the same thread, as in a signal's handler or a finaliser."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.faults._injection import Steps, place_of
from tests.faults.programs import interrupted
from tests.faults.programs.interrupted import answer_to, as_told
from tests.processes._tools import Scene, exit_status, fork
from tests.processes.programs import scenes
from tests.processes.programs.scenes import function

Act = Callable[[Scene, list[int]], bool]
"""Does something with the cache in the midst of a call for these items; whether all of it was right."""


@dataclass(frozen=True)
class Acted:
    """What came of a call in whose midst something was done."""

    places: list[str]
    place: str
    answer: list[int] | None
    right: list[bool]
    left: list[str]


def act_at(scene: Scene, kind: str, step: int, act: Act, items: list[int]) -> Acted:
    """Make a call in this thread, with ``act`` done once at ``step`` of it."""
    right: list[bool] = []
    with Steps(kind, step, lambda: right.append(act(scene, items))) as steps:
        answer = scenes.call(scene, as_told, items)
    return Acted(
        steps.places,
        place_of(steps.places, step),
        answer,
        right,
        interrupted.leftovers(function(scene, as_told)),
    )


def calls(scene: Scene, items: list[int]) -> bool:
    """Calls the function itself: for the same items, for stored ones and for new ones."""
    batches = [items, [0], [-item for item in items]]
    return all(scenes.call(scene, as_told, batch) == answer_to(batch) for batch in batches)


def invalidates(scene: Scene, items: list[int]) -> bool:
    """Asks for all that the function tells, and invalidates what the call is about, where the store can be written."""
    cached = function(scene, as_told)
    try:
        cached.cache_info()
        cached.cache_invalidate(items)
    except OSError as error:
        return "already" in str(error)  # it says who is inside
    return True


def forks(scene: Scene, items: list[int]) -> bool:
    """Forks a child that calls."""
    return exit_status(fork(lambda: 0 if calls(scene, items) else 1)) == 0


def forks_in_c(scene: Scene, items: list[int]) -> bool:
    """The same by the C library, so that no hook of Python runs. The child computes without the store."""
    pid = ctypes.PyDLL(None).fork()  # with the interpreter's lock held: else the child might never get it
    if pid == 0:
        status = 1
        try:
            status = 0 if calls(scene, items) and calls(scene, items) else 1
        finally:
            os._exit(status)
    return exit_status(pid) == 0


class _Dropped:
    """Does something when it is collected."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __del__(self) -> None:
        self._act()


class _Referent:
    pass


def is_collected(scene: Scene, items: list[int]) -> bool:
    """Drops an object whose finaliser calls, and one for which a weak reference does."""
    right: list[bool] = []
    dropped: _Dropped | None = _Dropped(lambda: right.append(calls(scene, items)))
    referent: _Referent | None = _Referent()
    reference = weakref.ref(referent, lambda _: right.append(calls(scene, items)))
    assert dropped is not None
    assert reference() is referent
    del dropped, referent
    return right == [True, True]


ACTS: Final[tuple[Act, ...]] = (calls, invalidates, forks, forks_in_c, is_collected)


# ---- hooks of a user ----

_HOOKS: Final = """
import os, sys
from pathlib import Path

hooked = []

def hook(where):
    def run():
        if hooked:
            hooked[0](where)
    return run

def register():
    os.register_at_fork(before=hook("before"), after_in_parent=hook("parent"), after_in_child=hook("child"))

early, forking, directory = sys.argv[1] == "early", sys.argv[2] == "forks", Path(sys.argv[3])
if early:
    register()
from tests.faults.programs import acting
from tests.processes._tools import Scene
if not early:
    register()
acting.use_hooks(Scene.at(directory), hooked, forking)
"""


def use_hooks(scene: Scene, hooked: list[Callable[[str], None]], forking: bool) -> None:
    """Fork, with hooks that call, and that fork as well; write down what came of it."""
    scenes.call(scene, as_told, [0])
    me = [os.getpid()]

    def hook(where: str) -> None:
        hooked.clear()  # a fork of its own runs no hooks of the user's
        number = {"before": 1, "parent": 2, "child": 3}[where]
        right = calls(scene, interrupted.batch_of(number))
        if forking:
            right &= exit_status(fork(lambda: 0 if calls(scene, interrupted.batch_of(number + 10)) else 1)) == 0
        scene.journal("hooks").note(f"{where} {right}")
        hooked.append(hook)

    hooked.append(hook)
    right = exit_status(fork(lambda: 0 if calls(scene, interrupted.batch_of(4)) else 1)) == 0
    hooked.clear()
    scene.journal("hooks").note(f"fork {right and me == [os.getpid()]}")
    counted = interrupted.count(scene)
    scene.journal("hooks").note(f"counts {counted.stored == counted.recounted}")
    scene.journal("hooks").note(f"left {interrupted.leftovers(function(scene, as_told))}")
