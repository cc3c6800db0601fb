"""What a store with a limit by count does."""

from __future__ import annotations

from batche._types import MINE
from batche.stores.base import Store
from batche.testing._contract import StoreContract
from batche.testing._driving import (
    NAMESPACE,
    THREADS,
    claim,
    contents,
    in_threads,
    key,
    keys,
    new_call,
    replacing_call,
    shuffled,
    use,
    value,
)


class LruStoreContract(StoreContract):
    """The same for a store with a limit by count: what goes is always the least recently used."""

    def new_store(self, maxsize: int | None = None) -> Store:
        """A store with at most ``maxsize`` entries of all namespaces together."""
        raise NotImplementedError

    def _of_size(self, maxsize: int) -> Store:
        return self._keep(self.new_store(maxsize))

    def test_the_least_recently_used_goes_first(self) -> None:
        store = self._of_size(3)
        use(store, [1, 2, 3])
        store.read(keys([1]))
        store.read(keys([2]), use=False)
        use(store, [4])
        assert contents(store, range(6)) == {1, 3, 4}
        assert store.claim(new_call(), keys([3]))[0] is not MINE  # a use as well
        use(store, [5])
        assert contents(store, range(6)) == {3, 4, 5}
        assert store.stats(NAMESPACE).evictions == 2

    def test_the_last_of_a_batch_is_the_most_recent(self) -> None:
        store = self._of_size(3)
        use(store, [1, 2, 3])
        store.read(keys([3, 1, 2]))
        use(store, [4, 5])
        assert contents(store, range(6)) == {2, 4, 5}

    def test_a_batch_larger_than_the_store_leaves_its_last(self) -> None:
        store = self._of_size(3)
        use(store, range(10))
        assert contents(store, range(10)) == {7, 8, 9}

    def test_replacing_an_entry_evicts_no_other(self) -> None:
        store, call = self._of_size(3), replacing_call()
        use(store, [1, 2, 3])
        claim(store, call, [3, 1])
        store.put(call, [(key(3), value(7)), (key(1), value(8))])
        assert contents(store, range(5)) == {1, 2, 3}
        assert store.stats(NAMESPACE).evictions == 0
        use(store, [4])
        assert contents(store, range(5)) == {1, 3, 4}

    def test_a_store_of_no_entries_keeps_nothing_and_ends_the_claims(self) -> None:
        store = self._of_size(0)
        assert use(store, [1, 2]) == [1, 2]
        assert contents(store, [1, 2]) == set()
        assert list(store.owners(keys([1, 2]))) == [None, None]

    def test_the_limit_is_told_and_kept_by_many_threads(self) -> None:
        store = self._of_size(20)
        in_threads(THREADS, lambda index: [use(store, shuffled(index, 60)[:5]) for index in range(index, 50)])
        info = store.stats(NAMESPACE)
        assert (info.maxsize, info.currsize) == (20, 20)
        assert len(contents(store, range(60))) == 20
