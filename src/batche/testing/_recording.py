"""Which items a cached function was given to compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Final

from batche._cached import Cached
from batche._forks import ProcessLock
from batche._methods import AsyncCachedMethod, CachedMethod


class Recording(list[Any]):
    """The items that a function was given, in order; ``batches`` has them as they were given, a list for each call."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Any]] = []

    def note(self, items: list[Any]) -> None:
        """Add a batch that the function is about to be given."""
        self.batches.append(list(items))
        self.extend(items)


_attaching: Final = ProcessLock()
"""Under it recordings are attached to functions."""


@contextmanager
def recording(function: Any) -> Iterator[Recording]:
    """Record what ``function``, decorated by `cache_batch_variable`, computes in this process.

    Gives a list of the items that it was passed, hits and waits not among them, in the order in which it was called;
    also those of a call that raised. What it is passed uncached (a batch of `None`) is no item. All threads
    and tasks of this process count, other processes do not: there ``cache_info().misses`` tells.

    Raises:
        TypeError: ``function`` is not decorated by `cache_batch_variable`.

    Example:
        >>> with recording(embed) as computed:
        ...     embed(["a", "b", "a"])
        >>> assert computed == ["a", "b"]
    """
    cached = _cached(function)
    recorded = Recording()
    with _attaching.lock:
        cached._listeners = (*cached._listeners, recorded.note)
    try:
        yield recorded
    finally:
        with _attaching.lock:
            cached._listeners = tuple(listener for listener in cached._listeners if listener != recorded.note)


def _cached(function: Any) -> Cached[Any, Any]:
    if isinstance(function, CachedMethod | AsyncCachedMethod | MethodType):  # the last: what `classmethod` binds
        function = function.__func__
    if not isinstance(function, Cached):
        raise TypeError(f"recording() takes a function decorated by cache_batch_variable, not {function!r}")
    return function
