"""Guarantee 9 where address space, descriptors, reader slots or rows are used up: the call answers, uncached."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from batche.stores.lmdb.opening import LEAST_MAP_BYTES, MAP_BYTES, READERS
from batche.stores.lmdb.workers import ROWS
from tests.faults._recount import recount_place
from tests.faults.programs.limits import (
    ask_a_while_later_with_few,
    ask_quietly,
    ask_with_few,
    be_a_tree_of_its_own,
    call_without_descriptors,
    contains_quietly,
    decorate_and_ask_with_few,
    hold_every_reader_slot,
    hold_every_row,
    info_quietly,
    let_go_of_rows,
    read_boot_identity_without_descriptors,
    runtime_places,
    take_row_without_descriptors,
    wait_until_it_caches,
    with_little_address_space,
)
from tests.faults.programs.sizes import ask, batches, items_of, sized
from tests.processes._tools import Cast, Scene
from tests.processes.programs.scenes import call, contains, held, info, wait_for_waiters

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are set and looked at as Linux has them")

MIB = 1 << 20


DESCRIPTORS = 5 if sys.version_info >= (3, 13) else 8
"""What a place and one environment take: LMDB three, a lock file of each one, and until 3.13 each of three maps one."""


# ---- ulimit -v ----


def map_size(scene: Scene) -> int:
    (written,) = scene.place.glob("*/format")
    size: int = json.loads(written.read_text())["map_size"]
    return size


def test_little_address_space_makes_a_smaller_map_that_is_kept(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        limited, other = cast.actors(2)
        asked = limited.run(with_little_address_space, 400 * MIB, ask, scene, [items_of([1, 2], 100)])
        assert asked == (0, [], [])
        assert limited.run(contains, scene, sized, items_of([1, 2], 100)) == [True, True]
        assert 64 * MIB <= map_size(scene) <= 256 * MIB
        assert other.run(contains, scene, sized, items_of([1, 2], 100)) == [True, True]


def test_an_environment_of_a_large_map_is_opened_with_less_address_space(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        limited, other = cast.actors(2)
        other.run(ask, scene, [items_of([1, 2], 100)])
        asked = limited.run(with_little_address_space, 400 * MIB, ask, scene, [items_of([1, 3], 100)])
        assert asked == (0, [], [])
        assert other.run(contains, scene, sized, items_of([3], 100)) == [True]
        assert map_size(scene) == MAP_BYTES


def test_no_address_space_at_all_is_told_with_the_remedy(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        limited, other = cast.actors(2)
        other.run(ask_quietly, scene, items_of([1, 2], 100))
        asked = limited.run(
            with_little_address_space, LEAST_MAP_BYTES * 3 // 4, ask_quietly, scene, items_of([1, 2], 100)
        )
        assert (asked.wrong, len(asked.warnings)) == (0, 1)
        assert "ulimit -v" in asked.warnings[0]
        limited.run(wait_until_it_caches, scene)


def test_a_full_map_evicts(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, max_bytes=1 << 30)
    with Cast() as cast:
        actor = cast.actor()
        assert actor.run(with_little_address_space, 16 * MIB, info, scene, sized).currsize == 0
        assert map_size(scene) <= 16 * MIB
        number = 2 * map_size(scene) // 5000
        assert actor.run(ask, scene, batches(range(number), 5000, 50)) == (0, [], [])
        there = actor.run(contains, scene, sized, items_of(range(number), 5000))
        counted = actor.run(info, scene, sized)
        assert there == sorted(there)
        assert (counted.errors, counted.currsize, counted.evictions) == (0, sum(there), number - sum(there))
        assert 50 < sum(there) < number
        assert cast.actor().run(recount_place, scene.place) == []


# ---- ulimit -n ----


@pytest.mark.parametrize("made", [False, True], ids=["new", "made"])
def test_no_descriptors_at_any_step_of_the_first_call(tmp_path: Path, made: bool) -> None:
    """It runs out of them one step later each time, until it has what it needs; none is lost, and caching resumes."""
    needed, warned, resuming = 0, True, []
    with Cast() as cast:
        while warned:
            scene = Scene.at(tmp_path / str(needed))
            scene.directory.mkdir()
            actor, maker = cast.actors(2)
            if made:
                maker.run(ask_quietly, scene, items_of([3], 100))
            maker.leave()
            asked, kept = actor.run(ask_with_few, scene, needed, items_of([1, 2], 100))
            warned = bool(asked.warnings)
            assert asked.wrong == 0
            assert ["ulimit -n" in warning for warning in asked.warnings] == [True] * warned
            assert kept == (0 if warned else DESCRIPTORS)
            resuming.append(actor.begin(wait_until_it_caches, scene))
            needed += 1
        assert [task.result() for task in resuming] == [None] * needed
    assert needed > 5


def test_no_descriptors_at_any_step_of_joining_the_runtime_place() -> None:
    """A place that could not be made leaves nothing beside it, and nothing of it is kept but the membership."""
    with Cast() as cast:
        for left in range(6):
            actor = cast.actor()
            actor.run(be_a_tree_of_its_own)
            answer, kept = actor.run(decorate_and_ask_with_few, left)
            assert (answer, kept) == ([2, 4], len(actor.run(runtime_places)))
            actor.run(decorate_and_ask_with_few, 100)
            assert len(actor.run(runtime_places)) == 1
            actor.leave()


def test_no_descriptors_for_a_larger_slot_table(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor = cast.actor()
        assert actor.run(ask_quietly, scene, items_of(range(1000), 10)) == (0, [], [])
        asked, kept = actor.run(ask_with_few, scene, 0, items_of(range(2000, 2100), 10))
        assert (asked.wrong, len(asked.warnings), kept) == (0, 1, 0)
        assert "ulimit -n" in asked.warnings[0]
        assert actor.run(info_quietly, scene).errors == 1
        assert actor.run(ask_quietly, scene, items_of(range(2000, 2100), 10)) == (0, [], [])
        assert actor.run(info_quietly, scene).currsize == 1100
        assert cast.actor().run(recount_place, scene.place) == []


def test_an_open_store_needs_no_descriptor(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor = cast.actor()
        actor.run(ask_quietly, scene, items_of([1], 10))
        assert actor.run(ask_with_few, scene, 0, items_of([1, 2], 10)) == ((0, [], []), 0)
        assert actor.run(ask_a_while_later_with_few, scene, 0, items_of([1, 2, 3], 10)) == ((0, [], []), 0)
        assert actor.run(contains_quietly, scene, items_of([2, 3], 10)) == [True, True]


def test_who_has_no_descriptors_takes_nobody_for_dead(tmp_path: Path) -> None:
    """Whether an owner is about to die is told by a file of the system, which cannot be opened: so the lock tells."""
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        owning = owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        waiter.run(info, scene, held)
        waiting = waiter.begin(call_without_descriptors, scene, held, [1])
        waiter.run(wait_for_waiters, scene, held, 1)
        assert not waiting.is_done(within=0.2)
        scene.flag("go-1").set()
        assert owning.result() == waiting.result() == [10]
    assert scene.journal().lines() == ["1"]


def test_who_took_a_row_without_descriptors_is_taken_for_dead_by_nobody(tmp_path: Path) -> None:
    """It could not find out when it began, which others compare with what the system says of its pid."""
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        owner, waiter = cast.actors(2)
        owner.run(take_row_without_descriptors, scene, held)
        owning = owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        waiting = waiter.begin(call, scene, held, [1])
        waiter.run(wait_for_waiters, scene, held, 1)
        assert not waiting.is_done(within=0.2)
        scene.flag("go-1").set()
        assert owning.result() == waiting.result() == [10]
    assert scene.journal().lines() == ["1"]


def test_a_boot_that_cannot_be_told_is_not_another_boot() -> None:
    with Cast() as cast:
        cast.actor().run(read_boot_identity_without_descriptors)


# ---- reader slots and rows ----


def test_every_reader_slot_in_use(tmp_path: Path) -> None:
    """By a living process it is told; the slots of one that was killed are used by the next read."""
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor, holder = cast.actors(2)
        assert actor.run(ask, scene, [items_of([1, 2], 10)]) == (0, [], [])
        assert holder.run(hold_every_reader_slot, scene) >= READERS - 2
        asked = actor.run(ask, scene, [items_of([1, 2], 10), items_of([3], 10)])
        assert (asked.wrong, asked.raised, len(asked.warnings)) == (0, [], 1)
        assert "reader slots" in asked.warnings[0]
        holder.kill()
        assert actor.run(ask, scene, [items_of([1, 2], 10), items_of([4], 10)]) == (0, [], [])
        assert actor.run(info, scene, sized)[:2] == (2, 2 + 3 + 1)
        assert actor.run(info, scene, sized).errors == 2
        assert len(scene.journal().lines()) == 2 + 3 + 1


def test_every_row_in_use(tmp_path: Path) -> None:
    """Who has none reads what is there, and computes what is not."""
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        first, crowd, late = cast.actors(3)
        first.run(ask, scene, [items_of([1, 2], 10)])
        assert crowd.run(hold_every_row, scene) == ROWS - 1
        assert late.run(ask, scene, [items_of([1, 2], 10)]) == (0, [], [])
        asked = late.run(ask, scene, [items_of([2, 3], 10), items_of([3], 10)])
        assert (asked.wrong, asked.raised, len(asked.warnings)) == (0, [], 1)
        assert "rows are in use" in asked.warnings[0]
        crowd.run(let_go_of_rows)
        assert late.run(ask, scene, [items_of([4], 10)]) == (0, [], [])
        assert late.run(contains, scene, sized, items_of([3, 4], 10)) == [False, True]
        assert first.run(info, scene, sized).errors == 2
