"""An invalidation holds against computations that are under way, in whatever process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs.scenes import call, clear, contains, info, invalidate, signed, wait_for_waiters

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def remove_by_item(scene: Scene) -> None:
    invalidate(scene, signed, [1])


def remove_by_clear(scene: Scene) -> None:
    clear(scene, signed)


removals = pytest.mark.parametrize("remove", [remove_by_item, remove_by_clear])


@removals
def test_what_is_removed_in_one_process_is_gone_in_all(tmp_path: Path, remove: Any) -> None:
    scene = Scene.at(tmp_path)
    scene.flag("go-1").set()
    scene.flag("go-2").set()
    with Cast() as cast:
        one, other = cast.actors(2)
        assert one.run(call, scene, signed, [1]) == other.run(call, scene, signed, [1]) == [1]
        other.run(remove, scene)
        assert one.run(contains, scene, signed, [1]) == [False]
        assert one.run(call, scene, signed, [1]) == other.run(call, scene, signed, [1]) == [2]


@removals
def test_a_result_under_way_goes_to_its_own_caller_and_is_not_stored(tmp_path: Path, remove: Any) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, other = cast.actors(2)
        owning = owner.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        other.run(remove, scene)
        scene.flag("go-1").set()
        assert owning.result() == [1]
        assert other.run(contains, scene, signed, [1]) == [False]
        assert other.run(info, scene, signed).currsize == 0


@removals
def test_a_result_under_way_is_not_given_to_callers_that_came_later(tmp_path: Path, remove: Any) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, other, later = cast.actors(3)
        owning = owner.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        other.run(remove, scene)
        second = later.begin(call, scene, signed, [1])
        scene.flag("inside-2").wait()
        scene.flag("go-1").set()
        assert owning.result() == [1]
        third = owner.begin(call, scene, signed, [1])
        owner.run(wait_for_waiters, scene, signed, 1)
        scene.flag("go-2").set()
        assert second.result() == third.result() == [2]
    assert len(scene.journal().lines()) == 2


@removals
def test_those_who_waited_for_a_removed_claim_compute_it_anew_once(tmp_path: Path, remove: Any) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter, other = cast.actors(3)
        owning = owner.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        waiting = [waiter.begin(call, scene, signed, [1]) for _ in range(3)]
        waiter.run(wait_for_waiters, scene, signed, 3)
        other.run(remove, scene)
        scene.flag("inside-2").wait()
        scene.flag("go-2").set()
        assert [task.result() for task in waiting] == [[2]] * 3
        scene.flag("go-1").set()
        assert owning.result() == [1]
        assert other.run(call, scene, signed, [1]) == [2]
    assert len(scene.journal().lines()) == 2


def test_other_items_of_the_same_call_are_stored_all_the_same(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, other = cast.actors(2)
        owning = owner.begin(call, scene, signed, [1, 2])
        scene.flag("inside-2").wait()
        assert other.run(invalidate, scene, signed, [1]) == 0
        scene.flag("go-2").set()
        assert owning.result() == [2, 2]
        assert other.run(contains, scene, signed, [1, 2]) == [False, True]
