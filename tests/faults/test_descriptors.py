"""Guarantee 9: nothing of a user is written, locked or closed by a store whose descriptors were closed for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.programs import closing
from tests.processes._tools import Cast, Scene
from tests.processes.programs.scenes import call, contains, held, info, plain, wait_for_waiters

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed by /proc")


def test_a_users_file_that_took_the_number_of_any_of_the_stores_is_never_touched(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor, other = cast.actors(2)
        names = other.run(closing.names_of_files, scene)
        assert {"data.mdb", "lock.mdb", "gate", "workers.lock"} <= set(names)
        for lost in [list(range(len(names))), *([number] for number in range(len(names)))]:
            right = actor.begin(closing.loses, scene, lost, in_main_thread=True).result()
            assert right, scene.journal("found").lines()[-4:]
            assert other.run(call, scene, plain, [1]) == [10]
        assert other.run(contains, scene, plain, [1]) == [True]
        assert other.run(info, scene, plain).currsize >= 1


def test_a_process_whose_files_were_closed_says_so_under_strict(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, strict=True)
    with Cast() as cast:
        raised = cast.actor().begin(closing.raises_under_strict, scene, in_main_thread=True).result()
        assert raised, scene.journal("found").lines()


def test_a_process_whose_liveness_file_was_closed_takes_no_living_owner_for_dead(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    scene.flag("go-2").set()
    with Cast() as cast:
        owner, other = cast.actors(2)
        owning = owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        asking = other.begin(closing.sees_a_living_owner, scene, held, in_main_thread=True)
        scene.flag("asking").wait()
        assert not asking.is_done(0.5)  # it waits, as it shall; that it has not ended yet is no proof, the journal is
        scene.flag("go-1").set()
        assert owning.result() == [10]
        assert asking.result()
    assert sorted(scene.journal().lines()) == ["1", "2"]


def test_a_daemon_that_forks_and_closes_everything_uses_the_cache_of_its_parent(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor = cast.actor()
        assert actor.run(call, scene, plain, [1, 2]) == [10, 20]
        actor.begin(closing.become_daemon, scene, in_main_thread=True).result()
        assert scene.journal("daemon").lines() == ["True"]
        assert actor.run(call, scene, plain, [3, 4]) == [30, 40]
    assert scene.journal().lines() == ["1", "2", "3", "4"]


def test_claims_of_a_process_that_became_another_program_are_taken_over(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor, waiter = cast.actors(2)
        executing = actor.begin(closing.execute, scene, in_main_thread=True)
        scene.flag("became").wait()
        waiting = waiter.begin(call, scene, closing.becoming_another, [1])
        waiter.run(wait_for_waiters, scene, closing.becoming_another, 1)
        scene.flag("go").set()
        assert waiting.result() == [10]
        assert executing.result() == 0
    assert scene.journal("after-exec").lines() == ["[10, 20]"]
    assert scene.journal().counts() == {"1": 2, "2": 2}
