"""SIGSTOP: an owner that stands still is waited for; a writer that does holds up no reader, and nobody for ever.

And a reader that does makes no file grow: others do without the store until it goes on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from batche.errors import StoreError
from batche.stores.base import PATIENCE
from batche.stores.lmdb import growth
from batche.stores.lmdb.environment import LITTLE_PATIENCE
from tests.faults._kill_storm import LENIENCE, TAKEOVER, kill_storm, plan_in
from tests.faults._report import Report
from tests.faults.programs import standstills
from tests.processes._tools import Actor, Cast, Scene, Task, until
from tests.processes.programs import writers
from tests.processes.programs.scenes import call, contains, held, info, invalidate, plain, signed, wait_for_waiters

WAIT = 0.3
"""Seconds of `wait_timeout`."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bounds are promised for Linux")


def test_others_compute_their_own_beside_a_stopped_owner_and_wait_for_its_items_only(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter, other = cast.actors(3)
        owning = owner.begin(call, scene, held, [1, 2])
        scene.flag("inside-1").wait()
        owner.freeze()
        waiting = waiter.begin(call, scene, held, [3, 1])
        scene.flag("inside-3").wait()
        scene.flag("go-3").set()
        waiter.run(wait_for_waiters, scene, held, 1)
        assert other.run(call, scene, held, [3]) == [30]
        scene.flag("go-1").set()
        assert not waiting.is_done(within=2 * TAKEOVER)
        owner.thaw()
        assert owning.result() == [10, 20]
        assert waiting.result() == [30, 10]
    assert sorted(scene.journal().lines()) == ["1", "2", "3"]


def test_a_stopped_owner_that_is_killed_is_taken_over_in_time(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        owner.freeze()
        waiting = waiter.begin(call, scene, held, [1])
        waiter.run(wait_for_waiters, scene, held, 1)
        scene.flag("go-1").set()
        killed = time.monotonic()
        owner.kill()
        assert waiting.result() == [10]
        assert time.monotonic() - killed < LENIENCE * TAKEOVER


def test_a_wait_for_a_stopped_owner_ends_with_its_time_out_and_takes_the_claim_over(tmp_path: Path) -> None:
    scene, patient = Scene.at(tmp_path, wait_timeout=WAIT), Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter, other = cast.actors(3)
        owning = owner.begin(call, scene, signed, [1])
        scene.flag("inside-1").wait()
        owner.freeze()
        scene.flag("go-2").set()
        answer, seconds = waiter.run(standstills.call, scene, signed, [1])
        assert answer == [2]
        assert WAIT <= seconds < LENIENCE * WAIT
        assert other.run(call, patient, signed, [1]) == [2]
        scene.flag("go-1").set()
        owner.thaw()
        assert owning.result() == [1]
        assert owner.run(call, scene, signed, [1]) == other.run(call, patient, signed, [1]) == [2]
        assert other.run(info, patient, signed).misses == 2


@pytest.mark.slow
def test_nobody_waits_for_ever_for_a_writer_that_stands_still(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    strict = Scene.at(tmp_path, strict=True)
    with Cast() as cast:
        writer, reader, newcomer, owner, waiter, crowd, loop, demanding = cast.actors(8)
        assert reader.run(call, scene, plain, [1, 2]) == [10, 20]
        owning = owner.begin(call, scene, plain_and_held, [1])
        scene.flag("inside-1").wait()
        waiting = waiter.begin(standstills.call, scene, plain_and_held, [1])
        waiter.run(wait_for_waiters, scene, plain_and_held, 1)
        writing = writer.begin(writers.stay_inside, scene, plain)
        scene.flag("writing").wait()
        writer.freeze()
        try:
            storing = reader.begin(standstills.call, scene, plain, [1, 3])
            crowded = crowd.begin(standstills.call_in_threads, scene, plain, [4, 5], 4)
            looping = loop.begin(standstills.call_in_tasks, scene, [7, 8], 3)
            raising = demanding.begin(standstills.call, strict, plain, [6])
            invalidating = demanding.begin(standstills.invalidate, scene, plain, [1])
            for caller in (reader, newcomer):  # hits are answered meanwhile, those of a process's first call too
                answer, seconds = caller.run(standstills.call, scene, plain, [2, 1])
                assert (answer, seconds < LENIENCE * TAKEOVER) == ([20, 10], True)
                assert caller.run(contains, scene, plain, [1, 3]) == [True, False]
            assert not storing.is_done()
            scene.flag("go-1").set()  # its environment is another: writers of different functions do not meet
            assert owning.result() == waiting.result()[0] == [10]
            bound = LENIENCE * PATIENCE
            for task, expected in ((storing, [10, 30]), (crowded, [[40, 50]] * 4), (looping, [[70, 80]] * 3)):
                until(task.is_done, "its bound is kept", bound)
                assert task.result()[0] == expected
            for task in (raising, invalidating):
                until(task.is_done, "its bound is kept", bound)
                assert isinstance(task.result()[0], StoreError)
            assert newcomer.run(contains, scene, plain, list(range(1, 9))) == [True, True] + 6 * [False]
        finally:
            writer.thaw()
        scene.flag("leave").set()
        writing.result()
        for caller in (
            newcomer,
            crowd,
            loop,
            demanding,
        ):  # with its first turn to write a process tells what it counted so far
            assert caller.run(call, scene, plain, [3, 4, 6]) == [30, 40, 60]
        assert reader.run(contains, scene, plain, [3, 4, 5, 6]) == [True, True, False, True]
        assert reader.run(info, scene, plain).errors == 9
        assert newcomer.run(standstills.count, scene, plain).wrong == []


def plain_and_held(scene: Scene, items: list[int]) -> None:
    """As `held`, in an environment of its own."""
    held(scene, items)


# ---- a reader that stands still ----

LIMIT = 1 << 20
"""Bytes of entries: `FILL` calls store more."""
FILL = 200


@pytest.fixture
def small(tmp_path: Path) -> Scene:
    return Scene.at(tmp_path, max_bytes=LIMIT)


def begin_to_read(reader: Actor, scene: Scene) -> Task:
    """Have ``reader`` read, once as much was stored as the file may hold; returns once it does."""
    assert reader.run(standstills.evict, scene, plain, 0, FILL) == []
    reading = reader.begin(standstills.read_on, scene, plain)
    scene.flag("reading").wait()
    return reading


def test_a_file_does_not_grow_beyond_its_bound_beside_a_reader_that_stands_still(small: Scene) -> None:
    strict = Scene.at(small.directory, max_bytes=LIMIT, strict=True)
    with Cast() as cast:
        reader, writer, demanding, loop = cast.actors(4)
        begin_to_read(reader, small)
        reader.freeze()
        assert writer.run(standstills.evict, small, plain, 100_000, FILL) == []
        assert writer.run(standstills.file_bytes, small, plain) <= growth.most_bytes(LIMIT)
        error, seconds = demanding.run(standstills.call, strict, plain, [-1])
        assert f"kill -CONT {reader.pid}" in str(error)
        assert seconds < LENIENCE * LITTLE_PATIENCE
        answers, seconds = loop.run(standstills.call_in_tasks, small, [-2, -3], 3)
        assert answers == [[-20, -30]] * 3
        assert seconds < LENIENCE * LITTLE_PATIENCE
        assert writer.run(contains, small, plain, [100_000, -1, -2]) == [True, False, False]
        assert writer.run(call, small, plain, [100_000]) == [1_000_000]
        assert writer.run(invalidate, small, plain, [100_000]) == 1


def test_caching_goes_on_once_the_reader_that_stood_still_goes_on(small: Scene) -> None:
    with Cast() as cast:
        reader, writer = cast.actors(2)
        reading = begin_to_read(reader, small)
        reader.freeze()
        writer.run(standstills.evict, small, plain, 100_000, FILL)
        assert writer.run(standstills.store, small, plain, [-1]) == [False]
        reader.thaw()
        small.flag("leave").set()
        reading.result()
        assert writer.run(standstills.store, small, plain, [-1]) == [True]
        assert writer.run(standstills.evict, small, plain, 200_000, FILL) == []
        assert writer.run(standstills.file_bytes, small, plain) <= growth.most_bytes(LIMIT)
        assert writer.run(standstills.count, small, plain).wrong == []


def test_a_reader_that_was_killed_keeps_nothing_from_use(small: Scene) -> None:
    with Cast() as cast:
        reader, writer = cast.actors(2)
        begin_to_read(reader, small)
        reader.kill()
        writer.run(standstills.evict, small, plain, 100_000, FILL)
        assert writer.run(standstills.store, small, plain, [-1]) == [True]
        assert writer.run(info, small, plain).errors == 0
        assert writer.run(standstills.file_bytes, small, plain) <= growth.most_bytes(LIMIT)


def test_nothing_is_lost_when_workers_are_stopped_and_killed(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "storm", kills=60, stopping=True, seed=2)
    with Cast() as cast:
        storm = cast.actor().begin(kill_storm, plan, in_main_thread=True)
        assert storm.is_done(within=90)
        report = storm.result()
    assert isinstance(report, Report)
    assert report.lost == []
    assert report.injected["stops"] == 60
