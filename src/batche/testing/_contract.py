"""What every store does, whatever it is made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from batche._decorator import cache_batch_variable
from batche._types import MINE, CacheInfo, Call, Entry, Owner, Stored
from batche.stores.base import COUNTED, Store
from batche.testing._driving import (
    NAMESPACE,
    OTHER,
    THREADS,
    claim,
    contents,
    in_threads,
    key,
    keys,
    new_call,
    replace,
    shuffled,
    use,
    value,
)


class StoreContract:
    """Every promise of the [`Store`][batche.Store] protocol as a test. Subclass it and give it your store.

    pytest collects a subclass whose name begins with ``Test``; without it, call each method whose name begins with
    ``test_``, and `teardown_method` after it. There are also `LruStoreContract` for stores with limits and
    `ScannableStoreContract` for those that are `Scannable`; a subclass may have both bases.

    Example:
        >>> class TestMyStore(StoreContract):
        ...     def new_store(self) -> Store:
        ...         return MyStore()
    """

    def new_store(self) -> Store:
        """A store without entries that has room for 10,000. Called at most twice a test, which closes what it got."""
        raise NotImplementedError

    def setup_method(self) -> None:
        """Begin a test, as pytest asks. For a new object there is nothing to do."""
        self.teardown_method()

    def teardown_method(self) -> None:
        """Close what the test made, and let go of it: pytest keeps this object until the session ends."""
        for store in vars(self).pop("made", ()):
            store.close()

    def _keep(self, store: Store) -> Store:
        vars(self).setdefault("made", []).append(store)
        return store

    def _new(self) -> Store:
        return self._keep(self.new_store())

    # ---- entries ----

    def test_it_is_a_store(self) -> None:
        store = self._new()
        assert isinstance(store, Store)
        assert isinstance(store.encoded, bool)

    def test_an_empty_store_has_nothing(self) -> None:
        store = self._new()
        assert list(store.read(keys([1, 2]))) == [None, None]
        assert list(store.read([])) == []
        assert list(store.owners(keys([1]))) == [None]
        assert store.delete(keys([1])) == 0
        assert store.clear(NAMESPACE) == 0

    def test_what_is_put_is_read_by_every_call_in_the_order_asked_for(self) -> None:
        store = self._new()
        use(store, [1, 2, 3])
        found = store.read(keys([3, 9, 1, 3]))
        assert _values(found) == [value(3), None, value(1), value(3)]
        assert all(isinstance(entry, tuple) and entry[1] > 0 for entry in found if entry)

    def test_a_batch_larger_than_one_step_is_stored_and_read_whole(self) -> None:
        store = self._new()
        numbers = list(range(3000))
        assert use(store, numbers) == numbers
        assert contents(store, range(3010)) == set(numbers)

    def test_without_a_claim_nothing_is_stored(self) -> None:
        store, call = self._new(), new_call()
        claim(store, call, [1])
        assert store.put(call, [(key(2), value(2))]).kept == set()
        assert contents(store, [1, 2]) == set()

    def test_namespaces_do_not_meet(self) -> None:
        store = self._new()
        use(store, [1])
        assert contents(store, [1], OTHER) == set()
        use(store, [1], namespace=OTHER)
        assert store.delete([key(1)]) == 1
        assert contents(store, [1], OTHER) == {1}

    def test_an_entry_that_is_not_newer_than_the_call_asks_for_is_claimed_and_replaced(self) -> None:
        store, call = self._new(), new_call()
        use(store, [1, 2])
        (entry,) = store.read(keys([1]))
        assert entry is not None
        call.newer_than = entry[1] - 1
        assert list(store.claim(call, keys([1]))) == [entry]
        call.newer_than = entry[1]
        assert list(store.claim(call, keys([1]))) == [MINE]
        assert list(store.read(keys([1]))) == [entry]  # served until it is replaced
        assert store.put(call, [(key(1), value(7))]).kept == {key(1)}
        assert _values(store.read(keys([1, 2]))) == [value(7), value(2)]

    # ---- claims ----

    def test_a_claim_is_won_once(self) -> None:
        store, one, other = self._new(), new_call(), new_call()
        assert list(store.claim(one, keys([1, 2]))) == [MINE, MINE]
        one.holds = True
        first, second = store.claim(other, keys([2, 3]))
        assert isinstance(first, Owner)
        assert (first.call, first.pid, first.alive) == (one.id, os.getpid(), True)
        assert second is MINE

    def test_a_call_that_claims_its_own_wins_it_again(self) -> None:
        store, call = self._new(), new_call()
        claim(store, call, [1])
        assert list(store.claim(call, keys([1]))) == [MINE]

    def test_a_claim_of_a_key_with_an_entry_is_answered_by_the_entry(self) -> None:
        store = self._new()
        use(store, [1])
        entry, mine = store.claim(new_call(), keys([1, 2]))
        assert _values([entry]) == [value(1)]
        assert mine is MINE

    def test_a_limit_ends_the_answer_once_so_many_are_won(self) -> None:
        store, one, other = self._new(), new_call(), new_call()
        use(store, [1])
        claim(store, one, [2])
        answers = store.claim(other, keys([1, 2, 3, 4, 5]), 2)
        assert [answer is MINE for answer in answers] == [False, False, True, True]
        assert list(store.owners(keys([5]))) == [None]

    def test_putting_ends_the_claims_and_takes_the_next(self) -> None:
        store, call = self._new(), new_call()
        claim(store, call, [1, 2])
        stored = store.put(call, [(key(1), value(1))], [key(2)], keys([3, 4]), 1)
        assert isinstance(stored, Stored)
        assert stored.kept == {key(1)}
        assert stored.too_large == set()
        assert list(stored.claims) == [MINE]
        assert _calls_of(store, [1, 2, 3, 4]) == [None, None, call.id, None]

    def test_putting_by_force_replaces_entries_and_voids_their_claims_in_one_step(self) -> None:
        store, owner, other = self._new(), new_call(), new_call()
        use(store, [1])
        claim(store, owner, [2, 3])
        stored = store.put(other, [(key(number), b"put") for number in (1, 2, 4)], force=True)
        assert stored.kept == {key(1), key(2), key(4)}
        assert _values(store.read(keys([1, 2, 4]))) == [b"put"] * 3
        assert _calls_of(store, [1, 2, 3, 4]) == [None, None, owner.id, None]
        assert store.put(owner, [(key(2), value(2)), (key(3), value(3))]).kept == {key(3)}
        assert _values(store.read(keys([2, 3]))) == [b"put", value(3)]

    def test_an_heir_stores_under_the_claim_that_it_waited_for_and_ends_it(self) -> None:
        store, owner, heir, third = self._new(), new_call(), new_call(), new_call()
        claim(store, owner, [1, 2, 3, 5])
        claim(store, third, [4])
        heir.heir_of.update(dict.fromkeys(keys([1, 2, 4]), owner.id))
        store.delete(keys([2]))
        entries = [(key(number), b"heir") for number in (1, 2, 4, 5)]
        assert store.put(heir, entries).kept == {key(1)}
        assert _calls_of(store, [1, 2, 3, 4, 5]) == [None, None, owner.id, third.id, owner.id]
        assert store.put(owner, [(key(number), value(number)) for number in (1, 3)]).kept == {key(3)}
        assert _values(store.read(keys([1, 2, 3, 4]))) == [b"heir", None, value(3), None]

    def test_a_claim_taken_by_force_from_the_dead_is_a_takeover_and_from_the_living_none(self) -> None:
        store, dead, living = self._new(), new_call(), new_call()
        claim(store, dead, [1])
        claim(store, living, [2])
        store.release(dead, abandoned=True)
        assert list(store.claim(new_call(), keys([1, 2, 3]), force=True)) == [MINE] * 3
        assert store.stats(NAMESPACE).takeovers == 1

    def test_releasing_ends_every_claim_left(self) -> None:
        store, call = self._new(), new_call()
        claim(store, call, range(5))
        store.release(call)
        assert list(store.owners(keys(range(5)))) == [None] * 5
        assert claim(store, new_call(), range(5)) == list(range(5))
        store.release(call)  # once more is fine
        assert list(store.owners(keys([9]))) == [None]

    def test_the_claims_of_a_call_that_was_cancelled_are_those_of_a_dead_owner(self) -> None:
        store, call = self._new(), new_call()
        claim(store, call, [1])
        store.release(call, abandoned=True)
        (owner,) = store.owners(keys([1]))
        assert owner is not None
        assert not owner.alive
        assert claim(store, new_call(), [1]) == [1]
        assert store.stats(NAMESPACE).takeovers == 1

    def test_an_earlier_answer_about_owners_is_as_good_as_a_new_one_while_nothing_changes(self) -> None:
        store, one = self._new(), new_call()
        claim(store, one, [1, 2])
        before = store.owners(keys([1, 2]))
        assert list(store.owners(keys([1, 2]), before)) == list(before)
        store.put(one, [(key(1), value(1))])
        after = store.owners(keys([1, 2]), before)
        assert [owner and owner.call for owner in after] == [None, one.id]
        store.release(one)
        assert list(store.owners(keys([1, 2]), after)) == [None, None]

    def test_force_takes_a_claim_of_the_living_and_what_they_compute_is_not_stored(self) -> None:
        store, late, next_one = self._new(), new_call(), new_call()
        claim(store, late, [1, 2])
        assert list(store.claim(next_one, keys([1]), force=True)) == [MINE]
        assert store.put(late, [(key(1), value(7)), (key(2), value(2))]).kept == {key(2)}
        store.release(late)
        assert _calls_of(store, [1]) == [next_one.id]
        assert store.put(next_one, [(key(1), value(1))]).kept == {key(1)}

    def test_force_takes_as_many_as_the_limit_says_and_no_entry(self) -> None:
        store, one, other = self._new(), new_call(), new_call()
        use(store, [1])
        claim(store, one, [2, 3, 4])
        answers = store.claim(other, keys([1, 2, 3, 4]), 2, force=True)
        assert [answer is MINE for answer in answers] == [False, True, True]
        assert _calls_of(store, [2, 3, 4]) == [other.id, other.id, one.id]

    # ---- removal and counts ----

    def test_deleting_tells_how_many_there_were(self) -> None:
        store = self._new()
        use(store, [1, 2, 3])
        assert store.delete(keys([2, 3, 4])) == 2
        assert contents(store, range(5)) == {1}

    def test_clearing_removes_one_namespace_and_zeroes_its_counts(self) -> None:
        store = self._new()
        use(store, [1, 2])
        use(store, [1, 2])
        use(store, [1], namespace=OTHER)
        assert store.clear(NAMESPACE) == 2
        assert contents(store, [1, 2]) == set()
        assert contents(store, [1], OTHER) == {1}
        info = store.stats(NAMESPACE)
        assert (info.hits, info.misses, info.waits) == (0, 0, 0)
        assert store.stats(OTHER).misses == 1

    def test_deleting_voids_the_claims_in_flight(self) -> None:
        store, late = self._new(), new_call()
        claim(store, late, [1])
        store.delete(keys([1]))
        self._is_void(store, late)

    def test_clearing_voids_the_claims_in_flight(self) -> None:
        store, late = self._new(), new_call()
        claim(store, late, [1])
        store.clear(NAMESPACE)
        self._is_void(store, late)

    def _is_void(self, store: Store, late: Call) -> None:
        next_one = new_call()
        assert claim(store, next_one, [1]) == [1]
        assert store.put(late, [(key(1), value(7))]).kept == set()
        store.release(late)
        assert _calls_of(store, [1]) == [next_one.id]
        assert store.put(next_one, [(key(1), value(1))]).kept == {key(1)}

    def test_counts_add_up_under_their_names(self) -> None:
        store = self._new()
        for _ in range(2):
            store.release(new_call(), counts={name: number for number, name in enumerate(COUNTED, 1)})
        use(store, [1], namespace=OTHER)
        info = store.stats(NAMESPACE)
        assert isinstance(info, CacheInfo)
        assert [getattr(info, name) for name in COUNTED] == [2 * number for number, _ in enumerate(COUNTED, 1)]
        assert store.stats(OTHER).misses == 1

    def test_telling_changes_nothing(self) -> None:
        store = self._new()
        use(store, [1, 2, 2])
        info = store.stats(NAMESPACE)
        assert (info.hits, info.misses, info.currsize) == (1, 2, 2)
        assert store.stats(NAMESPACE) == info

    def test_closing_twice_is_fine(self) -> None:
        store = self._new()
        use(store, [1])
        store.close()
        store.close()

    # ---- races ----

    def test_of_many_threads_one_wins_each_claim(self) -> None:
        store = self._new()
        won = in_threads(THREADS, lambda index: claim(store, new_call(), shuffled(index, 300)))
        assert sorted(number for numbers in won for number in numbers) == list(range(300))

    def test_threads_compute_each_item_once_and_all_get_every_result(self) -> None:
        computed: list[int] = []
        make = cache_batch_variable("items", name="batche.testing", store=self._new(), codec="msgpack", batch_size=7)

        @make
        def double(items: list[int]) -> list[int]:
            computed.extend(items)
            return [2 * item for item in items]

        lists = [shuffled(index, 200) for index in range(THREADS)]
        answers = in_threads(THREADS, lambda index: double(lists[index]))
        assert answers == [[2 * item for item in items] for items in lists]
        assert sorted(computed) == list(range(200))

    def test_a_reader_beside_writers_always_meets_a_whole_entry(self) -> None:
        store = self._new()
        whole = [bytes([index]) * 3000 for index in range(THREADS)]
        replace(store, 1, whole[0])

        def write_or_read(index: int) -> set[Any]:
            if index % 2:
                return {found for _ in range(300) for found in _values(store.read(keys([1])))}
            for _ in range(60):
                replace(store, 1, whole[index])
            return set()

        assert set().union(*in_threads(THREADS, write_or_read)) <= set(whole)

    def test_a_removal_beside_a_put_leaves_nothing(self) -> None:
        store = self._new()
        for number in range(60):
            call = new_call()
            claim(store, call, [number])
            removed, stored = in_threads(2, partial(_remove_or_put, store, call, number))
            assert removed == stored
            assert contents(store, [number]) == set()
            store.release(call)

    def test_counts_of_many_threads_add_up(self) -> None:
        store = self._new()

        def count(_: int) -> None:
            for _ in range(200):
                store.release(new_call(), counts={"hits": 1, "waits": 2})

        in_threads(THREADS, count)
        info = store.stats(NAMESPACE)
        assert (info.hits, info.waits) == (200 * THREADS, 400 * THREADS)


def _values(entries: Sequence[Any]) -> list[Any]:
    """The results of entries; `None` where there is none."""
    found: list[Entry | None] = list(entries)
    return [None if entry is None else entry[0] for entry in found]


def _calls_of(store: Store, numbers: Sequence[int]) -> list[Any]:
    """The ids of the living calls that hold the claims of ``numbers``."""
    return [owner.call if owner is not None and owner.alive else None for owner in store.owners(keys(numbers))]


def _remove_or_put(store: Store, call: Call, number: int, index: int) -> int:
    return store.delete([key(number)]) if index == 0 else len(store.put(call, [(key(number), value(number))]).kept)
