"""The store that keeps nothing: every claim is granted, and only counts are kept."""

from __future__ import annotations

import pytest

from batche import StoreError, _calls
from batche._types import MINE
from batche.stores.base import Store
from batche.stores.null import NullStore

SPACE = b"function"
KEYS = [SPACE + name.encode().ljust(20, b".") for name in "abc"]


def test_it_is_a_store() -> None:
    assert isinstance(NullStore(), Store)


def test_nothing_that_is_put_is_kept() -> None:
    store, call = NullStore(), _calls.new_call(SPACE)
    stored = store.put(call, [(key, 1) for key in KEYS])
    assert (stored.kept, stored.too_large, stored.claims) == (frozenset(), frozenset(), [])
    assert list(store.read(KEYS)) == [None] * 3


def test_everybody_wins_every_claim_up_to_the_limit() -> None:
    store, first, second = NullStore(), _calls.new_call(SPACE), _calls.new_call(SPACE)
    assert store.claim(first, KEYS) == store.claim(second, KEYS) == [MINE] * 3
    assert store.claim(first, KEYS, 2) == [MINE] * 2
    assert store.put(first, [], [], KEYS, 1).claims == [MINE]
    assert list(store.owners(KEYS)) == [None] * 3


def test_calls_are_counted_until_cleared() -> None:
    store = NullStore()
    store.release(_calls.new_call(SPACE), counts={"misses": 3, "hits": 1})
    info = store.stats(SPACE)
    assert (info.misses, info.hits, info.errors, info.currsize, info.maxsize) == (3, 1, 0, 0, 0)
    assert store.clear(SPACE) == 0
    assert store.stats(SPACE).misses == 0


def test_there_is_nothing_to_delete_or_close() -> None:
    store = NullStore()
    assert store.delete(KEYS) == 0
    store.close()
    store.close()


def test_in_place_of_a_broken_store_each_call_is_an_error() -> None:
    store = NullStore(StoreError("/data", "is full"))
    for _ in range(2):
        store.release(_calls.new_call(SPACE), counts={"misses": 1})
    assert store.stats(SPACE).errors == 2


@pytest.mark.parametrize("removal", [lambda store: store.delete(KEYS), lambda store: store.clear(SPACE)])
def test_in_place_of_a_broken_store_a_removal_cannot_be_written(removal: object) -> None:
    trouble = StoreError("/data", "is full")
    with pytest.raises(StoreError, match="/data: is full") as caught:
        removal(NullStore(trouble))  # type: ignore[operator]  # one of the two above
    assert caught.value.__cause__ is trouble
