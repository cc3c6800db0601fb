"""What is a batch, and what are the results of one: any collection that keeps an order, made into a list."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

from batche.errors import ResultLengthError, SignatureError

_NO_BATCH: Final = (str, bytes, bytearray, memoryview, Mapping, Set)


def items_of(batch: Any, function_name: str, variable: str = "the batch") -> list[Any]:
    """The items of a batch, in a new list: later changes of the caller's list do not reach the call.

    Any iterable is a batch, but a `str`, bytes, a mapping or a set: the first three are most likely one
    item, and a set has no order to give results in.

    Raises:
        SignatureError: it is one of those, or no iterable.
    """
    if type(batch) is list:
        return batch.copy()
    check_batch(batch, function_name, variable)
    return list(batch)


def check_batch(batch: Any, function_name: str, variable: str) -> None:
    """Refuse what is no batch: see `items_of`."""
    if isinstance(batch, _NO_BATCH) or not hasattr(type(batch), "__iter__"):
        raise SignatureError(
            function_name,
            f"{variable} must be a valid argument of the batch function: a list of items, not "
            f"{_described(batch)}; for one item x write f([x]), for an unordered collection f(sorted(xs))",
        )


def results_of(result: Any, expected: int, function_name: str) -> list[Any]:
    """What a batch function returned, as a new list of one result for each item.

    An array or a tensor gives its rows, and so does any other sized collection that keeps an order. A
    table (an object with ``columns``) is refused: to iterate it gives columns, not rows.

    Raises:
        ResultLengthError: it is nothing of that, or its length is not ``expected``.
    """
    if type(result) is not list and not _is_rows(result):
        raise ResultLengthError(function_name, expected, _described(result))
    results = list(result)
    if len(results) != expected:
        raise ResultLengthError(function_name, expected, f"{len(results)} result{'s' * (len(results) != 1)}")
    return results


def _is_rows(result: Any) -> bool:
    if isinstance(result, (*_NO_BATCH, Iterator)) or hasattr(result, "columns"):
        return False
    if not hasattr(type(result), "__len__") or not hasattr(type(result), "__iter__"):
        return False
    return getattr(result, "ndim", 1) != 0


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if inspect.isawaitable(value):
        return "an awaitable that nobody awaited"
    shape = "0-dimensional " if getattr(value, "ndim", 1) == 0 else ""
    name = shape + type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
