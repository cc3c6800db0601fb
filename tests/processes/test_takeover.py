"""Guarantee 3: nobody waits for the dead, everybody waits for the living, and a late owner harms no successor."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.processes._tools import Cast, Scene, until
from tests.processes.programs import writers
from tests.processes.programs.scenes import (
    call,
    call_in_threads,
    contains,
    held,
    info,
    invalidate,
    plain,
    signed,
    wait_for_waiters,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bound is promised for Linux")

BOUND = 0.25
"""Seconds within which a dead owner's items are taken over."""
PATIENCE_OF_A_TEST = 8 * BOUND
"""What a machine shared with other tests may make of it."""


def test_a_killed_owners_item_is_taken_over_in_time(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        owner.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        scene.flag("go-2").set()
        waiting = waiter.begin(call, scene, signed, [1])
        waiter.run(wait_for_waiters, scene, signed, 1)
        killed = time.monotonic()
        owner.kill()
        assert waiting.result() == [2]
        assert time.monotonic() - killed < PATIENCE_OF_A_TEST
        counted = waiter.run(info, scene, signed)
    assert (counted.misses, counted.waits, counted.takeovers) == (1, 0, 1)


def test_one_waiter_takes_over_from_the_dead_and_the_others_wait_on(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, *others = cast.actors(3)
        owner.begin(call, scene, signed, [1, 2])
        scene.flag("inside-2").wait()
        crowds = [other.begin(call_in_threads, scene, signed, [1, 2], 4) for other in others]
        for other in others:
            other.run(wait_for_waiters, scene, signed, 4)
        owner.kill()
        scene.flag("inside-4").wait()
        scene.flag("go-4").set()
        assert [answer for crowd in crowds for answer in crowd.result()] == [[4, 4]] * 8
        assert others[0].run(info, scene, signed).takeovers == 2
    assert len(scene.journal().lines()) == 4


def test_a_writer_killed_inside_its_transaction_holds_up_nobody_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        writer, other = cast.actors(2)
        assert other.run(call, scene, plain, [1, 2]) == [10, 20]
        writer.begin(writers.stay_inside, scene, plain)
        scene.flag("writing").wait()
        storing = other.begin(call, scene, plain, [3])
        assert not storing.is_done()
        killed = time.monotonic()
        writer.kill()
        assert storing.result() == [30]
        assert time.monotonic() - killed < PATIENCE_OF_A_TEST
        assert other.run(contains, scene, plain, [1, 2, 3]) == [True, True, True]
        assert other.run(writers.is_unfinished, scene, plain) is False


def test_a_stopped_owner_is_waited_for(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        owning = owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        owner.freeze()
        waiting = waiter.begin(call, scene, held, [1])
        waiter.run(wait_for_waiters, scene, held, 1)
        scene.flag("go-1").set()
        assert not waiting.is_done(within=2 * BOUND)
        owner.thaw()
        assert owning.result() == waiting.result() == [10]
    assert scene.journal().lines() == ["1"]


def test_a_late_owner_neither_ends_its_successors_claim_nor_overwrites_its_entry(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        late, successor, asker = cast.actors(3)
        first = late.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        asker.run(invalidate, scene, signed, [1])
        second = successor.begin(call, scene, signed, [1])
        scene.flag("inside-2").wait()
        scene.flag("go-1").set()
        assert first.result() == [1]
        third = asker.begin(call, scene, signed, [1])
        asker.run(wait_for_waiters, scene, signed, 1)
        scene.flag("go-2").set()
        assert second.result() == third.result() == late.run(call, scene, signed, [1]) == [2]
    assert scene.journal().lines() == ["1", "1"]


def test_the_claims_of_the_dead_are_swept(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, other = cast.actors(2)
        owner.begin(call, scene, held, list(range(100)))
        scene.flag("inside-0").wait()
        assert other.run(writers.claims, scene, held) == 100
        owner.kill()
        scene.flag("go-5").set()
        assert other.run(call, scene, held, [5]) == [50]
        for item in range(1000):
            scene.flag(f"go-{item}").set()
        until(lambda: not other.run(writers.store_another, scene, held), "no claim is left")
