"""``batch_size`` between processes: callers of one list share its work, and what a part has stored is not lost."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs.scenes import FailedError, call, contains, info

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
ITEMS = range(100)
ANSWER = [10 * item for item in ITEMS]
DONE = [item < 60 for item in ITEMS]
"""What is stored when the seventh part is under way."""


def in_step(scene: Scene, items: list[Any]) -> None:
    """Go on once the other process is inside of the function too, in each part."""
    entered = scene.journal("entered")
    entered.note(f"{os.getpid()} {len(items)}")
    mine = [line.split()[0] for line in entered.lines()].count(str(os.getpid()))
    entered.wait_for(2 * mine)


def failing_in_part_7(scene: Scene, items: list[Any]) -> None:
    """The first call fails in its seventh part; later ones do not."""
    scene.journal("sizes").note(len(items))
    if len(scene.journal("sizes").lines()) == 7:
        raise FailedError(items[0])


def held_in_part_7(scene: Scene, items: list[Any]) -> None:
    """The process that is the first to be there stays in its seventh part."""
    scene.journal("sizes").note(len(items))
    if len(scene.journal("sizes").lines()) == 7:
        scene.flag("inside").set()
        scene.flag("go").wait()


def test_two_processes_with_one_list_compute_half_of_its_parts_each(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, batch_size=10)
    with Cast() as cast:
        tasks = [actor.begin(call, scene, in_step, ITEMS) for actor in cast.actors(2)]
        assert [task.result() for task in tasks] == [ANSWER, ANSWER]
        counted = cast.actor().run(info, scene, in_step)
    parts = Counter(scene.journal("entered").lines())
    assert len(parts) == 2
    assert set(parts.values()) == {5}
    assert {part.split()[1] for part in parts} == {"10"}
    assert scene.journal().counts() == dict.fromkeys(map(str, ITEMS), 1)
    assert (counted.misses, counted.misses + counted.hits + counted.waits) == (100, 200)


def test_an_error_in_part_7_loses_nothing_of_parts_1_to_6(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, batch_size=10)
    with Cast() as cast:
        failing, other = cast.actors(2)
        error = failing.begin(call, scene, failing_in_part_7, ITEMS).error()
        assert isinstance(error, FailedError)
        assert error.args == (60,)
        assert other.run(contains, scene, failing_in_part_7, ITEMS) == DONE
        assert other.run(call, scene, failing_in_part_7, ITEMS) == ANSWER
        counted = other.run(info, scene, failing_in_part_7)
    assert scene.journal("sizes").lines() == ["10"] * 11
    assert scene.journal().counts() == {str(item): 1 + (60 <= item < 70) for item in ITEMS}
    assert (counted.hits, counted.misses, counted.waits) == (60, 140, 0)


def test_an_owner_killed_in_part_7_leaves_what_it_stored_and_the_rest_is_taken_over(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, batch_size=10)
    with Cast() as cast:
        owner, other = cast.actors(2)
        owner.begin(call, scene, held_in_part_7, ITEMS)
        scene.flag("inside").wait()
        assert other.run(contains, scene, held_in_part_7, ITEMS) == DONE
        owner.kill()
        assert other.run(call, scene, held_in_part_7, ITEMS) == ANSWER
        counted = other.run(info, scene, held_in_part_7)
    assert scene.journal().counts() == {str(item): 1 + (60 <= item < 70) for item in ITEMS}
    assert (counted.hits, counted.misses, counted.waits, counted.takeovers) == (60, 40, 0, 10)
