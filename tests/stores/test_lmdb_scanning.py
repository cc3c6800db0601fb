"""Keys by recency and entries taken out, where others write and use at the very moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batche.stores.lmdb import LmdbStore
from batche.stores.lmdb.eviction import Candidates
from batche.testing._driving import replace
from tests.stores._driving import NAMESPACE, OTHER, contents, key, keys, recount, use, value


def after_each_scan(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """Have something happen between the scan of the slots and what is made of it."""
    settled = Candidates.settled

    def scan(self: Candidates) -> Iterator[int]:
        found = list(settled(self))
        happen()
        return iter(found)

    monkeypatch.setattr(Candidates, "settled", scan)


def test_keys_whose_slots_are_anothers_by_the_time_they_are_read_come_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path)
    use(store, range(10))

    def swap() -> None:
        for number in (3, 4, 5):  # each takes the slot of the one before
            replace(store, number, value(9))

    after_each_scan(monkeypatch, swap)
    found = list(store.keys(NAMESPACE))
    assert sorted(found) == keys(range(10))
    assert found[:3] == keys([0, 1, 2])


def test_what_was_stored_since_the_scan_comes_last_and_what_was_removed_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path)
    use(store, range(5))

    def change() -> None:
        use(store, [9])
        store.delete(keys([2]))

    after_each_scan(monkeypatch, change)
    assert list(store.keys(NAMESPACE)) == keys([0, 1, 3, 4, 9])


def test_taking_leaves_a_store_whose_counts_and_slots_agree(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    use(store, range(200))
    store.take(keys(range(0, 50, 2)))
    for _ in range(30):
        store.take_oldest(NAMESPACE)
    use(store, range(200, 240))
    assert sum(recount(store).values()) == store.stats(NAMESPACE).currsize == 200 - 25 - 30 + 40


def test_the_oldest_of_a_few_among_many_of_another_namespace(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    use(store, [1], namespace=OTHER)
    use(store, range(3000))
    use(store, [3, 2], namespace=OTHER)
    taken = [store.take_oldest(OTHER) for _ in range(4)]
    assert [found and found[0] for found in taken] == [key(1, OTHER), key(3, OTHER), key(2, OTHER), None]
    assert store.stats(NAMESPACE).currsize == 3000


def test_what_a_clear_has_removed_is_not_taken(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    use(store, range(5))
    assert store.take_oldest(NAMESPACE) is not None  # which remembers candidates
    store.clear(NAMESPACE)
    assert store.take_oldest(NAMESPACE) is None
    assert list(store.take(keys([1]))) == [None]
    assert list(store.keys(NAMESPACE)) == []


def test_the_oldest_is_found_although_readers_use_every_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path)
    use(store, range(5))
    refill = Candidates.refill_all

    def refill_and_read(self: Candidates) -> None:
        refill(self)
        store.read(keys([4, 3, 2, 1, 0]))

    monkeypatch.setattr(Candidates, "refill_all", refill_and_read)
    taken = [store.take_oldest(NAMESPACE) for _ in range(6)]
    assert [found and found[0] for found in taken] == [*keys([4, 3, 2, 1, 0]), None]
    assert contents(store, range(5)) == set()
