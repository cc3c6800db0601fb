"""The same answer: a cached function returns what the function returns, whatever is found and whatever is computed."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batche import ResultLengthError, SignatureError, cache_batch_variable
from batche._ownership import is_borrowed
from batche.stores.mapping import MappingStore
from tests._equality import same


class Pair(NamedTuple):
    left: int
    right: str


class Counting:
    """A batch function that keeps what it was called with."""

    def __init__(self, result: Callable[[list[Any]], Any]) -> None:
        self.calls: list[list[Any]] = []
        self.result = result

    def __call__(self, items: list[Any]) -> Any:
        self.calls.append(items)
        return self.result(items)


STORES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "runtime": lambda _: {},
    "mapping": lambda _: {"store": MappingStore()},
    "path": lambda path: {"store": path, "name": "answers"},
    "off": lambda _: {"store": "off"},
}
places = itertools.count()


@pytest.fixture(params=STORES)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return STORES[request.param](tmp_path / str(next(places)))


@pytest.fixture(params=[name for name in STORES if name != "off"])
def keeping(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The options of a store that keeps entries."""
    return STORES[request.param](tmp_path / str(next(places)))


def cached(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    return cache_batch_variable("items", **options)(function)


# ---- what the function is given ----


def test_the_function_is_given_the_missing_items_in_first_seen_order(keeping: dict[str, Any]) -> None:
    function = Counting(lambda items: [item * 10 for item in items])
    embed = cached(function, keeping)
    assert embed([3, 1, 3, 2, 1]) == [30, 10, 30, 20, 10]
    assert embed([5, 2, 4, 5, 3]) == [50, 20, 40, 50, 30]
    assert function.calls == [[3, 1, 2], [5, 4]]


def test_however_many_are_missing_the_function_is_called_once_in_order(keeping: dict[str, Any]) -> None:
    function = Counting(lambda items: items)
    many = cached(function, keeping)
    assert many([7, 4999]) == [7, 4999]
    assert many(list(range(5000))) == list(range(5000))
    missing = [item for item in range(5000) if item not in (7, 4999)]
    assert function.calls == [[7, 4999], missing]


def test_the_function_may_do_to_its_list_what_it_likes(options: dict[str, Any]) -> None:
    def consuming(items: list[int]) -> list[int]:
        return [items.pop(0) + 1 for _ in range(len(items))]

    embed, batch = cached(consuming, options), [1, 2, 2]
    assert embed(batch) == [2, 3, 3]
    assert batch == [1, 2, 2]


def test_a_caller_that_changes_its_list_meanwhile_changes_no_answer(options: dict[str, Any]) -> None:
    batch = [1, 2]

    def changing(items: list[int]) -> list[int]:
        batch[:] = [7, 8, 9]
        return [item + 1 for item in items]

    assert cached(changing, options)(batch) == [2, 3]


@pytest.mark.parametrize("batch", [[], (), iter(()), np.array([]), collections.deque()])
def test_an_empty_batch_is_an_empty_list_without_a_call(batch: Any, options: dict[str, Any]) -> None:
    function = Counting(lambda items: items)
    assert cached(function, options)(batch) == []
    assert function.calls == []


@pytest.mark.parametrize("batch", [(1, 2), range(1, 3), iter([1, 2]), collections.deque([1, 2]), {0: 1, 1: 2}.values()])
def test_any_ordered_iterable_is_a_batch(batch: Any) -> None:
    assert cached(lambda items: [item + 1 for item in items], {})(batch) == [2, 3]


@pytest.mark.parametrize(
    "batch", ["text", b"bytes", bytearray(b"b"), memoryview(b"m"), {"a": 1}, {"a"}, frozenset("a"), {"a": 1}.keys(), 5]
)
def test_what_is_most_likely_one_item_is_refused_with_the_remedy(batch: Any, options: dict[str, Any]) -> None:
    function = Counting(lambda items: items)
    with pytest.raises(SignatureError, match=r"f\(\[x\]\)"):
        cached(function, options)(batch)
    assert function.calls == []


def test_none_goes_to_a_function_that_allows_it_uncached(options: dict[str, Any]) -> None:
    def embed(items: list[int] | None = None) -> Any:
        return "nothing" if items is None else items

    function = cached(embed, options)
    assert (function(), function(None), function(items=None)) == ("nothing", "nothing", "nothing")
    assert function([1]) == [1]
    assert function.cache_info().misses == 1


def test_none_is_refused_where_the_signature_does_not_allow_it(options: dict[str, Any]) -> None:
    with pytest.raises(SignatureError, match="items must be a valid argument of the batch function"):
        cached(lambda items: items, options)(None)


# ---- what the function returns ----


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda items: None, "None"),
        (lambda items: items[:1], "1 result"),
        (lambda items: [*items, 9], "3 results"),
        (lambda items: [], "0 results"),
        (lambda items: {item: item for item in items}, "a dict"),
        (collections.OrderedDict.fromkeys, "an OrderedDict"),
        (set, "a set"),
        (lambda items: "ab", "a str"),
        (lambda items: b"ab", "a bytes"),
        (lambda items: (item for item in items), "a generator"),
        (lambda items: map(str, items), "a map"),
        (lambda items: 2, "an int"),
        (lambda items: np.array(2), "a 0-dimensional ndarray"),
        (lambda items: np.zeros((3, 2)), "3 results"),
    ],
)
def test_a_result_that_is_not_one_for_each_item_is_refused(
    result: Callable[[list[Any]], Any], got: str, options: dict[str, Any]
) -> None:
    embed = cached(Counting(result), options)
    for _ in range(2):  # nothing of it was kept
        with pytest.raises(ResultLengthError, match="a list of predictions of the same length as the batch") as caught:
            embed(["a", "b", "a"])
        assert (caught.value.expected, caught.value.got) == (2, got)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda items: (10, 20), [10, 20]),
        (lambda items: range(2), [0, 1]),
        (lambda items: collections.deque("xy"), ["x", "y"]),
        (lambda items: {1: "x", 2: "y"}.values(), ["x", "y"]),
    ],
)
def test_other_ordered_collections_come_back_as_a_list(
    result: Callable[[list[Any]], Any], expected: list[Any], options: dict[str, Any]
) -> None:
    embed = cached(result, options)
    for _ in range(2):
        answer = embed(["a", "b"])
        assert type(answer) is list
        assert answer == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "complex128", "bool", "datetime64[s]", "U3"])
def test_an_array_comes_back_as_its_rows(dtype: str, options: dict[str, Any]) -> None:
    def embed(items: list[int]) -> Any:
        return np.arange(12).reshape(4, 3)[items].astype(dtype)

    function = cached(embed, options)
    for batch in ([2, 0, 2], [0, 1, 2, 3]):
        answer = function(batch)
        assert type(answer) is list
        stacked = np.stack(answer)
        assert stacked.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(stacked, embed(batch))


def test_rows_of_a_vector_are_its_scalars(options: dict[str, Any]) -> None:
    function = cached(lambda items: np.array(items, dtype=np.float32), options)
    for _ in range(2):
        answer = function([1, 2, 1])
        assert [type(value) for value in answer] == [np.float32] * 3
        assert answer == [1, 2, 1]


def test_none_is_a_result_as_any_other(keeping: dict[str, Any]) -> None:
    function = Counting(lambda items: [None if item % 2 else item for item in items])
    embed = cached(function, keeping)
    for _ in range(2):
        assert embed([1, 2, 3, 1]) == [None, 2, None, None]
    assert function.calls == [[1, 2, 3]]
    assert embed.cache_contains([1, 4]) == [True, False]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
plain = st.recursive(
    scalars | st.decimals(allow_nan=False) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
rows = st.lists(st.floats(width=32), min_size=3, max_size=3).map(lambda row: np.array(row, dtype=np.float32))
results = plain | rows | st.builds(Pair, st.integers(), st.text(max_size=5)) | st.sets(st.integers(), max_size=3)


@pytest.mark.parametrize("place", ["runtime", "mapping"])
@given(st.lists(results, min_size=1, max_size=8), st.lists(st.lists(st.integers(0, 7), max_size=12), max_size=6))
def test_any_batches_give_what_the_function_gives(place: str, table: list[Any], batches: list[list[int]]) -> None:
    def embed(items: list[int]) -> list[Any]:
        return [table[item % len(table)] for item in items]

    function = cached(embed, STORES[place](Path()))
    for batch in batches:
        assert same(function(batch), embed(batch))


# ---- each position its own object ----


def change(value: Any) -> None:
    if isinstance(value, np.ndarray):
        value[...] = 99
    elif isinstance(value, dict):
        value["changed"] = True
    elif isinstance(value, set):
        value.add(99)
    else:
        value.append(99)


READ_ONLY = np.arange(3.0)
READ_ONLY.flags.writeable = False
SHARED: dict[str, Callable[[list[int]], Any]] = {
    "new lists": lambda items: [[item] for item in items],
    "one list": lambda items: [[0]] * len(items),
    "one dict": lambda items: [{"a": 1}] * len(items),
    "one set": lambda items: [{1}] * len(items),
    "one array": lambda items: [np.zeros(3)] * len(items),
    "one read-only array": lambda items: [READ_ONLY] * len(items),
    "rows": lambda items: np.array([[item, item] for item in items]),
    "broadcast rows": lambda items: np.broadcast_to(np.arange(3), (len(items), 3)),
    "views of one row": lambda items: [row for row in [np.arange(3)] for _ in items],
    "new views of one row": lambda items: [row[:] for row in [np.arange(3)] for _ in items],
    "windows": lambda items: np.lib.stride_tricks.sliding_window_view(np.arange(len(items) + 2), 3),
}


@pytest.mark.parametrize("result", SHARED.values(), ids=SHARED)
def test_each_position_is_an_object_of_its_own_that_can_be_changed(
    result: Callable[[list[int]], Any], options: dict[str, Any]
) -> None:
    function = cached(result, options)
    for batch in ([1, 2, 1], [1, 2, 3, 4, 3]):  # misses and duplicates, then hits too
        for position in range(len(batch)):
            answer = function(batch)
            before = [repr(value) for value in answer]
            change(answer[position])
            after = [repr(value) for value in answer]
            assert [one != other for one, other in zip(before, after, strict=True)] == [
                here == position for here in range(len(batch))
            ]


@pytest.mark.parametrize("result", SHARED.values(), ids=SHARED)
def test_a_caller_that_changes_a_result_does_not_change_the_cache(
    result: Callable[[list[int]], Any], keeping: dict[str, Any]
) -> None:
    function = cached(result, keeping)
    first = function([1, 2])
    expected = [repr(value) for value in first]
    for answer in (first, function([1, 2])):
        for value in answer:
            change(value)
    assert [repr(value) for value in function([1, 2])] == expected


def test_a_view_is_borrowed_and_what_has_its_memory_to_itself_is_not() -> None:
    array = np.arange(6).reshape(2, 3).copy()
    assert [is_borrowed(value) for value in (array, array[0], READ_ONLY, [array[0]], 1)] == [
        False,
        True,
        True,
        False,
        False,
    ]


# ---- what cannot be stored ----


def test_what_cannot_come_back_the_same_is_returned_counted_and_told_once(
    keeping: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    locks = {number: threading.Lock() for number in range(4)}
    function = Counting(lambda items: [locks[item] if item % 2 else item for item in items])
    embed = cached(function, keeping)
    for _ in range(2):
        assert embed([0, 1, 2, 3, 1]) == [0, locks[1], 2, locks[3], locks[1]]
    assert function.calls == [[0, 1, 2, 3], [1, 3]]
    assert embed.cache_info().rejected == 4
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "batche")
    assert "lock" in record.getMessage()
    assert "return plain data" in record.getMessage()


def test_off_stores_nothing_and_rejects_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lock = threading.Lock()
    function = Counting(lambda items: [lock for _ in items])
    embed = cached(function, {"store": "off"})
    assert embed([1, 1]) == embed([1, 1]) == [lock, lock]
    info = embed.cache_info()
    assert (info.misses, info.hits, info.rejected, info.currsize) == (2, 2, 0, 0)
    assert (function.calls, caplog.records) == ([[1], [1]], [])


def test_a_codec_that_raises_anything_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Latin:
        name = "latin"

        def encode(self, value: str) -> bytes:
            return value.encode("latin-1")

        def decode(self, data: bytes) -> str:
            return {b"B": "B"}[data]

    embed = cached(lambda items: [item.upper() for item in items], {"codec": Latin()})
    for _ in range(2):
        assert embed(["b", "€", "c", "ł"]) == ["B", "€", "C", "Ł"]
    info = embed.cache_info()
    assert (info.rejected, info.errors, info.hits, info.misses) == (4, 1, 1, 7)
    assert len(caplog.records) == 2  # one for what is not encoded, one for what is not decoded


def test_mappings_of_other_kinds_are_refused_too() -> None:
    class Table(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            return 1

        def __iter__(self) -> Iterator[str]:
            return iter("ab")

        def __len__(self) -> int:
            return 2

    with pytest.raises(SignatureError, match="a Table"):
        cached(lambda items: items, {})(Table())
    with pytest.raises(ResultLengthError, match="a Table"):
        cached(lambda items: Table(), {})([1, 2])


@pytest.mark.parametrize("item", [Decimal("1.0"), date(2026, 1, 1), (1, "a"), frozenset([1]), Pair(1, "a"), None])
def test_items_of_many_types_are_cached(item: Any) -> None:
    function = Counting(lambda items: [str(item) for item in items])
    embed = cached(function, {})
    assert embed([item, item]) == embed([item, item]) == [str(item)] * 2
    assert function.calls == [[item]]


def test_items_that_are_equal_but_not_the_same_are_told_apart() -> None:
    function = Counting(lambda items: [repr(item) for item in items])
    embed = cached(function, {})
    batch = [1, 1.0, True, "1", b"1", (1,), [1], 0.0, -0.0]
    assert embed(batch) == [repr(item) for item in batch]
    assert len(function.calls[0]) == len(batch)
