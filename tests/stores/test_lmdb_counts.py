"""Counts over processes: while they live, after they were killed, and each exactly once."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from batche.stores.base import COUNTED
from batche.stores.lmdb import LmdbStore, totals
from batche.stores.lmdb.counts import LANE_WORDS, Lane
from batche.stores.lmdb.upkeep import Limits
from tests.stores._driving import NAMESPACE, OTHER, Server, new_call, new_place, server, use, wait_until


def make_store(path: Path) -> LmdbStore:
    return LmdbStore(path)


def use_there(store: LmdbStore, numbers: Sequence[int], namespace: bytes = NAMESPACE) -> list[int]:
    return use(store, numbers, namespace=namespace)


def told(store: LmdbStore, namespace: bytes = NAMESPACE) -> tuple[int, int]:
    info = store.stats(namespace)
    return info.hits, info.misses


def dead_lane(store: LmdbStore, other: Server, numbers: Sequence[int]) -> Lane:
    """The lane of a process that made one call and was killed."""
    before = {lane.index for lane in store._opened.lanes.all()}
    other.do(use_there, numbers)
    other.kill()
    (lane,) = [lane for lane in store._opened.lanes.all() if lane.index not in before]
    return lane


def bury(store: LmdbStore, lanes: Sequence[Lane] = ()) -> None:
    """Fold lanes (those that are found dead) as a writer does."""
    upkeep = store._upkeep
    upkeep.commit(NAMESPACE, lambda _: None, dead=lanes or upkeep._find_dead())


def test_counts_are_the_sum_over_all_that_run(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as one, server(make_store, tmp_path / "s") as two:
        one.do(use_there, [1, 2, 3])
        two.do(use_there, [3, 4])
        use(store, [4, 5])
        assert told(store) == (2, 5)
        assert one.do(told) == two.do(told) == (2, 5)


def test_a_killed_process_stays_counted_before_and_after_it_is_buried(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with server(make_store, tmp_path / "s") as other:
        other.do(use_there, [1, 2])
        other.kill()
        assert told(store) == (1, 2)
        bury(store)
        assert told(store) == (1, 2)
        assert len(list(store._opened.lanes.all())) == 1


def test_each_finished_call_of_a_process_that_is_killed_at_any_moment_is_counted(tmp_path: Path) -> None:
    """It is killed while calls go on; a call whose end it told of is counted, and at most one more."""
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as other:
        journal = tmp_path / "journal"
        journal.touch()
        other.start(use_forever, journal)
        wait_until(lambda: journal.stat().st_size > 50, "50 calls")
        other.kill()
    finished = journal.stat().st_size
    hits, misses = told(store)
    assert hits + misses - finished in (0, 1)
    bury(store)
    assert told(store) == (hits, misses)


def use_forever(store: LmdbStore, journal: Path) -> None:
    """Calls, each noted by one byte once it has ended."""
    with journal.open("ab", buffering=0) as file:
        for number in itertools.count():
            use(store, [number % 5])
            file.write(b".")


def test_a_fold_that_was_committed_is_not_made_again(tmp_path: Path) -> None:
    """A writer is killed between the commit of a fold and the freeing of the lane."""
    store = LmdbStore(tmp_path / "s")
    use(store, [0])
    with server(make_store, tmp_path / "s") as other:
        lane = dead_lane(store, other, [1, 2, 3])
    store._opened.lmdb.write(lambda transaction: totals.fold(transaction, lane), after=lambda _: None)
    assert told(store) == (0, 4)
    bury(store)
    assert told(store) == (0, 4)
    assert lane.token not in {left.token for left in store._opened.lanes.all()}


def test_a_late_burier_does_not_free_the_lane_of_a_newcomer(tmp_path: Path) -> None:
    """Two writers find the same process dead; a third takes its lane before the second of them has its turn."""
    store = LmdbStore(tmp_path / "s")
    use(store, [0])
    with server(make_store, tmp_path / "s") as other:
        lane = dead_lane(store, other, [1, 2, 3])
    bury(store)
    with server(make_store, tmp_path / "s") as newcomer:
        newcomer.do(use_there, [4])
        taken = {left.index: left.token for left in store._opened.lanes.all()}
        assert lane.index in taken
        bury(store, [lane])
        newcomer.do(use_there, [5])
        assert {left.index: left.token for left in store._opened.lanes.all()} == taken
        assert told(store) == (0, 6)


def test_lanes_are_reused_and_the_table_grows(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    namespaces = [(100 + number).to_bytes(8, "big") for number in range(200)]
    table = store._opened.lanes._table
    before = len(table)
    for namespace in namespaces:
        use(store, [1], namespace=namespace)
    assert len(table) > before
    assert len(table) // LANE_WORDS >= 200
    assert {told(store, namespace) for namespace in namespaces} == {(0, 1)}
    for namespace in namespaces[:100]:
        store.forget(namespace)
    grown = len(table)
    for namespace in namespaces[:100]:
        use(store, [1], namespace=namespace)
    assert len(table) == grown


def test_another_process_counts_in_a_table_that_grew_after_it_joined(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as other:
        other.do(use_there, [1])
        for number in range(100):
            use(store, [1], namespace=(100 + number).to_bytes(8, "big"))
        other.do(use_there, [1, 2], OTHER)
        assert told(store, OTHER) == (0, 2)
        assert told(store) == (0, 1)
        assert other.do(told, (150).to_bytes(8, "big")) == (0, 1)


def test_a_hundred_short_lived_processes_are_all_counted(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as parent:
        parent.do(fork_callers, 100)
        assert told(store) == (99, 1)
        bury(store)
        assert told(store) == (99, 1)


def fork_callers(store: LmdbStore, number: int) -> None:
    """One after the other, forked processes that make one call each and end without a word."""
    import os

    for _ in range(number):
        child = os.fork()
        if child == 0:
            use(store, [7])
            os._exit(0)
        os.waitpid(child, 0)


def test_a_clear_sets_the_counts_of_all_processes_to_zero(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as living, server(make_store, tmp_path / "s") as killed:
        use(store, [1], namespace=OTHER)
        living.do(use_there, [1, 2])
        dead_lane(store, killed, [2, 3])
        use(store, [3, 4])
        assert store.clear(NAMESPACE) == 4
        assert told(store) == (0, 0)
        living.do(use_there, [1])
        bury(store)
        assert told(store) == (0, 1)
        assert told(store, OTHER) == (0, 1)


def test_counts_made_before_there_is_a_lane_are_kept(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    store.release(new_call(), counts={"hits": 3, "errors": 1})
    use(store, [1])
    info = store.stats(NAMESPACE)
    assert (info.hits, info.misses, info.errors) == (3, 1, 1)


def test_counts_made_before_there_is_a_lane_outlive_the_store_that_made_them(tmp_path: Path) -> None:
    LmdbStore(tmp_path / "s").release(new_call(), counts={"hits": 3})
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    assert told(store) == (3, 1)


@pytest.mark.parametrize("name", COUNTED)
def test_every_count_that_callers_report_arrives_under_its_name(tmp_path: Path, name: str) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    before = getattr(store.stats(NAMESPACE), name)
    store.release(new_call(), counts={name: 5})
    assert getattr(store.stats(NAMESPACE), name) == before + 5


def forgotten(store: LmdbStore, namespace: bytes = NAMESPACE) -> bool:
    """Whether nothing is written of a namespace, and nobody has a lane for it."""
    left: list[bytes] = store._opened.lmdb.read(lambda transaction: [bytes(name) for name, _ in transaction.cursor()])
    return not [name for name in left if name[1:].startswith(namespace)] and not store._opened.lanes.of(namespace)


def test_a_namespace_is_forgotten_though_a_dead_process_counted_in_it(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [0])
    with server(make_store, tmp_path / "s") as other:
        dead_lane(store, other, [1, 2])
    store.forget(NAMESPACE)
    assert forgotten(store)
    use(store, [0], namespace=OTHER)
    assert forgotten(store)


def test_a_namespace_is_forgotten_though_this_process_counted_in_it_before_it_opened_the_store_anew(
    tmp_path: Path,
) -> None:
    place = new_place(tmp_path)
    use(of_function(place), [0])
    gc.collect()  # closed by now: who opens it again counts as another process
    store = of_function(place)
    store._opened.looked = time.monotonic()  # it does not look for the dead meanwhile
    use(store, [1])
    assert len(store._opened.lanes.of(NAMESPACE)) == 2
    store.forget(NAMESPACE)
    assert forgotten(store)


def test_a_dead_process_does_not_bring_back_a_namespace_that_was_forgotten(tmp_path: Path) -> None:
    """Who forgot it was killed between the commit and the freeing of the lane."""
    store = of_function(new_place(tmp_path))
    use(store, [0])
    with server(of_function, tmp_path / "p") as other:
        lane = dead_lane(store, other, [1, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._opened.lanes, "free", lambda _: None)
        store.forget(NAMESPACE)
    assert lane in store._opened.lanes.of(NAMESPACE)
    store._opened.looked = float("-inf")
    use(store, [1], namespace=OTHER)
    assert forgotten(store)


def of_function(place: Path) -> LmdbStore:
    return LmdbStore.of_function(place, "e", Limits())


def test_a_namespace_in_which_a_living_process_counts_is_not_forgotten(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as other:
        other.do(use_there, [1, 2])
        use(store, [1])
        store.forget(NAMESPACE)
        assert other.do(use_there, [1, 2]) == []
