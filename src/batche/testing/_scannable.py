"""What a store does that can tell its keys by recency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batche._types import Entry
from batche.stores.base import Scannable, Store
from batche.testing._contract import StoreContract
from batche.testing._driving import (
    NAMESPACE,
    OTHER,
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

_THREADS: Final = 4


def _both(store: Store) -> Scannable:
    """The same object, as what else it is."""
    assert isinstance(store, Scannable)
    return store


class ScannableStoreContract(StoreContract):
    """Every promise of [`Scannable`][batche.stores.base.Scannable] as a test, beside those of the store.

    For a store whose least recently used entry comes first. One whose order is another sets ``by_recency`` to `False`.
    """

    by_recency: bool = True

    def test_keys_come_in_the_order_of_their_last_use(self) -> None:
        store = self._new()
        use(store, range(5))
        use(store, [1], namespace=OTHER)
        store.read(keys([3, 0]))
        store.read(keys([1]), use=False)
        found = list(_both(store).keys(NAMESPACE))
        assert sorted(found) == keys(range(5))
        if self.by_recency:
            assert found == keys([1, 2, 4, 3, 0])
        assert list(_both(store).keys(OTHER)) == keys([1], OTHER)

    def test_many_keys_come_once_each(self) -> None:
        store = self._new()
        use(store, range(3000))
        found = list(_both(store).keys(NAMESPACE))
        assert sorted(found) == keys(range(3000))
        if self.by_recency:
            assert found == keys(range(3000))

    def test_taking_removes_what_it_returns_and_voids_claims(self) -> None:
        store, late = self._new(), new_call()
        use(store, [1, 2, 3])
        claim(store, late, [4])
        assert [entry and entry[0] for entry in _both(store).take(keys([2, 9, 4, 1]))] == [
            value(2),
            None,
            None,
            value(1),
        ]
        assert contents(store, range(5)) == {3}
        assert store.put(late, [(key(4), value(4))]).kept == set()

    def test_the_oldest_is_taken_first_and_only_of_its_namespace(self) -> None:
        store = self._new()
        use(store, [7], namespace=OTHER)
        use(store, [1, 2, 3])
        store.read(keys([1]))
        taken = [_both(store).take_oldest(NAMESPACE) for _ in range(4)]
        assert sorted(entry[0] for entry in taken[:3] if entry) == keys([1, 2, 3])
        assert taken[3] is None
        if self.by_recency:
            assert [entry and (entry[0], entry[1][0]) for entry in taken[:3]] == [(key(n), value(n)) for n in (2, 3, 1)]
        assert contents(store, [7], OTHER) == {7}

    def test_what_is_used_between_two_takings_is_taken_last(self) -> None:
        store = self._new()
        use(store, range(6))
        taken = []
        for used in ([1], [4], [], [], [], []):
            oldest = _both(store).take_oldest(NAMESPACE)
            taken.append(oldest and oldest[0])
            store.read(keys(used))
        assert set(taken) == set(keys(range(6)))
        if self.by_recency:
            assert taken == keys([0, 2, 3, 5, 1, 4])

    # ---- races ----

    def test_each_entry_goes_to_one_taker(self) -> None:
        store = self._new()
        use(store, range(300))

        def take(index: int) -> list[int]:
            return [n for n in shuffled(index, 300) if _both(store).take(keys([n]))[0] is not None]

        assert sorted(number for taken in in_threads(_THREADS, take) for number in taken) == list(range(300))

    def test_each_oldest_entry_goes_to_one_taker(self) -> None:
        store = self._new()
        use(store, range(200))

        def drain(_: int) -> list[tuple[bytes, Entry]]:
            return list(iter(lambda: _both(store).take_oldest(NAMESPACE), None))

        taken = [name for drained in in_threads(_THREADS, drain) for name, _ in drained]
        assert sorted(taken) == keys(range(200))

    def test_a_key_that_stays_comes_once_while_all_are_replaced_and_others_come_and_go(self) -> None:
        store = self._new()
        use(store, range(100))

        def scan_or_write(index: int) -> Sequence[list[bytes]]:
            if index == 0:
                return [list(_both(store).keys(NAMESPACE)) for _ in range(30)]
            for round_ in range(150):
                replace(store, (7 * index + round_) % 100, value(round_))
                use(store, [1000 + index])
                store.delete(keys([1000 + index]))
            return []

        for found in in_threads(_THREADS, scan_or_write)[0]:
            assert len(set(found)) == len(found)
            assert set(found) >= set(keys(range(100)))
