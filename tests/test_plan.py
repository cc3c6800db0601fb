"""Splitting a batch into distinct items, and putting results back to their positions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batche._plan import merge, split


def keys_of(items: list[int]) -> list[bytes]:
    return [b"%28d" % item for item in items]


batches = st.lists(st.integers(0, 9), max_size=40)


def test_an_empty_batch_has_no_keys() -> None:
    plan = split([], [])
    assert (plan.first, plan.by_use, plan.has_duplicates, merge(plan, {})) == ({}, [], False, [])


def test_distinct_items_keep_their_order() -> None:
    plan = split("cab", [b"c", b"a", b"b"])
    assert plan.first == {b"c": 0, b"a": 1, b"b": 2}
    assert plan.by_use == [b"c", b"a", b"b"]
    assert not plan.has_duplicates


def test_of_duplicates_the_first_is_computed_and_the_last_is_the_use() -> None:
    plan = split("abca", [b"a", b"b", b"c", b"a"])
    assert list(plan.first) == [b"a", b"b", b"c"]
    assert plan.by_use == [b"b", b"c", b"a"]
    assert plan.has_duplicates


def test_the_item_of_a_key_is_the_one_seen_first() -> None:
    plan = split(["first", "second"], [b"k", b"k"])
    assert plan.items_of([b"k"]) == ["first"]


def test_items_come_in_a_new_list() -> None:
    items = ["a", "b"]
    plan = split(items, [b"a", b"b"])
    plan.items_of([b"a", b"b"]).clear()
    assert items == ["a", "b"]


@given(batches)
def test_keys_are_distinct_and_in_first_seen_order(items: list[int]) -> None:
    plan = split(items, keys_of(items))
    assert plan.items_of(list(plan.first)) == list(dict.fromkeys(items))


@given(batches)
def test_the_order_of_use_is_the_order_of_last_positions(items: list[int]) -> None:
    keys = keys_of(items)
    last = {key: position for position, key in enumerate(keys)}
    assert split(items, keys).by_use == sorted(last, key=last.__getitem__)


@given(batches)
def test_merging_gives_each_position_the_result_of_its_item(items: list[int]) -> None:
    plan = split(items, keys_of(items))
    computed = {key: -item for key, item in zip(plan.first, plan.items_of(list(plan.first)), strict=True)}
    assert merge(plan, computed) == [-item for item in items]


@given(batches, st.data())
def test_any_set_of_keys_can_be_put_in_first_seen_order(items: list[int], data: st.DataObject) -> None:
    plan = split(items, keys_of(items))
    chosen = data.draw(st.sets(st.sampled_from(plan.by_use))) if items else set()
    assert plan.in_order(chosen) == [key for key in plan.first if key in chosen]


@given(batches)
def test_there_are_duplicates_exactly_when_a_key_is_there_twice(items: list[int]) -> None:
    assert split(items, keys_of(items)).has_duplicates == (len(set(items)) < len(items))
