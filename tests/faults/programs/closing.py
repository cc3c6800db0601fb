"""Processes in which somebody closes descriptors that the store has open, as daemons do."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from batche.errors import StoreError
from tests.processes._tools import LONGEST, Scene, descriptors_in, exit_status, fork, until
from tests.processes.programs import scenes
from tests.processes.programs.scenes import call, contains, function, plain

CONTENT: Final = b"this belongs to somebody else\n" * 1000


def close_all(first: int) -> None:
    """Close every descriptor from ``first`` on, as daemons do; of the tests before, many may have been inherited."""
    os.closerange(first, max(map(int, os.listdir("/proc/self/fd"))) + 1)


class Records(logging.Handler):
    """What is logged from here on."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        logging.getLogger("batche").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def names_of_files(scene: Scene) -> list[str]:
    """The names of the files that a user of the cache has open."""
    call(scene, plain, [1])
    return [name for _, name in descriptors_in(scene.place)]


def take_over(scene: Scene, closed: list[int]) -> list[Path]:
    """Close these descriptors, and open files of a user under the same numbers, each locked by this process."""
    paths = [scene.directory / f"users-{number}" for number in closed]
    for number, path in zip(closed, paths, strict=True):
        path.write_bytes(CONTENT)
        os.close(number)
        opened = os.open(path, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return paths


def _are_free(paths: list[Path]) -> int:
    free = 0
    for path in paths:
        with suppress(OSError):
            fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
            free += 1
    return free


def use_all(scene: Scene, first: int) -> list[bool]:
    """Call and do everything that writes; whether each answer was right."""
    cached = function(scene, plain)
    right = [cached([1, number]) == [10, 10 * number] for number in range(first, first + 100)]
    for act in (cached.cache_clear, cached.store.close, partial(cached.store.forget, b"nobody's"), cached.store.sync):
        with suppress(StoreError):
            act()
    gc.collect()
    return right


def in_child(work: Callable[[], bool]) -> bool:
    """Whether ``work`` came to `True` in a forked child."""
    return exit_status(fork(lambda: 0 if work() else 1)) == 0


def loses(scene: Scene, which: list[int]) -> bool:
    """Whether nothing went wrong in a child whose ``which`` of the files of the store were somebody else's by then."""
    return in_child(partial(_loses, scene, which))


def _loses(scene: Scene, which: list[int]) -> bool:
    records = Records()
    assert call(scene, plain, [1]) == [10]
    descriptors = descriptors_in(scene.place)
    lost = [descriptors[index] for index in which]
    # the content is looked at through other descriptors, whose closing would drop the locks: so it is looked at last
    users = take_over(scene, [number for number, _ in lost])
    right = use_all(scene, 1000)
    scenes._functions.clear()
    gc.collect()  # with its last function the store goes
    abandoned = any(name != "workers.lock" and not name.startswith(("workers", "slots", "counts")) for _, name in lost)
    free = exit_status(fork(partial(_are_free, users)))
    untouched = [path.read_bytes() == CONTENT for path in users]
    found = (all(right), free, all(untouched), len(records.messages))
    expected = (True, 0, True, 1 if abandoned else 0)
    scene.journal("found").note(lost, found, expected, records.messages)
    return found == expected


def sees_a_living_owner(scene: Scene, held: Any) -> bool:
    """Whether a process whose liveness file was closed still waits for one that lives."""
    return in_child(partial(_sees_a_living_owner, scene, held))


def _sees_a_living_owner(scene: Scene, held: Any) -> bool:
    call(scene, held, [2])
    take_over(scene, [number for number, name in descriptors_in(scene.place) if name == "workers.lock"])
    scene.flag("asking").set()
    return call(scene, held, [1]) == [10]


def raises_under_strict(scene: Scene) -> bool:
    return in_child(partial(_raises_under_strict, scene))


def _raises_under_strict(scene: Scene) -> bool:
    call(scene, plain, [1])
    before = descriptors_in(scene.place)
    close_all(3)
    try:
        call(scene, plain, [2])
    except StoreError as error:
        scene.journal("found").note(before, error)
        return "os.closerange" in str(error)
    scene.journal("found").note(before, "nothing raised")
    return False


# ---- daemons ----


def become_daemon(scene: Scene) -> None:
    """Fork twice, close everything, and use the cache as a daemon does; the daemon notes what came of it."""
    assert exit_status(fork(partial(_first_child, scene))) == 0
    until(scene.flag("daemon-ended").is_set, "the daemon ends", LONGEST)


def _first_child(scene: Scene) -> int:
    os.setsid()
    fork(partial(_daemon, scene))
    return 0


def _daemon(scene: Scene) -> int:
    try:
        close_all(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        for _ in range(20):
            os.open(os.devnull, os.O_RDONLY)  # which can neither be written nor locked
        right = call(scene, plain, [1, 2, 3]) == [10, 20, 30] and all(contains(scene, plain, [1, 2, 3]))
        scene.journal("daemon").note(right)
    finally:
        scene.flag("daemon-ended").set()
    return 0


# ---- exec ----

_AGAIN: Final = """
import sys
from pathlib import Path
from tests.faults.programs import closing
from tests.processes._tools import Scene
from tests.processes.programs import scenes
from tests.processes.programs.scenes import call
scene = Scene.at(Path(sys.argv[1]))
scene.journal("after-exec").note(call(scene, closing.becoming_another, [1, 2]))
"""


def becoming_another(scene: Scene, items: list[Any]) -> None:
    """Become another program in the midst of the first computation of 1."""
    if not scene.flag("became").is_set():
        scene.flag("became").set()
        scene.flag("go").wait()
        os.execv(sys.executable, [sys.executable, "-c", _AGAIN, str(scene.directory)])


def execute(scene: Scene) -> int:
    """How a child ended that became another program while it held claims."""
    return exit_status(fork(lambda: len(call(scene, becoming_another, [1, 2]))))
