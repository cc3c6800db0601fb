"""Choosing victims: exactness of scans while readers and other writers go on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from batche._types import Key
from batche.stores.lmdb import LmdbStore, environment, slots
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.records import pack_slot
from batche.stores.lmdb.slots import Slots
from batche.stores.lmdb.writing import Writing
from tests.stores._driving import (
    NAMESPACE,
    OTHER,
    claim,
    contents,
    key,
    keys,
    new_call,
    new_place,
    recount,
    server,
    use,
    value,
)

DOMAIN = int.from_bytes(NAMESPACE, "big")


@pytest.fixture
def table(tmp_path: Path) -> Slots:
    slots.new_table(tmp_path)
    return Slots(tmp_path)


def fill(table: Slots, number: int, domain: int = DOMAIN) -> list[int]:
    """Entries in the first ``number`` slots, used one after the other."""
    taken, _ = table.following(table.first, number)
    for slot in taken:
        table.ensure(slot)
    table.fill(taken, table.tick() - number, 1, domain)
    return taken


def drain(candidates: Candidates) -> list[int]:
    return list(iter(candidates.pop, None))


@pytest.mark.parametrize("domain", [None, DOMAIN])
def test_victims_come_oldest_first(table: Slots, domain: int | None) -> None:
    taken = fill(table, 100)
    table.words[taken[3]] = table.tick()
    candidates = Candidates(table, domain)
    candidates.refill()
    assert drain(candidates) == [slot for slot in taken if slot != taken[3]] + [taken[3]]


def test_a_victim_that_was_used_since_the_scan_is_passed_over(table: Slots) -> None:
    taken = fill(table, 10)
    candidates = Candidates(table, None)
    candidates.refill()
    table.words[taken[0]] = table.tick()
    assert candidates.pop() == taken[1]


def test_a_use_that_a_slow_reader_noted_after_the_scan_counts_by_its_moment(table: Slots) -> None:
    taken = fill(table, 10)
    candidates = Candidates(table, None)
    candidates.refill()
    table.words[taken[0]] = table.words[taken[4]]
    assert drain(candidates) == [*taken[1:4], taken[0], *taken[4:]]


def test_a_large_table_yields_its_oldest_eighth_or_so(table: Slots) -> None:
    taken = fill(table, 10_000)
    candidates = Candidates(table, DOMAIN)
    candidates.refill()
    found = drain(candidates)
    assert found == taken[: len(found)]
    assert 500 < len(found) < 3000


def test_a_scan_finds_as_many_as_are_wanted_of_a_table_with_enough(table: Slots) -> None:
    taken = fill(table, 4000)
    for least in (100, 1000, 1500, 4000):
        candidates = Candidates(table, DOMAIN)
        candidates.refill(least)
        found = drain(candidates)
        assert found == taken[: len(found)]
        assert len(found) >= least


def test_a_scan_while_victims_are_taken_gives_none_of_them_again(table: Slots) -> None:
    """Another thread may scan before the removal of those taken is committed, and they are free."""
    taken = fill(table, 10)
    candidates = Candidates(table, DOMAIN)
    candidates.refill()
    assert [candidates.pop(), candidates.pop()] == taken[:2]
    candidates.refill()
    assert candidates.pop() == taken[2]
    candidates.put_back()
    assert drain(candidates) == taken


def test_another_domain_is_not_touched(table: Slots) -> None:
    fill(table, 10, domain=DOMAIN + 1)
    candidates = Candidates(table, DOMAIN)
    candidates.refill()
    assert drain(candidates) == []


def test_free_slots_are_no_victims(table: Slots) -> None:
    taken = fill(table, 10)
    table.free(taken[0])
    candidates = Candidates(table, None)
    candidates.refill()
    assert drain(candidates) == taken[1:]


def between_threshold_and_scan(candidates: Candidates, action: Callable[[], object]) -> None:
    """Refill, and have ``action`` happen after the threshold was chosen and before the table is read."""
    chosen = candidates._threshold

    def threshold(least: int) -> int:
        latest = chosen(least)
        action()
        return latest

    candidates._threshold = threshold  # type: ignore[method-assign]  # a seam: it only adds the moment
    try:
        candidates.refill()
    finally:
        del candidates._threshold  # the class's own again


def test_a_scan_finds_victims_though_those_below_its_threshold_were_used(table: Slots) -> None:
    taken = fill(table, 2000)
    candidates = Candidates(table, DOMAIN)
    between_threshold_and_scan(candidates, lambda: table.fill(taken[:1000], table.tick(), 1, DOMAIN))
    assert drain(candidates) == taken[1000:]


def test_a_settled_scan_finds_all_though_they_are_used_meanwhile(table: Slots) -> None:
    taken = fill(table, 2000)
    settled = Candidates(table, DOMAIN).settled()
    table.fill(taken, table.tick(), 1, DOMAIN)
    assert list(settled) == taken


def test_what_is_stored_during_a_scan_is_no_victim_of_it(table: Slots) -> None:
    taken = fill(table, 10)
    fresh = taken[-1] + 1
    candidates = Candidates(table, DOMAIN)
    between_threshold_and_scan(candidates, lambda: table.fill([fresh], table.tick(), 50, DOMAIN))
    assert fresh not in drain(candidates)


def test_removal_between_scan_and_write_leaves_the_counts_right(tmp_path: Path) -> None:
    """The scan finds the table empty; an entry that is stored before the transaction must still be counted."""
    store, rival = LmdbStore(tmp_path / "s", maxsize=1), LmdbStore(tmp_path / "s")
    use(store, [1])
    victims = store._upkeep.victims(NAMESPACE)
    scan = victims.refill

    def refill(least: int) -> None:
        rival.delete([key(1)])
        scan(least)
        use(rival, [2])

    call = new_call()
    assert claim(store, call, [3]) == [3]
    refills = iter([refill])
    victims.refill = lambda least=1: next(refills, scan)(least)  # type: ignore[method-assign]
    store.put(call, [(key(3), value(3))])
    store.release(call)
    assert contents(store, range(5)) == {3}
    recount(store)


def test_a_put_of_several_parts_after_lost_counts_is_counted_whole(tmp_path: Path) -> None:
    """Counts without entries (a table that was lost) heal, and do not swallow what the same put stored before."""
    store = LmdbStore(tmp_path / "s", maxsize=2000)
    use(store, range(1500))
    for words, _, _ in store._opened.slots.chunks():
        for slot in words:
            store._opened.slots.free(slot)
    numbers = range(5000, 7000)
    use(store, numbers)
    assert contents(store, numbers) == set(numbers)
    assert store.stats(NAMESPACE).currsize == 2000
    assert store.clear(NAMESPACE) == 3500
    assert store.stats(NAMESPACE).currsize == 0


def test_a_writer_gets_through_where_every_scan_is_outrun(tmp_path: Path) -> None:
    """All entries are used after each scan and before its transaction; the least recent one goes all the same."""
    store, reader = LmdbStore(tmp_path / "s", maxsize=5), LmdbStore(tmp_path / "s")
    use(store, range(5))
    victims = store._upkeep.victims(NAMESPACE)
    scan = victims.refill

    def refill(least: int = 1) -> None:
        scan(least)
        reader.read(keys([3, 1, 4, 0, 2]))

    victims.refill = refill  # type: ignore[method-assign]  # orders scan and uses
    use(store, [5])
    assert contents(store, range(6)) == {0, 1, 2, 4, 5}
    assert store.stats(NAMESPACE).evictions == 1
    recount(store)


def test_a_put_scans_before_its_transaction_where_few_victims_are_left(tmp_path: Path) -> None:
    """To run out of victims in a transaction would take another one."""
    store = LmdbStore(tmp_path / "s", maxsize=3000)
    use(store, range(3000))
    use(store, [3000])
    for begin in range(3001, 9000, 700):
        call, numbers = new_call(), range(begin, begin + 700)
        assert claim(store, call, numbers) == list(numbers)
        commits = store._opened.slots.commits
        store.put(call, [(key(number), value(number)) for number in numbers])
        assert store._opened.slots.commits == commits + 1
        store.release(call)
        assert contents(store, numbers) == set(numbers)
    recount(store)


def put(store: LmdbStore, *numbers: int) -> None:
    """Store entries whatever there is, with no claim before."""
    call = new_call()
    try:
        store.put(call, [(key(number), value(number)) for number in numbers], force=True)
    finally:
        store.release(call)


def test_who_is_interrupted_once_it_has_committed_leaves_the_order_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it took is gone: its slots, which have new entries by now, are victims like any other."""
    store = LmdbStore(tmp_path / "s", maxsize=3)
    for number in range(4):
        put(store, number)
    write = environment._write

    def commit_and_interrupt(*arguments: Any) -> Any:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(environment, "_write", commit_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            put(store, 4)
    store.read(keys([2, 3]))
    put(store, 5)
    assert contents(store, range(6)) == {2, 3, 5}
    recount(store)


class Interrupting(deque[Any]):
    """A queue whose next victim is taken, and then an interrupt comes."""

    def popleft(self) -> Any:
        super().popleft()
        raise KeyboardInterrupt


def test_who_is_interrupted_while_it_takes_a_victim_loses_none(table: Slots) -> None:
    taken = fill(table, 10)
    candidates = Candidates(table, DOMAIN)
    candidates.refill()
    candidates._found = candidates._found._replace(queue=Interrupting(candidates._found.queue))
    with pytest.raises(KeyboardInterrupt):
        candidates.pop()
    candidates._found = candidates._found._replace(queue=deque(candidates._found.queue))
    candidates.put_back()
    assert drain(candidates) == taken


def key_of(store: LmdbStore, slot: int) -> Key | None:
    found: Key | None = store._opened.lmdb.read(lambda transaction: transaction.get(pack_slot(slot)))
    return found


def test_a_scan_beside_a_transaction_that_is_undone_is_made_again(tmp_path: Path) -> None:
    """It has seen the ticks of entries that were never committed in the slots of those that are there still."""
    store = LmdbStore(tmp_path / "s", maxsize=3)
    use(store, range(3))
    upkeep, table = store._upkeep, store._opened.slots
    victims, others = upkeep.victims(NAMESPACE), Candidates(table, None)
    victims.refill()

    def body(writing: Writing) -> None:
        assert writing.make_room(2, 0, 1 << 40, victims.pop)
        writing.add_all([key(7), key(8)], [value(7), value(8)], table.tick(), 0, 0, size=0)
        others.refill()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        upkeep.commit(NAMESPACE, body)
    assert others.pop() is None
    for candidates in (others, victims):
        candidates.refill()
        assert [key_of(store, slot) for slot in drain(candidates)] == keys([0, 1, 2])
    recount(store)


def make_store(path: Path) -> LmdbStore:
    return LmdbStore(path)


def use_there(store: LmdbStore, numbers: list[int]) -> None:
    use(store, numbers)


def test_a_first_scan_meets_a_table_that_another_process_has_grown(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=3000)
    use(store, [0])
    with server(make_store, tmp_path / "s") as other:
        other.do(use_there, list(range(1, 3000)))
    use(store, [3000])
    assert contents(store, range(3001)) == set(range(1, 3001))
    recount(store)


def read_until(store: LmdbStore, numbers: list[int], end: Path) -> int:
    rounds = 0
    while not end.exists():
        for _ in range(1000):
            store.read(keys(numbers))
        rounds += 1
    return rounds


@pytest.mark.parametrize("maxsize", [1, 2, 7])
def test_writers_of_a_small_store_get_through_readers_that_never_pause(tmp_path: Path, maxsize: int) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=maxsize)
    use(store, range(maxsize))
    universe = list(range(60 + maxsize))
    with server(make_store, tmp_path / "s") as reader:
        reader.start(read_until, universe, tmp_path / "end")
        for number in range(maxsize, 60 + maxsize):
            use(store, [number])
            assert number in contents(store, [number])
        (tmp_path / "end").touch()
        reader.finish()
    assert len(contents(store, universe)) == maxsize
    recount(store)


def test_two_threads_share_one_queue_of_victims(table: Slots) -> None:
    """One refills, and finds nothing, while the other takes from what was there."""
    taken = fill(table, 1000)
    candidates = Candidates(table, DOMAIN)
    trouble: list[BaseException] = []
    end = threading.Event()

    def refill() -> None:
        try:
            while not end.is_set():
                candidates.refill()
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=refill)
    thread.start()
    try:
        for _ in range(200):
            table.fill(taken, table.tick(), 1, DOMAIN)
            drain(candidates)
            for slot in taken:
                table.free(slot)
            drain(candidates)
    finally:
        end.set()
        thread.join()
    assert not trouble


def test_lowering_a_limit_evicts_in_pieces(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, range(20_000))
    lowered = LmdbStore(tmp_path / "s", maxsize=10)
    most = most_evicted_at_once(lowered, lambda: use(lowered, [20_000]))
    assert most <= 1024
    assert contents(lowered, range(20_001)) == set(range(19_991, 20_001))
    recount(lowered)


def most_evicted_at_once(store: LmdbStore, action: Callable[[], object]) -> int:
    evictions = [store.stats(NAMESPACE).evictions]
    write = store._opened.lmdb.write

    def noted(*arguments: Any, **options: Any) -> Any:
        result: Any = write(*arguments, **options)
        evictions.append(store.stats(NAMESPACE).evictions)
        return result

    store._opened.lmdb.write = noted  # type: ignore[method-assign]  # looks after each transaction
    try:
        action()
    finally:
        del store._opened.lmdb.write  # the class's own again
    return max(after - before for before, after in pairwise(evictions))


def test_limits_of_one_function_evict_only_its_entries(tmp_path: Path) -> None:
    from batche.stores.lmdb.upkeep import Limits

    one = LmdbStore.of_function(new_place(tmp_path), "private", Limits(3))
    other = LmdbStore.of_function(new_place(tmp_path), "private", Limits(5))
    use(one, range(10))
    use(other, range(10), namespace=OTHER)
    use(one, [20, 21])
    assert contents(one, range(30)) == {9, 20, 21}
    assert contents(other, range(30), OTHER) == {5, 6, 7, 8, 9}
    assert (one.stats(NAMESPACE).evictions, other.stats(OTHER).evictions) == (9, 5)
    recount(one)
