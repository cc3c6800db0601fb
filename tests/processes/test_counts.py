"""`cache_info`: one truth over all processes, those that were killed included; and batches of every shape."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs import counting, crowds, writers
from tests.processes.programs.scenes import call, clear, held, info, plain, wait_for_waiters

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def test_counts_are_whole_calls_whenever_they_are_read(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        callers, reader = cast.actors(2), cast.actor()
        tasks = [caller.begin(counting.ask_for_three, scene, number, 150) for number, caller in enumerate(callers)]
        reading = reader.begin(counting.read_until_stopped, scene)
        for task in tasks:
            task.result()
        scene.flag("stop").set()
        read, torn, backwards = reading.result()
        counted = reader.run(info, scene, plain)
    assert read > 10
    assert (torn, backwards) == (0, 0)
    assert (counted.hits, counted.misses, counted.waits) == (2 * 150, 2 * 2 * 150, 0)


def test_a_killed_process_keeps_the_counts_of_every_call_that_it_finished(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        killed, living = cast.actors(2)
        assert killed.run(call, scene, held, []) == []
        scene.flag("go-1").set()
        killed.run(call, scene, held, [1, 2, 3])
        killed.run(call, scene, held, [3, 3])
        killed.begin(call, scene, held, [4])
        scene.flag("inside-4").wait()
        killed.kill()
        counted = living.run(info, scene, held)
        assert (counted.hits, counted.misses, counted.currsize) == (2, 3, 3)
        scene.flag("go-5").set()
        living.run(call, scene, held, [1, 5])
        counted = cast.actor().run(info, scene, held)
        assert (counted.hits, counted.misses, counted.currsize) == (3, 4, 4)


def test_counts_without_a_turn_to_write_are_told_at_once_here_and_to_others_when_the_process_leaves(
    tmp_path: Path,
) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        writer, counter, other = cast.actors(3)
        other.run(call, scene, plain, [1, 2])
        writing = writer.begin(writers.stay_inside, scene, plain)
        scene.flag("writing").wait()
        assert counter.run(call, scene, plain, [2, 1, 2]) == [20, 10, 20]
        assert counter.run(info, scene, plain)[:2] == (3, 2)
        assert other.run(info, scene, plain)[:2] == (0, 2)
        scene.flag("leave").set()
        writing.result()
        counter.leave()
        assert other.run(info, scene, plain)[:2] == (3, 2)


def test_counts_survive_generations_of_killed_processes(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        for item in range(6):
            actor = cast.actor()
            actor.run(call, scene, plain, [item, 0])
            actor.kill()
        counted = cast.actor().run(info, scene, plain)
    assert (counted.hits, counted.misses, counted.currsize) == (1 + 5, 6, 6)


def test_counts_survive_processes_that_end_by_themselves(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        for item in range(3):
            actor = cast.actor("spawn")
            actor.run(call, scene, plain, [item])
            actor.leave()
        assert cast.actor().run(info, scene, plain).misses == 3


def test_clearing_zeroes_the_counts_of_all_processes(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, maxsize=2)
    with Cast() as cast:
        one, other = cast.actors(2)
        one.run(call, scene, plain, [1, 2, 3])
        other.run(call, scene, plain, [3, 3, 4])
        one.run(clear, scene, plain)
        assert other.run(info, scene, plain)[:4] == (0, 0, 2, 0)
        assert other.run(info, scene, plain).evictions == 0
        one.run(call, scene, plain, [3, 3])
        assert other.run(info, scene, plain)[:4] == (1, 1, 2, 1)


def test_a_wait_counts_once_and_its_duplicates_are_hits(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        owning = owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        waiting = waiter.begin(call, scene, held, [1, 1, 1])
        waiter.run(wait_for_waiters, scene, held, 1)
        scene.flag("go-1").set()
        assert (owning.result(), waiting.result()) == ([10], [10, 10, 10])
        counted = owner.run(info, scene, held)
    assert (counted.hits, counted.misses, counted.waits) == (2, 1, 1)


@pytest.mark.parametrize("maxsize", [1, 7])
def test_batches_larger_than_the_store_come_back_whole_from_all_processes(tmp_path: Path, maxsize: int) -> None:
    scene, number = Scene.at(tmp_path, maxsize=maxsize), 25
    with Cast() as cast:
        tasks = [actor.begin(crowds.ask, scene, [2 * n, 2 * n + 1], number) for n, actor in enumerate(cast.actors(3))]
        assert [task.result() for task in tasks] == [0, 0, 0]
        actor = cast.actor()
        counted = actor.run(info, scene, plain)
        assert actor.run(counting.entries, scene) == counted.currsize == maxsize
    positions = sum(len(batch) for seed in range(6) for batch in crowds.batches(seed, number))
    assert counted.hits + counted.misses + counted.waits == positions
    assert counted.misses == len(scene.journal().lines())


def test_a_large_batch_leaves_its_last_items(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, maxsize=10)
    with Cast() as cast:
        one, other = cast.actors(2)
        assert one.run(call, scene, plain, list(range(3000))) == [10 * item for item in range(3000)]
        counted = other.run(info, scene, plain)
        assert (counted.currsize, counted.evictions, counted.misses) == (10, 2990, 3000)
        assert other.run(call, scene, plain, list(range(2990, 3000))) == [10 * item for item in range(2990, 3000)]
        assert other.run(info, scene, plain).hits == 10


def test_items_of_every_shape_are_shared(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        assert one.run(counting.ask_for_shapes, scene) == other.run(counting.ask_for_shapes, scene)
        counted = one.run(info, scene, counting.measuring)
    assert len(scene.journal("shapes").lines()) == counted.misses == 5
    assert counted.hits == 2 * 6 - 5
