"""What every store does, whatever it is made of: one suite for the mapping, the LMDB store and that of a place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from batche._types import MINE, NOTHING_IS, CacheInfo, Owner
from batche.stores.base import COUNTED, Store
from batche.stores.lmdb import LmdbStore
from batche.stores.lmdb.upkeep import Limits
from batche.stores.mapping import MappingStore
from tests.stores._driving import NAMESPACE, OTHER, claim, contents, key, keys, new_call, new_place, use, value

Make: TypeAlias = Callable[..., Store]


@pytest.fixture(params=["mapping", "lmdb", "place"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a store with at most ``maxsize`` entries."""

    def mapping(maxsize: int | None = None) -> Store:
        return MappingStore(maxsize=maxsize)

    def lmdb(maxsize: int | None = None) -> Store:
        return LmdbStore(tmp_path / "s", maxsize=maxsize)

    def place(maxsize: int | None = None) -> Store:
        return LmdbStore.of_function(new_place(tmp_path), "private", Limits(maxsize))

    made: dict[str, Make] = {"mapping": mapping, "lmdb": lmdb, "place": place}
    return made[request.param]


@pytest.fixture
def store(make: Make) -> Store:
    return make()


def test_it_is_a_store(store: Store) -> None:
    assert isinstance(store, Store)
    assert isinstance(store.encoded, bool)


# ---- entries ----


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert list(store.read(keys([1, 2]))) == [None, None]
    assert list(store.read([])) == []
    assert list(store.owners(keys([1]))) == [None]
    assert store.delete(keys([1])) == 0
    assert store.clear(NAMESPACE) == 0


def test_what_is_put_is_read_by_every_call_in_the_order_asked_for(store: Store) -> None:
    use(store, [1, 2, 3])
    found = store.read(keys([3, 9, 1, 3]))
    assert [entry and entry[0] for entry in found] == [value(3), None, value(1), value(3)]
    assert all(isinstance(entry, tuple) and entry[1] > 0 for entry in found if entry)


def test_a_batch_larger_than_one_step_is_stored_and_read_whole(store: Store) -> None:
    numbers = list(range(3000))
    assert use(store, numbers) == numbers
    assert contents(store, range(3010)) == set(numbers)


def test_without_a_claim_nothing_is_stored(store: Store) -> None:
    call = new_call()
    claim(store, call, [1])
    assert store.put(call, [(key(2), value(2))]).kept == set()
    assert contents(store, [1, 2]) == set()


def test_namespaces_do_not_meet(store: Store) -> None:
    use(store, [1])
    assert contents(store, [1], OTHER) == set()
    use(store, [1], namespace=OTHER)
    assert store.delete([key(1)]) == 1
    assert contents(store, [1], OTHER) == {1}


# ---- claims ----


def test_a_claim_is_won_once(store: Store) -> None:
    one, other = new_call(), new_call()
    assert list(store.claim(one, keys([1, 2]))) == [MINE, MINE]
    one.holds = True
    first, second = store.claim(other, keys([2, 3]))
    assert isinstance(first, Owner)
    assert (first.call, first.pid, first.alive) == (one.id, os.getpid(), True)
    assert second is MINE


def test_a_claim_of_a_key_with_an_entry_is_answered_by_the_entry(store: Store) -> None:
    use(store, [1])
    entry, mine = store.claim(new_call(), keys([1, 2]))
    assert isinstance(entry, tuple)
    assert entry[0] == value(1)
    assert mine is MINE


def test_a_limit_ends_the_answer_once_so_many_are_won(store: Store) -> None:
    one, other = new_call(), new_call()
    use(store, [1])
    claim(store, one, [2])
    answers = store.claim(other, keys([1, 2, 3, 4, 5]), 2)
    assert [answer is MINE for answer in answers] == [False, False, True, True]
    assert list(store.owners(keys([5]))) == [None]


def test_putting_ends_the_claims_and_takes_the_next(store: Store) -> None:
    call = new_call()
    claim(store, call, [1, 2])
    stored = store.put(call, [(key(1), value(1))], [key(2)], keys([3, 4]), 1)
    assert stored.kept == {key(1)}
    assert stored.too_large == set()
    assert stored.claims == [MINE]
    owners = store.owners(keys([1, 2, 3, 4]))
    assert [owner and owner.call for owner in owners] == [None, None, call.id, None]


def test_releasing_ends_every_claim_left(store: Store) -> None:
    call = new_call()
    claim(store, call, range(5))
    store.release(call)
    assert list(store.owners(keys(range(5)))) == [None] * 5
    assert claim(store, new_call(), range(5)) == list(range(5))


def test_the_claims_of_a_call_that_was_cancelled_are_those_of_a_dead_owner(store: Store) -> None:
    call = new_call()
    claim(store, call, [1])
    store.release(call, abandoned=True)
    (owner,) = store.owners(keys([1]))
    assert owner is not None
    assert not owner.alive
    assert claim(store, new_call(), [1]) == [1]
    assert store.stats(NAMESPACE).takeovers == 1


def test_an_earlier_answer_about_owners_is_as_good_as_a_new_one_while_nothing_changes(store: Store) -> None:
    one = new_call()
    claim(store, one, [1, 2])
    before = store.owners(keys([1, 2]))
    assert list(store.owners(keys([1, 2]), before)) == list(before)
    store.put(one, [(key(1), value(1))])
    after = store.owners(keys([1, 2]), before)
    assert [owner and owner.call for owner in after] == [None, one.id]
    store.release(one)
    assert list(store.owners(keys([1, 2]), after)) == [None, None]


@pytest.mark.parametrize("void", ["delete", "clear"])
def test_an_invalidation_voids_the_claims_in_flight(store: Store, void: str) -> None:
    late, next_one = new_call(), new_call()
    claim(store, late, [1])
    if void == "delete":
        store.delete(keys([1]))
    else:
        store.clear(NAMESPACE)
    assert claim(store, next_one, [1]) == [1]
    assert store.put(late, [(key(1), value(7))]).kept == set()
    (owner,) = store.owners(keys([1]))
    assert owner is not None
    assert owner.call == next_one.id
    assert store.put(next_one, [(key(1), value(1))]).kept == {key(1)}


def test_force_takes_a_claim_of_the_living_and_what_they_compute_is_not_stored(store: Store) -> None:
    late, next_one = new_call(), new_call()
    claim(store, late, [1, 2])
    assert list(store.claim(next_one, keys([1]), force=True)) == [MINE]
    assert store.put(late, [(key(1), value(7)), (key(2), value(2))]).kept == {key(2)}
    store.release(late)
    (owner,) = store.owners(keys([1]))
    assert owner is not None
    assert (owner.call, owner.alive) == (next_one.id, True)
    assert store.put(next_one, [(key(1), value(1))]).kept == {key(1)}


def test_force_takes_as_many_as_the_limit_says_and_no_entry(store: Store) -> None:
    one, other = new_call(), new_call()
    use(store, [1])
    claim(store, one, [2, 3, 4])
    answers = store.claim(other, keys([1, 2, 3, 4]), 2, force=True)
    assert [answer is MINE for answer in answers] == [False, True, True]
    owners = store.owners(keys([2, 3, 4]))
    assert [owner and owner.call for owner in owners] == [other.id, other.id, one.id]


def test_an_entry_that_is_not_newer_than_the_call_asks_for_is_claimed_and_replaced(store: Store) -> None:
    use(store, [1, 2])
    (entry,) = store.read(keys([1]))
    assert entry is not None
    call = new_call()
    call.newer_than = entry[1] - 1
    assert list(store.claim(call, keys([1]))) == [entry]
    call.newer_than = NOTHING_IS
    assert list(store.claim(call, keys([1]))) == [MINE]
    assert list(store.read(keys([1]))) == [entry]  # served until it is replaced
    assert store.put(call, [(key(1), value(7))]).kept == {key(1)}
    assert [found and found[0] for found in store.read(keys([1, 2]))] == [value(7), value(2)]
    assert store.stats(NAMESPACE).currsize == 2


def test_replacing_an_entry_evicts_no_other(make: Make) -> None:
    store = make(3)
    use(store, [1, 2, 3])
    call = new_call()
    call.newer_than = NOTHING_IS
    claim(store, call, [3, 1])
    store.put(call, [(key(3), value(7)), (key(1), value(8))])
    assert contents(store, range(5)) == {1, 2, 3}
    assert store.stats(NAMESPACE).evictions == 0
    use(store, [4])
    assert contents(store, range(5)) == {1, 3, 4}


# ---- limits ----


def test_the_least_recently_used_goes_first(make: Make) -> None:
    store = make(3)
    use(store, [1, 2, 3])
    store.read(keys([1]))
    store.read(keys([2]), use=False)
    use(store, [4])
    assert contents(store, range(6)) == {1, 3, 4}
    assert store.claim(new_call(), keys([3]))[0] is not MINE  # a use as well
    use(store, [5])
    assert contents(store, range(6)) == {3, 4, 5}
    assert store.stats(NAMESPACE).evictions == 2


def test_the_last_of_a_batch_is_the_most_recent(make: Make) -> None:
    store = make(3)
    use(store, [1, 2, 3])
    store.read(keys([3, 1, 2]))
    use(store, [4, 5])
    assert contents(store, range(6)) == {2, 4, 5}


def test_a_batch_larger_than_the_store_leaves_its_last(make: Make) -> None:
    store = make(3)
    use(store, range(10))
    assert contents(store, range(10)) == {7, 8, 9}


def test_a_store_of_no_entries_keeps_nothing_and_ends_the_claims(make: Make) -> None:
    store = make(0)
    assert use(store, [1, 2]) == [1, 2]
    assert contents(store, [1, 2]) == set()
    assert list(store.owners(keys([1, 2]))) == [None, None]


# ---- removal and counts ----


def test_deleting_tells_how_many_there_were(store: Store) -> None:
    use(store, [1, 2, 3])
    assert store.delete(keys([2, 3, 4])) == 2
    assert contents(store, range(5)) == {1}


def test_clearing_removes_one_namespace_and_zeroes_its_counts(store: Store) -> None:
    use(store, [1, 2])
    use(store, [1, 2])
    use(store, [1], namespace=OTHER)
    assert store.clear(NAMESPACE) == 2
    assert contents(store, [1, 2]) == set()
    assert contents(store, [1], OTHER) == {1}
    info = store.stats(NAMESPACE)
    assert (info.hits, info.misses, info.waits) == (0, 0, 0)
    assert store.stats(OTHER).misses == 1


def test_counts_add_up_under_their_names(store: Store) -> None:
    for _ in range(2):
        store.release(new_call(), counts={name: number for number, name in enumerate(COUNTED, 1)})
    use(store, [1], namespace=OTHER)
    info = store.stats(NAMESPACE)
    assert isinstance(info, CacheInfo)
    assert [getattr(info, name) for name in COUNTED] == [2 * number for number, _ in enumerate(COUNTED, 1)]
    assert store.stats(OTHER).misses == 1


def test_limits_and_sizes_are_told(make: Make) -> None:
    store = make(3)
    use(store, [1, 2, 2])
    info = store.stats(NAMESPACE)
    assert info[:4] == (1, 2, 3, 2)


def test_closing_twice_is_fine(store: Store) -> None:
    use(store, [1])
    store.close()
    store.close()
