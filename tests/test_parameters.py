"""What each parameter of the decorator does, and the attributes that write: over LMDB and over a mapping."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional, TypedDict

import numpy as np
import pytest

from batche import (
    AnnotationError,
    BatcheException,
    BatchError,
    Failed,
    ResultLengthError,
    SignatureError,
    StoreError,
    cache_batch_variable,
)
from batche.stores.mapping import MappingStore

HOUR = 3600 * 10**9


@pytest.fixture(params=["lmdb", "mapping"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What makes a function of a test have entries of its own."""
    if request.param == "mapping":
        return {"store": MappingStore()}
    return {"store": tmp_path / "place", "name": "f"}


class Clock:
    """The wall clock, put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + self._ahead)

    def forward(self, nanoseconds: int) -> None:
        self._ahead += nanoseconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Made(NamedTuple):
    """A cached function, and each batch that it computed."""

    function: Any
    parts: list[list[Any]]


def made(where: dict[str, Any], compute: Callable[[list[Any]], Any] | None = None, **options: Any) -> Made:
    parts: list[list[Any]] = []

    def f(items: list[Any]) -> Any:
        parts.append(items)
        return compute(items) if compute else [(item, len(parts)) for item in items]

    return Made(cache_batch_variable("items", **where, **options)(f), parts)


# ---- ttl ----


def test_an_entry_expires_after_its_time_to_live_which_a_hit_does_not_prolong(
    where: dict[str, Any], clock: Clock
) -> None:
    f, parts = made(where, ttl=7200)
    assert f([1, 2]) == [(1, 1), (2, 1)]
    clock.forward(HOUR)
    assert f([1, 2, 3]) == [(1, 1), (2, 1), (3, 2)]
    clock.forward(HOUR)
    assert f.cache_contains([1, 2, 3]) == [False, False, True]
    assert f([1, 3]) == [(1, 3), (3, 2)]
    assert parts == [[1, 2], [3], [1]]
    info = f.cache_info()
    assert (info.hits, info.misses, info.expirations, info.currsize) == (3, 4, 1, 3)


def test_the_same_entries_live_as_long_as_each_reader_says(tmp_path: Path, clock: Clock) -> None:
    where = {"store": tmp_path / "place", "name": "f", "version": "1"}
    short, long = made(where, ttl=60), made(where)
    assert short.function([1]) == [(1, 1)]
    clock.forward(HOUR)
    assert long.function([1]) == [(1, 1)]
    assert short.function([1]) == [(1, 2)]
    assert long.function([1]) == [(1, 2)]


def test_an_expired_entry_stays_out_of_sight_while_the_function_fails(where: dict[str, Any], clock: Clock) -> None:
    def fails(items: list[Any]) -> Any:
        if len(parts) > 1:
            raise OSError("down")
        return items

    f, parts = made(where, fails, ttl=60)
    f([1])
    clock.forward(HOUR)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            f([1])
    assert f.cache_contains([1]) == [False]


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), True, "60"])
def test_a_time_to_live_is_more_than_nothing(ttl: Any) -> None:
    with pytest.raises(ValueError, match=r"ttl=.*expected seconds, more than 0, or None"):
        cache_batch_variable("items", ttl=ttl)


# ---- batch_size ----


def test_the_function_gets_at_most_batch_size_items_at_a_time(where: dict[str, Any]) -> None:
    f, parts = made(where, batch_size=3)
    f([5])
    assert [item for item, _ in f([*range(8), 2])] == [*range(8), 2]
    assert parts == [[5], [0, 1, 2], [3, 4, 6], [7]]


def test_an_error_in_a_part_loses_nothing_of_the_parts_before(where: dict[str, Any]) -> None:
    def fails(items: list[int]) -> list[int]:
        if 6 in items and len(parts) < 5:
            raise ZeroDivisionError
        return items

    f, parts = made(where, fails, batch_size=2)
    with pytest.raises(ZeroDivisionError):
        f(list(range(14)))
    assert f.cache_contains(list(range(14))) == [True] * 6 + [False] * 8
    assert f(list(range(14))) == list(range(14))
    assert parts[3:] == [[6, 7], [6, 7], [8, 9], [10, 11], [12, 13]]


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "10"])
def test_a_part_has_at_least_one_item(size: Any) -> None:
    with pytest.raises(ValueError, match=r"batch_size=.*expected 1 or more items, or None"):
        cache_batch_variable("items", batch_size=size)


# ---- copy ----


def test_by_default_every_position_of_every_answer_is_its_own(where: dict[str, Any]) -> None:
    f, _ = made(where, lambda items: [[item] for item in items])
    first = f([1, 1])
    first[0].append("changed")
    assert f([1, 1]) == [[1], [1]]
    assert first[1] == [1]


def test_arrays_can_be_written_to_unless_they_are_shared(where: dict[str, Any], tmp_path: Path) -> None:
    own, _ = made(where, lambda items: np.ones((len(items), 2)))
    shared, _ = made({"store": tmp_path / "shared", "name": "g"}, lambda items: np.ones((len(items), 2)), copy=False)
    for _ in range(2):
        assert all(row.flags.writeable for row in own([1, 1]))
        rows = shared([1, 1])
        assert not any(row.flags.writeable for row in rows)
        assert rows[0] is rows[1]


def test_masked_arrays_are_read_only_too_where_they_are_shared(tmp_path: Path) -> None:
    shared, _ = made(
        {"store": tmp_path / "shared", "name": "g"},
        lambda items: [np.ma.masked_array([1, 2], [False, True]) for _ in items],
        copy=False,
    )
    for _ in range(2):
        (row,) = shared([1])
        assert type(row) is np.ma.MaskedArray
        with pytest.raises(ValueError, match="read-only"):
            row[0] = 3


def test_strict_raises_what_cannot_be_read_with_the_remedy(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def encode(self, value: Any) -> bytes:
            return b"1"

        def decode(self, data: bytes) -> Any:
            raise RuntimeError("not today")

    f, computed = made({"store": tmp_path / "strict", "name": "g"}, lambda items: items, codec=Broken(), strict=True)
    assert f([1]) == [1]
    with pytest.raises(StoreError, match=r"cannot be read: .*not today.*cache_invalidate\(\)"):
        f([1])
    assert f.cache_info().errors == 1
    assert f.cache_invalidate([1]) == 1
    assert f([1]) == [1]
    assert computed == [[1], [1]]


def test_a_mapping_hands_out_what_it_keeps_where_nothing_is_copied() -> None:
    f, _ = made({"store": MappingStore()}, lambda items: [[item] for item in items], copy=False)
    assert f([1])[0] is f([1])[0]


# ---- cache_if ----


def test_what_cache_if_refuses_is_returned_and_computed_again(where: dict[str, Any]) -> None:
    f, parts = made(where, cache_if=lambda item, result: item > 1 and result == (item, 1))
    assert f([1, 2, 1]) == [(1, 1), (2, 1), (1, 1)]
    assert f.cache_contains([1, 2]) == [False, True]
    assert f([1, 2]) == [(1, 2), (2, 1)]
    assert parts == [[1, 2], [1]]
    assert f.cache_info().rejected == 0


def test_an_error_of_cache_if_is_the_callers(where: dict[str, Any]) -> None:
    f, parts = made(where, cache_if=lambda item, result: 1 / item)
    with pytest.raises(ZeroDivisionError):
        f([0])
    assert f([1]) == [(1, 2)]  # and no claim is left
    assert len(parts) == 2


# ---- on_failed ----


class Refused(Failed):
    """A failure of the user's own kind."""


def test_failed_items_are_raised_and_the_good_ones_stored(where: dict[str, Any]) -> None:
    def some(items: list[int]) -> list[Any]:
        return [Failed(ValueError(item)) if item % 2 else item for item in items]

    f, parts = made(where, some)
    with pytest.raises(BatchError, match=r"2 of 4 items failed \(index 1, 3\)") as raised:
        f([2, 1, 4, 1])
    error = raised.value
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error, BatcheException)
    assert error.indices == (1, 3)
    assert [str(problem) for problem in error.exceptions] == ["1", "1"]
    assert error.results[::2] == [2, 4]
    assert f.cache_contains([2, 1, 4]) == [True, False, True]
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.function, copy.indices, str(copy)) == (error.function, (1, 3), str(error))
    assert parts == [[2, 1, 4]]


@pytest.mark.parametrize("validate", [False, True])
def test_what_is_derived_from_failed_is_a_failure_too(where: dict[str, Any], validate: bool) -> None:
    def some(items: list[int]) -> list[int]:
        return [Refused(ValueError(item)) if item % 2 else item for item in items]  # type: ignore[misc]  # as it is used

    make = cache_batch_variable("items", **where, validate=validate)
    f = make(some)
    with pytest.raises(BatchError) as caught:
        f([1, 2])
    assert caught.value.indices == (0,)
    assert isinstance(caught.value.results[0], Refused)
    assert f.cache_contains([1, 2]) == [False, True]


def test_what_is_derived_from_failed_is_returned_where_that_is_wanted(where: dict[str, Any]) -> None:
    f, parts = made(where, lambda items: [Refused(OSError(item)) for item in items], on_failed="return")
    assert [type(result) for result in (*f([1, 1]), *f([1]))] == [Refused] * 3
    assert parts == [[1], [1]]


def test_failed_items_may_be_returned_and_are_computed_again(where: dict[str, Any]) -> None:
    f, parts = made(where, lambda items: [Failed(OSError(item)) for item in items], on_failed="return")
    first, again = f([1]), f([1])
    assert isinstance(first[0], Failed)
    assert isinstance(again[0].exception, OSError)
    assert parts == [[1], [1]]


def test_the_parts_of_a_batch_error_keep_their_indices() -> None:
    failed = {1: Failed(ValueError(1)), 3: Failed(KeyError(3))}
    results = [failed.get(index, index) for index in range(5)]
    match, rest = BatchError("f", [1, 3], results).split(ValueError)
    assert isinstance(match, BatchError)
    assert isinstance(rest, BatchError)
    assert (match.indices, rest.indices, match.results) == ((1,), (3,), results)


def test_failed_takes_an_exception() -> None:
    with pytest.raises(TypeError, match="Failed takes the exception"):
        Failed("no")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="on_failed='ignore'"):
        cache_batch_variable("items", on_failed="ignore")  # type: ignore[arg-type]  # the mistake


# ---- ignore ----


@pytest.mark.parametrize("ignore", [3, "model", ["texts"], [3]])
def test_what_is_ignored_is_named(ignore: Any) -> None:
    with pytest.raises(SignatureError, match="ignore= "):
        cache_batch_variable("texts", ignore=ignore)(lambda texts, model: texts)


# ---- wait_timeout ----


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"])
def test_a_wait_is_limited_by_seconds(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"wait_timeout=.*expected seconds, 0 or more, or None"):
        cache_batch_variable("items", wait_timeout=timeout)


# ---- validate ----


def test_items_and_results_are_checked_each_by_its_index(tmp_path: Path) -> None:
    @cache_batch_variable("items", store=tmp_path / "place", name="f", validate=True)
    def f(items: list[int], wrong: int | None = None) -> list[str]:
        return [item if item == wrong else str(item) for item in items]  # type: ignore[misc]  # what is checked

    assert f([1, 2]) == ["1", "2"]
    with pytest.raises(AnnotationError, match=r"items\[1\] is not what the annotation says: str is not"):
        f([1, "2"])  # type: ignore[list-item]  # what is checked
    with pytest.raises(AnnotationError, match="the result of item 3 is not what the annotation says: int is not"):
        f([1, 1, 2, 3], wrong=3)
    assert f.cache_contains([3], wrong=3) == [False]
    with pytest.raises(AnnotationError, match="the result of item 1 is not what the annotation says: int is not"):
        f.cache_put(["4", 5], [4, 5])
    assert f.cache_contains([4, 5]) == [False, False]


class Checks:
    """Of the name of a class of the library, which no annotation of a user's stands for."""


class Unreadable(TypedDict):
    field: NobodyDefinesThis  # type: ignore[name-defined]  # noqa: F821  as of a module imported for types only


@pytest.mark.parametrize(
    ("of_items", "good", "bad"),
    [
        (list["Checks"], Checks(), 1),
        (list[Optional["Checks"]], None, 1),
        ("list[Checks]", Checks(), 1),
        (list["NobodyDefinesThis"], 1, None),  # type: ignore[name-defined]  # noqa: F821  what is tested
        (list[Optional["NobodyDefinesThis"]], 1, None),  # type: ignore[name-defined]  # noqa: F821  what is tested
        ("list[NobodyDefinesThis]", 1, None),
        (list[Unreadable], {"field": 1}, None),
    ],
)
def test_names_in_annotations_are_the_functions_own_and_unknown_ones_are_not_checked(
    of_items: Any, good: Any, bad: Any
) -> None:
    def f(items: Any) -> Any:
        return list(items)

    f.__annotations__ = {"items": of_items, "return": list}
    cached: Any = cache_batch_variable("items", store="off", key=id, validate=True)(f)
    assert cached([good]) == [good]  # and no warning
    if bad is not None:
        with pytest.raises(AnnotationError, match=r"items\[0\] is not what the annotation says"):
            cached([bad])


def test_aligned_batches_are_checked_each_by_its_own_annotation(tmp_path: Path) -> None:
    @cache_batch_variable(("texts", "labels"), store=tmp_path / "place", name="f", validate=True)
    def f(texts: list[str], labels: list[int]) -> list[str]:
        return [text * label for text, label in zip(texts, labels, strict=True)]

    assert f(["a"], [2]) == ["aa"]
    with pytest.raises(AnnotationError, match=r"labels\[1\]"):
        f(["a", "b"], [1, "2"])  # type: ignore[list-item]  # what is checked


# ---- several batches, and batches of any kind ----


def test_aligned_batches_are_one_item_each_position(where: dict[str, Any]) -> None:
    parts: list[Any] = []

    @cache_batch_variable(("texts", "labels"), **where)
    def f(texts: list[str], labels: list[int], sep: str = "") -> list[str]:
        parts.append((texts, labels))
        return [f"{text}{sep}{label}" for text, label in zip(texts, labels, strict=True)]

    assert f(["a", "b", "a"], [1, 2, 1]) == ["a1", "b2", "a1"]
    assert f(labels=[2, 3], texts=["b", "b"]) == ["b2", "b3"]
    assert parts == [(["a", "b"], [1, 2]), (["b"], [3])]
    assert f.cache_contains(["a", "a"], [1, 2]) == [True, False]
    with pytest.raises(SignatureError, match="must be of one length; this call passes 2 texts, 1 label"):
        f(["a", "b"], [1])


@pytest.mark.parametrize("make", [tuple, iter, np.array, lambda items: (item for item in items)])
def test_any_iterable_is_a_batch_and_the_function_gets_a_list(where: dict[str, Any], make: Any) -> None:
    f, parts = made(where)
    assert [item for item, _ in f(make([1, 2, 1]))] == [1, 2, 1]
    assert type(parts[0]) is list
    assert len(parts[0]) == 2


# ---- cache_refresh ----


def test_refreshing_computes_all_and_replaces_the_entries(where: dict[str, Any]) -> None:
    f, parts = made(where)
    f([1, 2])
    assert f.cache_refresh([2, 3, 2]) == [(2, 2), (3, 2), (2, 2)]
    assert f([1, 2, 3]) == [(1, 1), (2, 2), (3, 2)]
    assert parts == [[1, 2], [2, 3]]
    assert f.cache_info().currsize == 3


def test_old_entries_are_served_while_they_are_refreshed_and_kept_on_an_exception(where: dict[str, Any]) -> None:
    seen: list[Any] = []

    def fails(items: list[int]) -> list[int]:
        if len(parts) == 2:
            seen.extend(f.cache_contains(items))
            seen.extend(f(items))
            raise OSError("down")
        return [10 * item for item in items]

    f, parts = made(where, fails)
    f([1])
    with pytest.raises(OSError, match="down"):
        f.cache_refresh([1])
    assert seen == [True, 10]
    assert f([1]) == [10]
    assert len(parts) == 2


def test_refreshing_replaces_what_is_at_the_limit_without_evicting(tmp_path: Path) -> None:
    f, _ = made({"store": tmp_path / "place", "name": "f", "maxsize": 3})
    f([1, 2, 3])
    f.cache_refresh([1, 2, 3])
    info = f.cache_info()
    assert (info.currsize, info.evictions) == (3, 0)


def test_a_refresh_larger_than_the_limit_leaves_no_old_entry_where_some_of_it_is_invalidated(tmp_path: Path) -> None:
    def compute(items: list[int]) -> list[str]:
        if 3 in items:
            f.cache_invalidate([3])
        return ["new" if 3 in items else "old" for _ in items]

    f, _ = made({"store": tmp_path / "place", "name": "f", "maxsize": 2}, compute)
    assert f([1, 2]) == ["old", "old"]
    assert f.cache_refresh([1, 2, 3]) == ["new"] * 3
    assert f.cache_contains([1, 2, 3]) == [False, True, False]
    assert f([2]) == ["new"]


def test_a_refreshed_result_that_cannot_be_stored_leaves_no_old_one(where: dict[str, Any]) -> None:
    f, parts = made(where, lambda items: [threading.Lock() if len(parts) > 1 else item for item in items])
    f([1])
    f.cache_refresh([1])
    assert f.cache_contains([1]) == [False]
    assert f.cache_info().rejected == 1


# ---- cache_put ----


def test_what_is_put_is_a_hit_and_the_last_duplicate_wins(where: dict[str, Any]) -> None:
    f, parts = made(where)
    f([1])
    assert f.cache_put(["one", "two", "uno"], [1, 2, 1]) is None
    assert f([1, 2]) == ["uno", "two"]
    assert parts == [[1]]
    info = f.cache_info()
    assert (info.hits, info.misses) == (2, 1)


def test_putting_checks_the_length_and_stores_nothing_then(where: dict[str, Any]) -> None:
    f, _ = made(where)
    with pytest.raises(ResultLengthError, match="given 2 items and returned 1 result"):
        f.cache_put(["one"], [1, 2])
    assert f.cache_contains([1, 2]) == [False, False]


def test_results_of_a_generator_are_put(where: dict[str, Any]) -> None:
    f, _ = made(where)
    f.cache_put((str(number) for number in range(3)), range(3))
    assert f([0, 1, 2]) == ["0", "1", "2"]


def test_what_is_put_does_not_change_with_what_the_caller_does(where: dict[str, Any]) -> None:
    f, _ = made(where)
    result = [1]
    f.cache_put([result], ["a"])
    result.append(2)
    assert f(["a"]) == [[1]]


def test_putting_what_cannot_be_stored_leaves_no_old_entry(where: dict[str, Any]) -> None:
    f, _ = made(where)
    f([1])
    f.cache_put([threading.Lock()], [1])
    assert f.cache_contains([1]) == [False]


def test_what_cannot_be_put_because_of_the_store_is_an_error_though_not_strict(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    f, _ = made({"store": blocked, "name": "f"})
    assert f([1]) == [(1, 1)]
    with pytest.raises(StoreError):
        f.cache_put(["one"], [1])
    with pytest.raises(StoreError):
        f.cache_invalidate([1])
    assert f.cache_refresh([1]) == [(1, 2)]


def test_a_batch_larger_than_one_transaction_is_put_and_refreshed_whole(where: dict[str, Any]) -> None:
    f, parts = made(where)
    items = list(range(3000))
    f.cache_put(items, items)
    assert f(items) == items
    assert f.cache_refresh(items) == [(item, 1) for item in items]
    assert f(items) == [(item, 1) for item in items]
    assert len(parts) == 1


# ---- cache_warm ----


def test_warming_computes_what_is_missing_of_a_stream_in_parts(where: dict[str, Any]) -> None:
    f, parts = made(where)
    f([3, 1500])
    taken: list[int] = []

    def stream() -> Iterator[int]:
        for item in range(2500):
            taken.append(len(parts))
            yield item

    assert f.cache_warm(stream()) == 2498
    assert [len(part) for part in parts] == [2, 999, 999, 500]
    assert taken[999] == 1  # a part is computed before the next is taken
    assert taken[1000] == 2
    assert f.cache_warm(range(2500)) == 0


def test_warming_that_is_stopped_loses_nothing_done(where: dict[str, Any]) -> None:
    def breaks() -> Iterator[int]:
        yield from range(1200)
        raise KeyboardInterrupt

    f, _ = made(where, batch_size=100)
    with pytest.raises(KeyboardInterrupt):
        f.cache_warm(breaks())
    assert f.cache_contains([0, 999]) == [True, True]
    assert f.cache_warm(range(1200)) == 200


def test_warming_goes_on_where_items_fail_and_tells_in_the_end(where: dict[str, Any]) -> None:
    f, _ = made(where, lambda items: [Failed(ValueError(item)) if item == 5 else item for item in items])
    with pytest.raises(BatchError, match="index 5") as raised:
        f.cache_warm(range(2500))
    assert raised.value.indices == (5,)
    assert f.cache_contains([4, 5, 6, 2499]) == [True, False, True, True]


def test_warming_takes_aligned_batches_and_refuses_a_single_text(where: dict[str, Any]) -> None:
    @cache_batch_variable(("texts", "labels"), **where)
    def f(texts: list[str], labels: list[int]) -> list[str]:
        return [text * label for text, label in zip(texts, labels, strict=True)]

    assert f.cache_warm(iter(["a", "b"]), (label for label in [1, 2])) == 2
    with pytest.raises(SignatureError, match="a list of items, not a str"):
        f.cache_warm("ab", [1, 2])
    with pytest.raises(SignatureError, match="a list of items, not a set"):
        f.cache_warm({"a", "b"}, [1, 2])


@pytest.mark.parametrize("batch", [{1, 2}, frozenset([1, 2]), {1: "a", 2: "b"}.keys()])
def test_warming_takes_a_batch_without_an_order_which_a_call_does_not(where: dict[str, Any], batch: Any) -> None:
    f, _ = made(where)
    with pytest.raises(SignatureError, match=r"f\(sorted\(xs\)\)"):
        f(batch)
    assert f.cache_warm(batch) == 2
    assert f.cache_contains([1, 2]) == [True, True]


@pytest.mark.parametrize("batch", ["ab", b"ab", {1: 2}, 5, np.array(5)])
def test_warming_refuses_what_is_most_likely_one_item(where: dict[str, Any], batch: Any) -> None:
    f, _ = made(where)
    with pytest.raises(SignatureError, match=r"for one item x write f\(\[x\]\)"):
        f.cache_warm(batch)
