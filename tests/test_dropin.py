"""Code written for batche 0.1.1 runs unchanged; what 0.1.1 got wrong is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional, Tuple  # noqa: UP035  as users of 0.1.1 wrote them

import pytest

import batche.batche
from batche import cache_batch_variable
from batche.batche import BatcheException

# ---- what runs unchanged ----


def test_the_documented_example() -> None:
    @cache_batch_variable(batch_variable_name="batch_items", maxsize=100)
    def batch_function(batch_items: List[str]) -> List[str]:  # noqa: UP006  the same
        # Simulating some heavy computation
        result = [item.upper() for item in batch_items]
        return result

    assert batch_function(["hello", "world"]) == ["HELLO", "WORLD"]
    assert batch_function(["hello", "again"]) == ["HELLO", "AGAIN"]
    assert (batch_function.cache_info().hits, batch_function.cache_info().misses) == (1, 3)


def test_the_old_names_are_the_new_ones() -> None:
    assert batche.batche.cache_batch_variable is cache_batch_variable
    assert batche.batche.BatcheException is batche.BatcheException


@pytest.mark.parametrize(
    "decorator",
    [
        lambda: cache_batch_variable("items"),
        lambda: cache_batch_variable("items", 2),
        lambda: cache_batch_variable("items", None),
        lambda: cache_batch_variable("items", maxsize=2),
        lambda: cache_batch_variable(batch_variable_name="items"),
        lambda: cache_batch_variable(batch_variable_name="items", maxsize=2),
        lambda: cache_batch_variable(maxsize=2, batch_variable_name="items"),
    ],
)
def test_both_arguments_by_position_or_name(decorator: Callable[[], Any]) -> None:
    @decorator()  # type: ignore[untyped-decorator]  # the list above is of any
    def function(items: List[int]) -> List[int]:  # noqa: UP006  the same
        return [item + 1 for item in items]

    assert function([1, 2, 3]) == function(items=[1, 2, 3]) == [2, 3, 4]


def test_the_size_evicts_the_least_recently_used() -> None:
    @cache_batch_variable("items", 2)
    def function(items: List[int]) -> List[int]:  # noqa: UP006  the same
        return items

    for batch in ([1], [2], [1], [3]):
        function(batch)
    assert function.cache_contains([1, 2, 3]) == [True, False, True]


def test_a_function_without_annotations_is_not_checked() -> None:
    @cache_batch_variable("items")
    def function(items):  # type: ignore[no-untyped-def]  # what is tested
        return items

    assert function([1]) == [1]


def test_a_batch_may_be_passed_in_keywords_that_the_function_collects() -> None:
    @cache_batch_variable("items")
    def function(**options: Any) -> List[int]:  # noqa: UP006  the same
        return [item * options.get("factor", 1) for item in options["items"]]

    assert function(items=[1, 2], factor=3) == [3, 6]
    assert function(items=[1, 2]) == [1, 2]
    with pytest.raises(BatcheException, match="items must be a valid argument of the batch function"):
        function(factor=3)


# ---- the checks, each with the old words ----


def test_a_name_that_is_no_parameter() -> None:
    with pytest.raises(BatcheException, match="words must be a valid argument of the batch function"):

        @cache_batch_variable("words")
        def function(items: List[int]) -> List[int]:  # noqa: UP006  the same
            return items


def test_a_call_without_the_batch() -> None:
    @cache_batch_variable("items")
    def function(other: int, items: List[int]) -> List[int]:  # noqa: UP006  the same
        return items

    with pytest.raises(BatcheException, match="items must be a valid argument of the batch function"):
        function(1)  # type: ignore[call-arg]  # the mistake


@pytest.mark.parametrize("annotation", [int, str, Dict[str, int], Tuple[int], "str"])  # noqa: UP006  the same
def test_a_batch_that_is_no_list(annotation: Any) -> None:
    def function(items):  # type: ignore[no-untyped-def]  # its annotations are set below
        return items

    function.__annotations__ = {"items": annotation}
    with pytest.raises(BatcheException, match="items annotation must be a list of hashable objects"):
        cache_batch_variable("items")(function)


@pytest.mark.parametrize("annotation", [int, str, Dict[str, int], "int"])  # noqa: UP006  the same
def test_a_result_that_is_no_list(annotation: Any) -> None:
    def function(items):  # type: ignore[no-untyped-def]  # its annotations are set below
        return items

    function.__annotations__ = {"return": annotation}
    with pytest.raises(BatcheException, match="return annotation must be a list"):
        cache_batch_variable("items")(function)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_result_of_another_length(length: int) -> None:
    @cache_batch_variable("items")
    def function(items: List[int]) -> List[int]:  # noqa: UP006  the same
        return [0] * length

    expected = "batch function must return a list of predictions of the same length as the batch"
    with pytest.raises(BatcheException, match=expected):
        function([1, 2])


# ---- what 0.1.1 got wrong ----


def test_other_arguments_are_part_of_the_key() -> None:
    @cache_batch_variable("items")
    def scaled(items: list[int], factor: int = 1) -> list[int]:
        return [item * factor for item in items]

    assert (scaled([2]), scaled([2], 10), scaled([2], factor=10)) == ([2], [20], [20])


def test_duplicates_are_computed_once() -> None:
    given: list[list[int]] = []

    @cache_batch_variable("items")
    def function(items: list[int]) -> list[int]:
        given.append(items)
        return items

    assert function([1, 1, 2, 1]) == [1, 1, 2, 1]
    assert given == [[1, 2]]


def test_one_decorator_keeps_a_cache_for_each_function() -> None:
    cached = cache_batch_variable("items", 10)

    @cached
    def plus(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    @cached
    def minus(items: list[int]) -> list[int]:
        return [item - 1 for item in items]

    assert [*plus([1]), *minus([1]), *plus([1])] == [2, 0, 2]
    plus.cache_clear()
    assert (plus.cache_contains([1]), minus.cache_contains([1])) == ([False], [True])


def test_annotations_that_are_text_are_understood() -> None:  # this module has them by its first import
    with pytest.raises(BatcheException, match="items annotation must be a list of hashable objects"):

        @cache_batch_variable("items")
        def function(items: str) -> list[str]:
            return list(items)


@pytest.mark.parametrize(
    "annotation",
    [Optional[list[int]], list[int] | None, Sequence[int], Sequence, "Optional[list[int]]"],  # noqa: UP045  the same
)
def test_more_than_plain_lists_may_be_annotated(annotation: Any) -> None:
    def function(items):  # type: ignore[no-untyped-def]  # its annotations are set below
        return items

    function.__annotations__ = {"items": annotation, "return": annotation}
    assert cache_batch_variable("items")(function)([1]) == [1]


def test_a_batch_may_be_keyword_only_or_have_a_default() -> None:
    @cache_batch_variable("items")
    def by_keyword(*, items: list[int]) -> list[int]:
        return items

    @cache_batch_variable("items")
    def defaulted(items: Sequence[int] = (1, 2)) -> list[int]:
        return list(items)

    assert by_keyword(items=[1]) == [1]
    assert (defaulted(), defaulted([3])) == ([1, 2], [3])
    assert defaulted.cache_contains() == [True, True]


def test_a_caller_that_changes_a_result_does_not_change_the_cache() -> None:
    @cache_batch_variable("items")
    def lists(items: list[int]) -> list[list[int]]:
        return [[item] for item in items]

    for _ in range(3):
        (result,) = lists([1])
        assert result == [1]
        result.append(2)


def test_items_that_only_compare_equal_are_not_one() -> None:
    @cache_batch_variable("items")
    def names(items: list[Any]) -> list[str]:
        return [type(item).__name__ for item in items]

    assert names([1, True, 1.0]) == ["int", "bool", "float"]


def test_unhashable_items_are_fine() -> None:
    @cache_batch_variable("items")
    def lengths(items: list[list[int]]) -> list[int]:
        return [len(item) for item in items]

    assert lengths([[1, 2], [], [1, 2]]) == [2, 0, 2]


def test_many_threads_may_call() -> None:
    @cache_batch_variable("items", maxsize=20)
    def squares(items: list[int]) -> list[int]:
        return [item * item for item in items]

    def call(start: int) -> bool:
        return squares(list(range(start, start + 30))) == [item * item for item in range(start, start + 30)]

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(call, range(100)))
    assert squares.cache_info().currsize == 20
