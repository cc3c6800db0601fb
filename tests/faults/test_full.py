"""Guarantee 9 where there is no room: always the right answer, never SIGBUS, and caching resumes by itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batche._calls import new_call
from batche._trouble import StoreFullError
from batche.stores.lmdb.environment import Environment
from batche.stores.lmdb.slots import HEADER_WORDS
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.writing import Writing
from tests.faults._disks import MIB, Disk
from tests.faults._recount import ghosts, recount_place
from tests.faults.programs.sizes import Asked, ask, batches, items_of, sized
from tests.processes._tools import Actor, Cast, Scene, until
from tests.processes.programs.scenes import Behaviour, call, clear, contains, function, held, info, invalidate
from tests.processes.programs.writers import claims

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file systems are mounted in namespaces of Linux")

SIZES = pytest.mark.parametrize("size", [4 * MIB, 64 * MIB], ids=["4MiB", "64MiB"])
ENDLESS = 1 << 30
"""A limit that nothing keeps a store from but the end of the room."""
REMEDY = "make room on its file system"


def make_scene(tmp_path: Path, **options: Any) -> Scene:
    return Scene.at(tmp_path, **{"store": str(tmp_path / "disk" / "place"), "max_bytes": ENDLESS, **options})


def place_of(scene: Scene) -> Path:
    return scene.directory / "disk" / "place"


def assert_true_to_itself(disk: Disk, scene: Scene) -> None:
    """What the store says is what is in it, and nothing is left over. Looked at by a process of its own."""
    actor = disk.actor()
    assert actor.run(recount_place, place_of(scene)) == []
    assert [actor.run(ghosts, path.parent) for path in actor.run(environments, place_of(scene))] == [0]


def environments(place: Path) -> list[Path]:
    return sorted(place.glob("*/format"))


@SIZES
def test_full_before_the_place_is_created(tmp_path: Path, size: int) -> None:
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", size)
        actor = disk.actor()
        disk.fill()
        asked = actor.run(ask, scene, [items_of([1, 2, 1], 100), items_of([2, 3], 100)])
        assert (asked.wrong, asked.raised, len(asked.warnings)) == (0, [], 1)
        assert REMEDY in asked.warnings[0]
        assert actor.run(info, scene, sized).errors == 2
        disk.free()
        until(lambda: resumed(actor, scene), "caching resumes")
        assert_true_to_itself(disk, scene)


def resumed(actor: Any, scene: Scene) -> bool:
    items = items_of([1, 2], 100)
    asked = actor.run(ask, scene, [items])
    assert (asked.wrong, asked.raised, asked.warnings) == (0, [], [])
    return bool(actor.run(contains, scene, sized, items) == [True, True])


LEAVES = [kib << 10 for kib in (*range(0, 540, 90), *range(540, 636, 4), *range(636, 1000, 90))]
"""Bytes that are free: page by page where LMDB's files are made, after the table of the workers."""


def test_full_between_any_two_steps_of_creation(tmp_path: Path) -> None:
    failed = []
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        for leave in LEAVES:
            scene = make_scene(tmp_path, store=str(tmp_path / "disk" / f"place-{leave}"))
            actor = disk.actor()
            disk.fill(leave)
            asked = actor.run(ask, scene, [items_of([1, 2], 100)])
            assert (asked.wrong, asked.raised) == (0, [])
            assert len(asked.warnings) == actor.run(info, scene, sized).errors <= 1
            failed.append(len(asked.warnings))
            disk.free()
            again = make_scene(tmp_path, store=str(tmp_path / "disk" / f"place-{leave}"), strict=True)
            assert actor.run(ask, again, [items_of([1, 2], 100)]) == (0, [], [])
            assert actor.run(contains, again, sized, items_of([1, 2], 100)) == [True, True]
            actor.leave()  # with its maps, which keep the room of what is removed
            disk.stage.run(shutil.rmtree, tmp_path / "disk" / f"place-{leave}")
    assert failed[0] == 1
    assert failed[-1] == 0


@pytest.mark.parametrize("bytes_each", [100, 3000, 100_000])
@SIZES
def test_full_while_writing_evicts_the_least_recently_used(tmp_path: Path, size: int, bytes_each: int) -> None:
    """Nothing is left for the store to grow into, and no limit was stated that keeps it from growing."""
    scene = make_scene(tmp_path)
    number = (8 if bytes_each > 100 else 3) * MIB // (bytes_each + 200)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", size)
        disk.fill(min(size, 5 * MIB))
        actor = disk.actor()
        asked = actor.run(ask, scene, batches(range(number), bytes_each, 100))
        assert (asked.wrong, asked.raised, asked.warnings) == (0, [], [])
        there = actor.run(contains, scene, sized, items_of(range(number), bytes_each))
        counted = actor.run(info, scene, sized)
        assert there == sorted(there)
        assert (counted.currsize, counted.evictions, counted.errors) == (sum(there), number - sum(there), 0)
        assert sum(there) > 20
        if bytes_each > 100:
            assert counted.evictions > 0
        assert_true_to_itself(disk, scene)


@SIZES
def test_somebody_else_fills_the_file_system_and_frees_it_again(tmp_path: Path, size: int) -> None:
    """Meanwhile entries make room for new ones; after it the store grows again."""
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", size)
        actor = disk.actor()
        assert actor.run(ask, scene, batches(range(300), 3000, 50)) == (0, [], [])
        disk.fill()
        assert actor.run(ask, scene, batches(range(300, 600), 3000, 50)) == (0, [], [])
        there = actor.run(contains, scene, sized, items_of(range(600), 3000))
        assert there == sorted(there)
        assert 50 < sum(there) <= 300
        disk.free()
        assert actor.run(ask, scene, batches(range(600, 900), 3000, 50)) == (0, [], [])
        there = actor.run(contains, scene, sized, items_of(range(900), 3000))
        assert there == sorted(there)
        assert sum(there) >= 350
        assert_true_to_itself(disk, scene)


def test_an_empty_store_on_a_full_file_system_lives_off_its_ballast(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        actor = disk.actor()
        assert actor.run(info, scene, sized).currsize == 0
        disk.fill()
        items = items_of([1, 2], 1000)
        assert actor.run(ask, scene, [items]) == (0, [], [])
        assert actor.run(contains, scene, sized, items) == [True, True]
        assert actor.run(ballast, place_of(scene)) == [0]
        disk.free()
        number = iter(range(100, 100_000))
        until(lambda: has_ballast_again(actor, scene, next(number)), "a new ballast")
        assert_true_to_itself(disk, scene)


def has_ballast_again(actor: Actor, scene: Scene, number: int) -> bool:
    actor.run(ask, scene, [items_of([number], 10)])
    return bool(actor.run(ballast, place_of(scene)) != [0])


def ballast(place: Path) -> list[int]:
    return [path.stat().st_size for path in place.glob("*/ballast")]


def test_what_does_not_fit_at_all_is_told_once_and_everything_resumes(tmp_path: Path) -> None:
    """Entries larger than all the room: computed for each call, and what fits is cached before and after."""
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        actor = disk.actor()
        assert actor.run(ask, scene, [items_of([1, 2], 1000)]) == (0, [], [])
        asked = actor.run(ask, scene, [items_of([10], 5 * MIB), items_of([11], 5 * MIB)])
        assert (asked.wrong, asked.raised, len(asked.warnings)) == (0, [], 1)
        assert REMEDY in asked.warnings[0]
        assert actor.run(info, scene, sized).errors == 2
        assert actor.run(ask, scene, [items_of([3, 4], 1000)]) == (0, [], [])
        assert actor.run(contains, scene, sized, items_of([1, 2, 3, 4], 1000)) == [True] * 4
        assert_true_to_itself(disk, scene)


def test_strict_names_the_remedy(tmp_path: Path) -> None:
    """When the place is made, and when a result is stored."""
    scene = make_scene(tmp_path, strict=True)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        disk.fill()
        actor = disk.actor()
        asked = actor.run(ask, scene, [items_of([1], 100)])
        assert [REMEDY in str(error) for error in asked.raised] == [True]
        disk.free()
        asked = actor.run(ask, scene, [items_of([1], 100), items_of([2], 5 * MIB)])
        assert (asked.wrong, [REMEDY in str(error) for error in asked.raised]) == (0, [True])
        assert actor.run(contains, scene, sized, items_of([1], 100)) == [True]


def test_an_invalidation_gets_through_on_a_full_file_system(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    items = items_of(range(100), 3000)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        actor = disk.actor()
        actor.run(ask, scene, [items])
        disk.fill()
        assert actor.run(invalidate, scene, sized, items[40:]) == 60
        assert actor.run(contains, scene, sized, items)[40:] == [False] * 60
        actor.run(clear, scene, sized)
        assert actor.run(info, scene, sized).currsize == 0
        assert_true_to_itself(disk, scene)


def test_a_process_that_only_reads_needs_no_room(tmp_path: Path) -> None:
    """Its first hit would take a lane to count in, which cannot be written; the counts are kept until it can."""
    scene = make_scene(tmp_path)
    items = items_of([1, 2, 3], 1000)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        writer, reader = disk.actors(2)
        writer.run(ask, scene, [items])
        disk.fill()
        writer.run(use_up, scene)
        assert reader.run(ask, scene, [items, items]) == (0, [], [])
        assert len(scene.journal().lines()) == 3
        assert not reader.run(has_joined, scene)
        assert writer.run(ask, scene, [items_of([9], 1000)]).wrong == 0
        disk.free()
        until(lambda: reader.run(info, scene, sized).hits == 6, "counts are told")


def has_joined(scene: Scene) -> bool:
    return bool(function(scene, sized).store._upkeep._joined)


def use_up(scene: Scene, behaviour: Behaviour = sized) -> None:
    """Write until not a page is left, nor the ballast; what is freed is kept from use by a transaction that reads."""
    store = function(scene, behaviour).store
    store._upkeep._reserve.give_up()
    held = store._opened.lmdb._env.begin()
    with pytest.raises(StoreFullError):
        put_junk_for_ever(store._opened.lmdb)
    _HELD.append(held)


_HELD: list[Any] = []


def put_junk_for_ever(environment: Environment) -> None:
    while True:
        environment.write(put_junk, after=lambda _: None)


def put_junk(transaction: Transaction) -> None:
    transaction.put(b"z", b"x" * 1500)


def test_a_slot_table_that_cannot_grow_evicts(tmp_path: Path) -> None:
    """Room for entries there is, because large ones were removed; room for another 1,024 slots there is not."""
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        actor = disk.actor()
        actor.run(ask, scene, batches(range(500), 4000, 100))
        actor.run(invalidate, scene, sized, items_of(range(500), 4000))
        actor.run(ask, scene, batches(range(1000, 2024), 10, 256))
        disk.fill()
        assert actor.run(ask, scene, batches(range(3000, 3400), 10, 100)) == (0, [], [])
        counted = actor.run(info, scene, sized)
        assert counted.currsize <= 1024
        assert counted.evictions == 1024 + 400 - counted.currsize
        there = actor.run(contains, scene, sized, items_of([*range(1000, 2024), *range(3000, 3400)], 10))
        assert there == sorted(there)
        disk.free()
        actor.run(ask, scene, batches(range(4000, 5500), 10, 256))
        assert actor.run(info, scene, sized).currsize > 1024
        assert_true_to_itself(disk, scene)


def test_a_failed_transaction_leaves_nothing_untrue(tmp_path: Path) -> None:
    """One that evicted, reused slots and swept: what was oldest is so still, and what was swept is swept again."""
    scene = make_scene(tmp_path, maxsize=20)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        actor = disk.actor()
        actor.run(ask, scene, [items_of(range(20), 1000)])
        disk.fill()
        actor.run(fail_to_store, scene, items_of(range(100, 110), 1000))
        assert actor.run(contains, scene, sized, items_of(range(20), 1000)) == [True] * 20
        disk.free()
        assert actor.run(ask, scene, [items_of(range(200, 205), 1000)]) == (0, [], [])
        there = actor.run(contains, scene, sized, items_of(range(20), 1000))
        assert there == [False] * 5 + [True] * 15
        assert actor.run(info, scene, sized).evictions == 5
        assert_true_to_itself(disk, scene)


def fail_to_store(scene: Scene, items: list[Any]) -> None:
    """Evict as many as there are ``items``, store these in their slots, and write more than there is room for."""
    store, namespace = function(scene, sized).store, function(scene, sized)._bound().settings.namespace
    upkeep, victims, table = store._upkeep, store._upkeep.victims(namespace), store._opened.slots
    victims.refill()
    queue, words = list(victims._found[1]), table.words[HEADER_WORDS:].tolist()

    def body(writing: Writing) -> None:
        assert writing.make_room(len(items), 0, 1 << 40, victims.pop)
        keys = [namespace + number.to_bytes(20, "big") for number, _ in items]
        writing.add_all(keys, [b"x" * 1000] * len(keys), table.tick(), 0, 0, size=0)  # is undone
        writing.transaction.put(b"z", b"x" * 4 * MIB)

    upkeep._hopeless_until = float("inf")  # as after an eviction that did not help
    with pytest.raises(StoreFullError):
        upkeep.commit(namespace, body)
    upkeep._hopeless_until = 0.0
    assert list(victims._found[1]) == queue
    assert table.words[HEADER_WORDS:].tolist() == words


def test_claims_whose_sweep_failed_are_swept_by_the_next_writer(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        actor = disk.actor()
        actor.run(ask, scene, [items_of([1], 10)])
        assert actor.run(claim_and_end, scene, 50) == 50
        actor.run(fail_to_store, scene, [])
        assert actor.run(claims, scene, sized) == 50
        assert actor.run(invalidate, scene, sized, items_of([1], 10)) == 1
        assert actor.run(claims, scene, sized) == 0


def claim_and_end(scene: Scene, number: int) -> int:
    store, namespace = function(scene, sized).store, function(scene, sized)._bound().settings.namespace
    call = new_call(namespace)
    call.holds = True
    won = store.claim(call, [namespace + key.to_bytes(20, "big") for key in range(number)])
    store.release(call)
    return len(won)


def test_a_takeover_that_could_not_be_written_is_not_counted(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        owner, other = disk.actors(2)
        assert other.run(call, scene, held, []) == []
        owner.begin(call, scene, held, [1])
        scene.flag("inside-1").wait()
        disk.fill()
        other.run(use_up, scene, held)
        owner.kill()
        scene.flag("go-1").set()
        assert other.run(call, scene, held, [1]) == [10]
        counted = other.run(info, scene, held)
    assert (counted.takeovers, counted.errors, counted.misses) == (0, 1, 1)


def test_processes_that_write_while_somebody_fills_and_frees(tmp_path: Path) -> None:
    """Three of them, on overlapping items of all sizes, in an environment each and one that they share."""
    scene = make_scene(tmp_path)
    with Cast() as cast:
        disk = Disk(cast, tmp_path / "disk", 4 * MIB)
        writers = disk.actors(3)
        tasks = [writer.begin(ask_at_random, scene, seed, 120) for seed, writer in enumerate(writers)]
        rounds = 0
        while not all(task.is_done(within=0.02) for task in tasks) and rounds < 1000:
            disk.fill(rounds % 3 * 300_000)
            disk.free()
            rounds += 1
        assert [task.result()[:2] for task in tasks] == [(0, [])] * 3
        assert [writer.process.is_alive() for writer in writers] == [True] * 3
        until(lambda: resumed(writers[0], scene), "caching resumes")
        for actor in writers:
            actor.leave()
        assert disk.actor().run(recount_place, place_of(scene)) == []
    assert rounds > 3


def ask_at_random(scene: Scene, seed: int, calls: int) -> Asked:
    chance = Random(seed)
    sizes = [10, 100, 1000, 5000, 50_000]
    batches = [
        [(chance.randrange(60) * 5 + at, sizes[at]) for at in chance.choices(range(5), k=8)] for _ in range(calls)
    ]
    return ask(scene, batches)
