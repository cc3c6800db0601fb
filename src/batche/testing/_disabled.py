"""Calls that compute everything, for tests of what a function does without its cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from batche._hooks import hooks

P = ParamSpec("P")
R = TypeVar("R")


class disabled:
    """Have every cached function of this process compute everything, as with ``store="off"``.

    A context manager, and a decorator of functions and coroutine functions. It holds for all threads and tasks of the
    process, from the first who enters to the last who leaves. A call that began before goes on as it began. Meanwhile
    nothing is read, stored, removed or claimed: ``cache_contains`` is all `False`, ``cache_info`` tells of the
    calls made while disabled, and entries are there again afterwards. `Cache` objects are not touched.

    Limits: a process that is forked meanwhile is disabled for as long as it lives; one that is spawned, or was
    started before, is not disabled at all. For these set ``BATCHE_STORE=off`` in their environment.

    Example:
        >>> with disabled():
        ...     embed(["a"])  # computed, whatever the cache has
    """

    def __enter__(self) -> None:
        hooks.switch(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hooks.switch(-1)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate ``function`` so that caching is off while it runs."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("disabled() cannot decorate a generator function; use `with disabled():` inside of it")
        wrapped = _async(function) if inspect.iscoroutinefunction(function) else _sync(function)
        return cast("Callable[P, R]", wrapped)


def _sync(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with disabled():
            return function(*args, **kwargs)

    return wrapper


def _async(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with disabled():
            return await function(*args, **kwargs)

    return wrapper
