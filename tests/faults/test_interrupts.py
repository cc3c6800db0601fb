"""Guarantees 4 and 9: whatever ends a call at whatever step, nothing of it stays behind."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults._injection import KINDS, SIGNALS, TORTURE, Signalled, sample
from tests.faults.programs import interrupted
from tests.faults.programs.interrupted import ITEMS, Ended, Operation, answer_to, as_told, batch_of
from tests.processes._tools import Actor, Cast, Scene, Task
from tests.processes.programs.scenes import call, contains

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


ERRORS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, Signalled)
STEPS: Final = 12
"""Steps of each kind of call at which something is raised, where not all are tried."""
FORKS: Final = 250 if TORTURE else 60
OPENED: Final = 200
"""Stores that one process opens at most: each takes descriptors and address space until it ends."""


class Stage:
    """A process whose calls are interrupted, and another one that looks at what they left, call by call."""

    def __init__(self, cast: Cast, directory: Path, prepare: str, method: str = "fork") -> None:
        self.victim, self.other = cast.actors(2, method)
        self.wrong: list[str] = []
        self._cast = cast
        self._directory = directory
        self._prepare = prepare
        self._number = 0
        self._scene = self._new_scene()

    def _new_scene(self) -> Scene:
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        return Scene.at(directory, maxsize=5) if self._prepare == "evicts" else Scene.at(directory)

    def interrupt(self, kind: str, step: int, error: type[BaseException]) -> Ended:
        """Interrupt one call, and have both processes look at what it left."""
        self._number += 1
        if self._prepare == "opens":
            self._scene = self._new_scene()
            if self._number % OPENED == 0:
                self._renew_actors()
        items = batch_of(self._number)
        owning = self._make_ready(items)
        before = self._run(self.victim, interrupted.count).positions if self._prepare != "opens" else 0
        ended = self._interrupted(kind, step, error, items)
        if owning is not None:
            assert owning.result() == answer_to(items)
        self._look(ended, items, error, before)
        return ended

    def interrupt_operation(self, operation: Operation, kind: str, step: int, error: type[BaseException]) -> Ended:
        """The same for something else that is done with entries which are there."""
        self._number += 1
        items = batch_of(self._number)
        self._run(self.other, call, as_told, items)
        run, told = interrupted.interrupt_operation, (self._scene, kind, step, error, items, operation)
        ended: Ended = self.victim.begin(run, *told, in_main_thread=True).result()
        self._note(ended, error, self._seen(items) | {"its end": ended.error in ("", error.__name__)})
        return ended

    def interrupt_fork(self, step: int, error: type[BaseException] | None) -> Ended:
        """The same for a fork, whose child makes the call."""
        self._number += 1
        items = batch_of(self._number)
        run, told = interrupted.interrupt_fork, (self._scene, SIGNALS, step, error, items)
        ended: Ended = self.victim.begin(run, *told, in_main_thread=True).result()
        self._note(ended, error, self._seen(items) | {"the child's call": ended.answer == answer_to(items)})
        return ended

    def _renew_actors(self) -> None:
        """Have others go on, in which no store is open."""
        self.victim.leave()
        self.other.leave()
        self.victim, self.other = self._cast.actors(2)
        self._interrupted("", 0, KeyboardInterrupt, batch_of(self._number))  # the first call joins and opens
        self._scene = self._new_scene()

    def _make_ready(self, items: list[int]) -> Task | None:
        """Bring about what the call shall meet; what the other process goes on with meanwhile."""
        if self._prepare == "hits":
            self._run(self.other, call, as_told, items)
        elif self._prepare == "takes over":
            self._run(self.other, interrupted.abandon, items)
        elif self._prepare == "waits":
            owning = self.other.begin(interrupted.hold, self._scene, items)
            self._scene.flag(f"inside-{items[0]}").wait()
            return owning
        return None

    def _interrupted(self, kind: str, step: int, error: type[BaseException], items: list[int]) -> Ended:
        run = interrupted.interrupt_waiting if self._prepare == "waits" else interrupted.interrupt
        ended: Ended = self.victim.begin(run, self._scene, kind, step, error, items, in_main_thread=True).result()
        return ended

    def _look(self, ended: Ended, items: list[int], error: type[BaseException], before: int) -> None:
        seen = self._seen(items)
        positions = self._run(self.victim, interrupted.count).positions - before
        finished = (3 if self._prepare == "waits" else 2) * ITEMS
        seen["its end"] = ended.error == error.__name__ or ended.answer == answer_to(items)
        seen["positions counted"] = finished <= positions <= finished + ITEMS
        self._note(ended, error, seen)

    def _seen(self, items: list[int]) -> dict[str, bool]:
        """What is right of what both processes see afterwards."""
        followed = self._run(self.other, interrupted.follow, items)
        again = self._run(self.victim, call, as_told, items)
        stored = self._run(self.victim, contains, as_told, items)
        counted = self._run(self.victim, interrupted.count)
        return {
            "another caller's answer": followed == (answer_to(items), 0),
            "the next answer": again == answer_to(items),
            "what is stored": stored == [True] * ITEMS,
            "entries counted": counted.stored == counted.recounted,
        }

    def _note(self, ended: Ended, error: type[BaseException] | None, right: dict[str, bool]) -> None:
        wrong = [*ended.left, *(name for name, is_right in right.items() if not is_right)]
        if wrong:
            self.wrong.append(f"{error.__name__ if error else 'a fork'} at {ended.place}: {', '.join(wrong)}")

    def _run(self, actor: Actor, function: Callable[..., Any], *arguments: Any) -> Any:
        return actor.run(function, self._scene, *arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prepare", ["misses", "hits", "waits", "evicts", "takes over", "opens"])
def test_an_exception_at_any_step_of_a_call_leaves_nothing_behind(tmp_path: Path, prepare: str, kind: str) -> None:
    with Cast() as cast:
        stage = Stage(cast, tmp_path, prepare)
        stage.interrupt(kind, 0, KeyboardInterrupt)  # the first call joins and opens
        places = stage.interrupt(kind, 0, KeyboardInterrupt).places
        assert stage.wrong == []
        for number, step in enumerate(sample(places, STEPS, seed=len(prepare), thorough=prepare != "opens")):
            stage.interrupt(kind, step, ERRORS[number % len(ERRORS)])
    assert not stage.wrong, "\n".join(stage.wrong)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", interrupted.OPERATIONS)
def test_an_exception_at_any_step_of_anything_else_leaves_nothing_behind(
    tmp_path: Path, operation: Operation, kind: str
) -> None:
    with Cast() as cast:
        stage = Stage(cast, tmp_path, operation.__name__)
        stage.interrupt_operation(operation, kind, 0, KeyboardInterrupt)
        places = stage.interrupt_operation(operation, kind, 0, KeyboardInterrupt).places
        assert stage.wrong == []
        steps = sample(places, STEPS, seed=len(operation.__name__), thorough=kind == SIGNALS)
        for number, step in enumerate(steps):
            stage.interrupt_operation(operation, kind, step, ERRORS[number % len(ERRORS)])
    assert not stage.wrong, "\n".join(stage.wrong)


@pytest.mark.parametrize("errors", [ERRORS, [None]], ids=["raises", "forks"])
def test_what_a_handler_does_at_any_step_of_a_fork_leaves_nothing_behind(
    tmp_path: Path, errors: Sequence[type[BaseException] | None]
) -> None:
    with Cast() as cast:
        # Not as this process is: with concurrent.futures imported after batche, Python itself waits for ever where a
        # hook before a fork forks.
        stage = Stage(cast, tmp_path, "forks", "spawn")
        stage.interrupt_fork(0, KeyboardInterrupt)  # the first call joins and opens
        places = stage.interrupt_fork(0, KeyboardInterrupt).places
        assert stage.wrong == []
        for number, step in enumerate(sample(places, STEPS, seed=len("forks"), thorough=True)):
            stage.interrupt_fork(step, errors[number % len(errors)])
    assert not stage.wrong, "\n".join(stage.wrong)


def test_signals_of_another_process_during_forks_leave_nothing_behind(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        victim, other = cast.actors(2)
        found = victim.begin(interrupted.fork_under_signals, scene, FORKS, in_main_thread=True).result()
        assert (found.bad, found.left) == (0, [])
        assert found.dropped > 0, "no signal came while a hook ran"
        assert victim.run(call, scene, as_told, [1, 2]) == other.run(call, scene, as_told, [1, 2]) == [10, 20]
        assert victim.run(interrupted.follow, scene, [1, 2]) == ([10, 20], 0)


def test_forks_with_little_stack_left_leave_nothing_behind(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        victim, other = cast.actors(2)
        assert victim.begin(interrupted.fork_with_little_stack, scene, in_main_thread=True).result() == []
        assert victim.run(call, scene, as_told, [1, 2]) == [10, 20]
        assert other.run(interrupted.follow, scene, [1, 2]) == ([10, 20], 0)
