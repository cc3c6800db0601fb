"""Forks at bad moments: under load, inside a batch function, from a thread."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any, Final

import batche
from batche.stores.lmdb import keeper
from batche.stores.lmdb.gate import GATE
from tests.processes._tools import Scene, exit_status, fork
from tests.processes.programs import scenes
from tests.processes.programs.scenes import function, plain

_SOURCE: Final = str(Path(batche.__file__).parent)
FORKS = 20
WORKING = 0
WRONG = 1


def under_load(scene: Scene) -> list[int]:
    """How the children ended that were forked while other threads read, stored, computed and waited."""
    over = threading.Event()
    passes = [0] * 4

    def load(number: int) -> None:
        batch = 0
        while not over.is_set():
            batch += 1
            own = [0, 1, 2] if number == 0 else [1000 * number + batch, 10_000 + batch // 8]
            assert scenes.call(scene, plain, own) == [10 * item for item in own]
            passes[number] += 1

    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(passes))]
    for thread in threads:
        thread.start()
    statuses = []
    for number in range(FORKS):
        before = list(passes)
        statuses.append(exit_status(fork(partial(_use, scene, [0, 1, 100_000 + number]))))
        while any(passed == was for passed, was in zip(passes, before, strict=True)) and all(map(_lives, threads)):
            pass  # each thread goes on after each fork
    over.set()
    for thread in threads:
        thread.join()
    return statuses


def _lives(thread: threading.Thread) -> bool:
    return thread.is_alive()


def _use(scene: Scene, items: list[int]) -> int:
    """Use the cache in a child: its answers are right, and what it stored is there, for all to see."""
    right = scenes.call(scene, plain, items) == [10 * item for item in items]
    return WORKING if right and all(scenes.contains(scene, plain, items)) else WRONG


def during_first_use(scene: Scene) -> list[int]:
    """How the children ended that were forked while a thread used a store for the first time, a new one each time."""
    statuses = []
    for number in range(FORKS):
        (scene.directory / str(number)).mkdir()
        own = Scene.at(scene.directory / str(number))
        using = threading.Thread(target=scenes.call, args=(own, plain, [1, 2]))
        using.start()
        for _ in range(100 * number):
            own.flag("moment").is_set()  # each fork a little later than the one before
        statuses.append(exit_status(fork(partial(_use, own, [1, 2, 3]))))
        using.join()
        statuses.append(_use(own, [1, 2, 3, 4]))
    return statuses


def at_each_function(scene: Scene) -> list[tuple[str, int]]:
    """How the children ended that were forked while a thread stood at the beginning of a function of the library.

    They are all the functions that a hit and a miss run through, each once, but those inside the gate and of the
    keeper, for which a fork waits.
    """
    scenes.call(scene, plain, [0])
    halts, words = SimpleQueue[str](), SimpleQueue[str]()
    threading.Thread(target=_halt_at_each_function, args=(scene, halts, words), daemon=True).start()
    children: list[tuple[str, int]] = []  # several functions may have one name
    for number, name in enumerate(iter(halts.get, ""), 100):
        children.append((name, fork(partial(_use, scene, [0, 0, number, number]))))
        words.put(name)  # nobody waits for a child meanwhile: it may be waiting for the thread's turn to write to end
    return [(name, exit_status(child)) for name, child in children]


def _halt_at_each_function(scene: Scene, halts: SimpleQueue[str], words: SimpleQueue[str]) -> None:
    seen = set[CodeType]()

    def halt(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        inside = code.co_filename.startswith(_SOURCE) and code.co_filename != keeper.__file__
        if inside and code not in seen and threading.get_ident() not in GATE._inside:
            seen.add(code)
            halts.put(code.co_qualname)
            words.get()

    sys.settrace(halt)
    try:
        scenes.call(scene, plain, [0, 0])
        scenes.call(scene, plain, [0, 1, 1])
    finally:
        sys.settrace(None)
        halts.put("")


def before_any_use(scene: Scene) -> int:
    """A child of a process that never used the cache."""
    return exit_status(fork(lambda: _use(scene, [1, 2])))


def after_use(scene: Scene) -> list[int]:
    """A child, and a child of it, of a process that has used the cache and goes on using it."""
    scenes.call(scene, plain, [1])
    outer = exit_status(fork(lambda: _use(scene, [1, 2]) + exit_status(fork(lambda: _use(scene, [1, 2, 3])))))
    return [outer, _use(scene, [1, 2, 3, 4])]


def in_pool(scene: Scene, method: str) -> list[list[int]]:
    context: Any = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        answers: list[list[int]] = pool.starmap(scenes.call, [(scene, plain, [n % 5, n % 7]) for n in range(20)])
        pool.close()
        pool.join()
    return answers


def in_executor(scene: Scene, method: str) -> list[list[int]]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
        tasks = [executor.submit(scenes.call, scene, plain, [n % 5, n % 7]) for n in range(20)]
        return [task.result() for task in tasks]


# ---- inside a batch function ----

_children: list[int] = []


def forking(scene: Scene, items: list[Any]) -> list[Any]:
    """Forks when it computes 1. Parent and child return up through the cached call, with answers of their own."""
    if items[0] != 1:
        return [10 * item for item in items]
    pid = os.fork()
    if pid:
        _children.append(pid)
        scene.flag("child-returned").wait()
        return [10 * item for item in items]
    return [-item for item in items]


def child_returns_through_the_call(scene: Scene) -> tuple[list[int], int]:
    """What the parent's call came to, and how the child, which returned from the same call first, ended."""
    me = os.getpid()
    answer = scenes.call(scene, forking, [1, 2])
    if os.getpid() == me:
        return answer, exit_status(_children.pop())
    status = WRONG
    try:
        nothing_stored = scenes.contains(scene, forking, [1, 2]) == [False, False]
        own = scenes.call(scene, forking, [3])
        status = WORKING if answer == [-1, -2] and nothing_stored and own == [30] else WRONG
    finally:
        scene.flag("child-returned").set()
        os._exit(status)


def asking_own(scene: Scene, items: list[Any]) -> None:
    """The first call forks; its child asks for what the parent holds and for more, while the parent waits for it."""
    if len(scene.journal().lines()) > len(items) or 1 not in items:
        return
    status = exit_status(fork(lambda: scenes.call(scene, asking_own, [1, 2, 3]) != [10, 20, 30]))
    assert status == WORKING


def child_asks_for_the_parents_items(scene: Scene) -> list[int]:
    return scenes.call(scene, asking_own, [1, 2])


def fork_beside_a_computation(scene: Scene) -> tuple[int, list[int]]:
    """A thread computes; the main thread forks a child that asks for the same item. Its status, and the answer."""
    answers: list[list[int]] = []
    thread = threading.Thread(target=lambda: answers.append(scenes.call(scene, scenes.held, [1])))
    thread.start()
    scene.flag("inside-1").wait()
    child = fork(lambda: _wait_beside(scene))
    scene.flag("child-asks").wait()
    scene.flag("go-1").set()
    thread.join()
    return exit_status(child), answers[0]


def _wait_beside(scene: Scene) -> int:
    listening = function(scene, scenes.held)
    thread = threading.Thread(target=_tell_once_it_waits, args=(scene,))
    thread.start()
    answer = listening([1])
    thread.join()
    return WORKING if answer == [10] else WRONG


def _tell_once_it_waits(scene: Scene) -> None:
    scenes.wait_for_waiters(scene, scenes.held, 1)
    scene.flag("child-asks").set()


def staying(scene: Scene, items: list[Any]) -> None:
    """Forks a child that returns up through the call and ends; then stays until the test says so."""
    pid = os.fork()
    if pid == 0:
        return
    assert exit_status(pid) == WORKING
    scene.flag("child-ended").set()
    scene.flag("go").wait()


def fork_and_stay(scene: Scene) -> list[int]:
    me = os.getpid()
    answer = scenes.call(scene, staying, [1])
    if os.getpid() != me:
        os._exit(WORKING if answer == [10] else WRONG)
    return answer
