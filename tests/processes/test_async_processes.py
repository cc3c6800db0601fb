"""Async functions in several processes: one computation of each item, takeovers, and a loop that nobody stops."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs import loops, writers
from tests.processes.programs.scenes import call, held, info, plain, wait_for_waiters

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def test_tasks_loops_threads_and_processes_compute_each_item_once(tmp_path: Path) -> None:
    scene, batches = Scene.at(tmp_path), [[*range(at, at + 40, 4), *range(200, 210)] for at in range(25)]
    with Cast() as cast:
        tasks = [actor.begin(loops.ask_many, scene, batches, 2) for actor in cast.actors(2)]
        assert [task.result() for task in tasks] == [0, 0]
        counted = cast.actor().run(info, scene, plain)
    asked = [item for batch in batches for item in batch]
    assert scene.journal().counts() == dict.fromkeys(map(str, asked), 1)
    assert counted.misses == counted.currsize == len(set(asked))
    assert counted.hits + counted.misses + counted.waits == 6 * len(asked)
    assert (counted.takeovers, counted.errors) == (0, 0)


def test_a_task_waits_for_a_thread_of_another_process_and_a_thread_for_a_task(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        first = one.begin(loops.ask, scene, "held", [1])
        scene.flag("inside-1").wait()
        second = other.begin(call, scene, held, [1])
        other.run(wait_for_waiters, scene, held, 1)
        scene.flag("go-1").set()
        assert first.result() == second.result() == [10]
        first = other.begin(call, scene, held, [2])
        scene.flag("inside-2").wait()
        second = one.begin(loops.ask, scene, "held", [2, 1])
        scene.flag("go-2").set()
        assert (first.result(), second.result()) == ([20], [20, 10])
    assert scene.journal().lines() == ["1", "2"]


def test_who_is_cancelled_is_followed_by_a_waiter_of_another_process(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        owner = one.begin(loops.ask_and_cancel, scene, [1])
        scene.flag("inside-1").wait()
        waiter = other.begin(call, scene, held, [1])
        other.run(wait_for_waiters, scene, held, 1)
        scene.flag("cancel").set()
        assert owner.result() == "cancelled"
        scene.journal().wait_for(2)
        scene.flag("go-1").set()
        assert waiter.result() == [10]
        assert other.run(info, scene, held).takeovers == 1


def test_a_killed_owner_is_followed_by_a_task_of_another_process(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        one.begin(loops.ask, scene, "held", [1])
        scene.flag("inside-1").wait()
        waiter = other.begin(loops.ask, scene, "held", [1])
        one.kill()
        scene.journal().wait_for(2)
        scene.flag("go-1").set()
        assert waiter.result() == [10]


def test_the_loop_goes_on_while_another_process_writes(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        calls = one.begin(loops.go_on_while_another_writes, scene)
        scene.flag("open").wait()
        writer = other.begin(writers.stay_inside, scene, plain)  # until the loop says so
        answers, waiting = calls.result()
        writer.result()
    assert waiting == 5  # all but the look at what there is
    assert answers == [[0], [10, 20], [True], 0, None, [70], 1]


def test_the_loop_goes_on_while_a_clear_waits_for_another_process(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        cleared = one.begin(loops.clear_while_another_writes, scene)
        scene.flag("open").wait()
        writer = other.begin(writers.stay_inside, scene, plain)
        assert cleared.result() == 100
        writer.result()


def test_the_loop_goes_on_while_the_first_call_of_a_process_waits_for_another(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        writer = other.begin(writers.stay_inside, scene, plain)
        scene.flag("writing").wait()
        assert one.run(loops.open_while_another_writes, scene) == ([10], 100)
        writer.result()


@pytest.mark.parametrize("program", [loops.fork_after_a_loop, loops.fork_inside_a_loop])
def test_a_fork_beside_a_loop_is_safe(tmp_path: Path, program: object) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        assert cast.actor().run(program, scene) == 0  # type: ignore[arg-type]  # a function of a scene
    assert "1" in scene.journal().lines()
    assert scene.journal().counts()["1"] == 1
