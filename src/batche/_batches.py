"""What is a batch, and what are the results of one: any collection that keeps an order, made into a list."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Set
from itertools import islice
from typing import Any, Final

from batche.errors import ResultLengthError, SignatureError

_ONE_ITEM: Final = (str, bytes, bytearray, memoryview, Mapping)
_NO_BATCH: Final = (*_ONE_ITEM, Set)


def items_of(batch: Any, function_name: str, variable: str = "the batch") -> list[Any]:
    """The items of a batch, in a new list: later changes of the caller's list do not reach the call.

    What `iter` takes is a batch, but a `str`, bytes, a mapping or a set: the first three are most likely one
    item, and a set has no order to give results in.

    Raises:
        SignatureError: it is one of those, or cannot be iterated over.
    """
    if type(batch) is list:
        return batch.copy()
    return list(iterated(batch, function_name, variable))


def iterated(batch: Any, function_name: str, variable: str, *, ordered: bool = True) -> Iterator[Any]:
    """The items of a batch, as they are asked for: see `items_of`. Where order does not matter, a set is one too."""
    if isinstance(batch, _NO_BATCH if ordered else _ONE_ITEM) or not _is_iterable(batch):
        raise SignatureError(
            function_name,
            f"{variable} must be a valid argument of the batch function: a list of items, not "
            f"{_described(batch)}; for one item x write f([x]), for an unordered collection f(sorted(xs))",
        )
    if hasattr(type(batch), "__iter__") or not hasattr(type(batch), "__len__"):
        return iter(batch)
    return islice(batch, len(batch))  # what has only indices may not say itself where they end


def _is_iterable(batch: Any) -> bool:
    """Whether `iter` takes it, told without asking it: a stream may begin with that."""
    way = getattr(type(batch), "__iter__", getattr(type(batch), "__getitem__", None))
    return way is not None and getattr(batch, "ndim", 1) != 0


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
