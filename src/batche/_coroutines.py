"""Which functions are async, and how a wrapper shows that it is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling ``function``, or what it wraps, gives something to await."""
    innermost = inspect.unwrap(function)
    called = inspect.getattr_static(type(innermost), "__call__", None)
    return any(map(inspect.iscoroutinefunction, (function, innermost, called)))


def is_async_generator(function: Callable[..., Any]) -> bool:
    """Whether ``function``, or what it wraps, yields in an event loop."""
    return inspect.isasyncgenfunction(inspect.unwrap(function))


def mark_async(wrapper: Any) -> None:
    """Have `inspect`, and asyncio and the frameworks that ask it, take an object for a coroutine function.

    Before Python 3.12 they look at the code of what looks like a function: see `AsyncCachedFunction.__code__`.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(wrapper)
    elif not hasattr(wrapper, "__name__"):  # of a partial or a callable object; what looks like a function has one
        wrapper.__name__ = type(wrapper.__wrapped__).__name__
