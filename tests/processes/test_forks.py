"""Guarantee 7: a fork is safe at any moment, from any thread, inside a batch function too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs import forks, writers
from tests.processes.programs.scenes import call, contains, held, info, plain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")

METHODS = ["fork", "spawn", "forkserver"]


def test_children_forked_while_threads_use_the_cache_use_it_at_once(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor()
        assert parent.begin(forks.under_load, scene, in_main_thread=True).result() == [forks.WORKING] * forks.FORKS
        counted = parent.run(info, scene, plain)
    computed = scene.journal().counts()
    assert set(computed.values()) == {1}
    assert counted.misses == counted.currsize == len(computed)
    assert (counted.errors, counted.takeovers) == (0, 0)


def test_children_forked_while_a_thread_is_in_any_function_of_a_call_use_the_cache(tmp_path: Path) -> None:
    """None of them waits for a lock that only that thread, which it does not have, could release."""
    with Cast() as cast:
        task = cast.actor().begin(forks.at_each_function, Scene.at(tmp_path), in_main_thread=True)
        assert task.is_done(within=60)
        statuses = task.result()
    assert [name for name, status in statuses if status != forks.WORKING] == []
    assert {"new_call", "Results.__init__", "Environment.in_turn"} <= {name for name, _ in statuses}


def test_children_forked_while_a_thread_uses_a_store_for_the_first_time_use_it(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor("spawn")  # where nothing is imported yet that is imported at the first use
        statuses = parent.begin(forks.during_first_use, scene, in_main_thread=True).result()
    assert statuses == [forks.WORKING] * 2 * forks.FORKS


def test_a_child_of_a_process_that_never_used_the_cache_uses_it(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor()
        assert parent.run(forks.before_any_use, scene) == forks.WORKING
        assert parent.run(call, scene, plain, [1, 2]) == [10, 20]
    assert scene.journal().lines() == ["1", "2"]


def test_children_and_grandchildren_of_a_process_that_used_the_cache_use_it(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor()
        assert parent.run(forks.after_use, scene) == [forks.WORKING] * 2
        counted = parent.run(info, scene, plain)
    assert scene.journal().lines() == ["1", "2", "3", "4"]
    assert (counted.hits, counted.misses) == (1 + 2 + 3, 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("workers", [forks.in_pool, forks.in_executor])
def test_workers_of_a_pool_share_the_cache_with_who_started_it(tmp_path: Path, method: str, workers: Any) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor("spawn")  # because a fork of a process that has a fork server cannot have one
        parent.run(call, scene, plain, [0])
        assert parent.run(workers, scene, method) == [[10 * (n % 5), 10 * (n % 7)] for n in range(20)]
        counted = parent.run(info, scene, plain)
    assert scene.journal().counts() == dict.fromkeys("0123456", 1)
    assert counted.hits + counted.misses + counted.waits == 41


def test_a_child_that_returns_through_its_parents_call_stores_releases_and_counts_nothing_of_it(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor()
        answer, child = parent.begin(forks.child_returns_through_the_call, scene, in_main_thread=True).result()
        assert (answer, child) == ([10, 20], forks.WORKING)
        assert parent.run(call, scene, forks.forking, [1, 2, 3]) == [10, 20, 30]
        counted = parent.run(info, scene, forks.forking)
    assert (counted.hits, counted.misses, counted.waits, counted.rejected, counted.errors) == (3, 3, 0, 0, 0)


def test_a_parents_claim_outlasts_a_child_that_returned_through_its_call(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent, other = cast.actors(2)
        owning = parent.begin(forks.fork_and_stay, scene)
        scene.flag("child-ended").wait()
        assert other.run(writers.claims, scene, forks.staying) == 1
        waiting = other.begin(call, scene, forks.staying, [1])
        scene.flag("go").set()
        assert owning.result() == waiting.result() == [10]
    assert scene.journal().lines() == ["1"]


def test_a_child_forked_inside_a_batch_function_does_not_wait_for_its_parents_claims(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor()
        assert parent.run(forks.child_asks_for_the_parents_items, scene) == [10, 20]
        assert parent.run(contains, scene, forks.asking_own, [1, 2, 3]) == [True, True, True]
        counted = parent.run(info, scene, forks.asking_own)
    assert (counted.hits, counted.misses, counted.waits) == (0, 5, 0)


def test_a_child_forked_beside_a_computation_waits_for_it_as_any_other_process(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        parent = cast.actor()
        task = parent.begin(forks.fork_beside_a_computation, scene, in_main_thread=True)
        assert task.result() == (forks.WORKING, [10])
        counted = parent.run(info, scene, held)
    assert scene.journal().lines() == ["1"]
    assert (counted.hits, counted.misses, counted.waits) == (0, 1, 1)
