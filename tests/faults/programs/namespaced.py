"""A process in a PID namespace of its own, told what to do by its arguments, and heard through flags and journals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from batche.errors import StoreError
from tests.faults.programs.closing import Records
from tests.processes._tools import LONGEST, Scene, exit_status, fork
from tests.processes.programs import scenes
from tests.processes.programs.scenes import call, held

_ROOT: Final = Path(__file__).parents[3]
_MAIN: Final = "import sys; from tests.faults.programs import namespaced; namespaced.main(*sys.argv[1:])"


def start(scene: Scene, work: str, *, own_proc: bool, name: str) -> subprocess.Popen[bytes]:
    """Start ``work`` as process 1 of a new PID namespace, with a ``/proc`` of that or the one from outside."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    proc = ["--mount-proc"] if own_proc else []
    python = [sys.executable, "-c", _MAIN, work, name, str(scene.directory), repr(scene.options)]
    return subprocess.Popen(["unshare", *user, "--pid", "--fork", "--kill-child", *proc, *python], cwd=_ROOT)


def main(work: str, name: str, directory: str, options: str) -> None:
    scene = Scene(Path(directory), eval(options))
    scene.journal("pids").note(os.getpid())
    works: dict[str, Any] = {"hold": _hold, "ask": _ask, "family": _family}
    records = Records()
    works[work](scene, name)
    scene.journal(f"warnings-{name}").note(*records.messages)


def _hold(scene: Scene, name: str) -> None:
    """Own item 1 until the test says go."""
    assert call(scene, held, [1]) == [10]


def _ask(scene: Scene, name: str) -> None:
    """Ask for item 1, which another process may own, and for one of one's own."""
    scene.flag(f"asking-{name}").set()
    scene.flag("go-3").set()
    try:
        scene.journal(f"answers-{name}").note(call(scene, held, [3]), call(scene, held, [1]))
    except StoreError as error:
        scene.journal(f"answers-{name}").note(f"StoreError {error.problem}")


def _family(scene: Scene, name: str) -> None:
    """Have a child own item 1 whose pid is nobody's outside, and another one ask for it."""
    while os.path.exists(f"/proc/{_next_pid()}"):
        pass
    owner = fork(lambda: len(call(scene, held, [1])) - 1)
    scene.flag("inside-1").wait()
    asker = fork(lambda: _wait_for_owner(scene))
    scene.journal("family").note(owner, exit_status(owner), exit_status(asker))


def _wait_for_owner(scene: Scene) -> int:
    waiter = Waiter(scene)
    was_waiting = waiter.is_waiting()
    scene.flag("go-1").set()
    return 0 if was_waiting and waiter.answer() == [10] else 1


def _next_pid() -> int:
    """The pid that the process has which is forked next."""
    pid = fork(lambda: 0)
    exit_status(pid)
    return pid + 1


class Waiter:
    """A thread of this process, outside, that asks for item 1."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._answers: list[list[int]] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(call(scene, held, [1])))
        self._thread.start()

    def is_waiting(self) -> bool:
        """Whether it waits for somebody, once it has come so far."""
        scenes.wait_for_waiters(self._scene, held, 1)
        return not self._answers

    def answer(self) -> list[int]:
        self._thread.join(LONGEST)
        return self._answers[0]
