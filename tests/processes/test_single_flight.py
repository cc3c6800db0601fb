"""Guarantees 2 and 5 between processes: an item is computed once, and whoever can compute does not wait."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs import crowds, writers
from tests.processes.programs.scenes import (
    call,
    contains,
    held,
    info,
    meeting,
    plain,
    signed,
    sized_and_held,
    wait_for_waiters,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_overlapping_batches_of_many_threads_and_processes_compute_each_item_once(tmp_path: Path, method: str) -> None:
    scene, seeds, number = Scene.at(tmp_path), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], 40
    with Cast() as cast:
        tasks = [cast.actor(method).begin(crowds.ask, scene, own, number) for own in seeds]
        assert [task.result() for task in tasks] == [0, 0, 0]
        counted = cast.actor(method).run(info, scene, plain)
    asked = [item for own in seeds for seed in own for batch in crowds.batches(seed, number) for item in batch]
    assert scene.journal().counts() == dict.fromkeys(map(str, asked), 1)
    assert counted.misses == counted.currsize == len(set(asked))
    assert counted.hits + counted.misses + counted.waits == len(asked)
    assert (counted.evictions, counted.takeovers, counted.rejected, counted.errors) == (0, 0, 0, 0)


def test_two_processes_compute_thousands_of_items_in_one_call_each(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        first = one.begin(call, scene, sized_and_held, range(5000))
        scene.flag("inside-0").wait()
        second = other.begin(call, scene, sized_and_held, range(2000, 7000))
        scene.flag("inside-5000").wait()
        scene.flag("go-0").set()
        scene.flag("go-5000").set()
        assert first.result() == [10 * item for item in range(5000)]
        assert second.result() == [10 * item for item in range(2000, 7000)]
    assert scene.journal("sizes").lines() == ["5000", "2000"]
    assert scene.journal().lines() == [str(item) for item in range(7000)]


def test_a_wait_that_times_out_does_not_keep_the_owners_result_out(tmp_path: Path) -> None:
    """Else nothing would ever be stored where callers come more often than the function takes to end."""
    scene = Scene.at(tmp_path, wait_timeout=0.05)
    with Cast() as cast:
        owner, waiter, other = cast.actors(3)
        owning = owner.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        waiting = waiter.begin(call, scene, signed, [1])
        scene.flag("inside-2").wait()
        scene.flag("go-1").set()
        assert owning.result() == [1]
        assert other.run(contains, scene, signed, [1]) == [True]
        scene.flag("go-2").set()
        assert waiting.result() == [2]
        assert other.run(call, scene, signed, [1]) == [1]


def test_a_caller_waits_for_what_another_process_computes(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        first = owner.begin(call, scene, held, [1, 2])
        scene.flag("inside-1").wait()
        second = waiter.begin(call, scene, held, [2, 1, 2])
        waiter.run(wait_for_waiters, scene, held, 1)
        scene.flag("go-1").set()
        assert (first.result(), second.result()) == ([10, 20], [20, 10, 20])
        counted = owner.run(info, scene, held)
    assert scene.journal().lines() == ["1", "2"]
    assert (counted.hits, counted.misses, counted.waits) == (1, 2, 2)


def test_a_caller_computes_what_nobody_has_claimed_before_it_waits(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, other = cast.actors(2)
        first = owner.begin(call, scene, held, [1, 2])
        scene.flag("inside-1").wait()
        second = other.begin(call, scene, held, [2, 3])
        scene.flag("inside-3").wait()
        scene.flag("go-3").set()
        other.run(wait_for_waiters, scene, held, 1)
        assert owner.run(contains, scene, held, [1, 2, 3]) == [False, False, True]
        scene.flag("go-1").set()
        assert (first.result(), second.result()) == ([10, 20], [20, 30])
    assert scene.journal().lines() == ["1", "2", "3"]


def test_processes_with_disjoint_misses_are_inside_the_function_at_the_same_time(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        tasks = [actor.begin(call, scene, meeting, [item]) for item, actor in enumerate(cast.actors(2), 1)]
        assert [task.result() for task in tasks] == [[10], [20]]


def test_hits_are_answered_and_count_as_use_while_another_process_is_inside_a_write_transaction(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, maxsize=3)
    with Cast() as cast:
        reader, writer = cast.actors(2)
        reader.run(call, scene, plain, [1, 2, 3])
        writing = writer.begin(writers.stay_inside, scene, plain)
        scene.flag("writing").wait()
        assert reader.run(call, scene, plain, [1]) == [10]
        assert not writing.is_done()
        scene.flag("leave").set()
        writing.result()
        reader.run(call, scene, plain, [4])
        assert reader.run(contains, scene, plain, [1, 2, 3, 4]) == [True, False, True, True]
        assert reader.run(info, scene, plain).hits == 1


def test_a_process_that_never_used_the_store_gets_hits_while_another_one_writes_for_long(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        writer, reader = cast.actors(2)
        writer.run(call, scene, plain, [1])
        writing = writer.begin(writers.stay_inside, scene, plain)
        scene.flag("writing").wait()
        assert reader.run(call, scene, plain, [1]) == [10]
        assert not writing.is_done()
        scene.flag("leave").set()
        writing.result()
    assert scene.journal().lines() == ["1"]
