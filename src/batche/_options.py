"""What the decorator is given: checked at decoration, and said again in the terms of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from batche import _binding
from batche._capacity import limits
from batche._coroutines import is_async_generator
from batche._numbers import ENDLESS, real, whole
from batche._stores import refuse_limits_beside, resolved_store, stated_store
from batche._validation import Checks
from batche.codecs import codec as codec_of
from batche.errors import SignatureError

_SECOND = 1_000_000_000
_OUTCOMES = ("raise", "return")


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a decoration, resolved as far as they can be before there is a function.

    Raises:
        SignatureError: an option that names parameters, or a function, is not one.
        ValueError: a limit, a store, a codec or a number is not one.
    """
    _require_names(options["batch_variable_name"])
    for option, takes in (("key", "an item"), ("cache_if", "an item and its result")):
        if options[option] is not None and not callable(options[option]):
            raise _wrong(option, options[option], f"a function of {takes}")
    for option in ("copy", "strict", "validate"):
        if not isinstance(options[option], bool):
            raise _wrong(option, options[option], "True or False")
    ignore = options["ignore"]
    if not isinstance(ignore, Iterable):
        raise _wrong("ignore", ignore, "names of parameters")
    resolved = {
        **options,
        "store": resolved_store(options["store"]),
        "ignore": ignore if isinstance(ignore, str) else tuple(ignore),
    }
    stated(resolved)
    return resolved


def stated(options: dict[str, Any], checks: Checks | None = None) -> _binding.Stated:
    """What ``options`` state of the store and of calls. ``checks``: of results, where they are to be validated.

    Raises:
        ValueError: a limit, a codec or a number is not one, or does not go with the store.
    """
    maxsize, max_bytes, store = options["maxsize"], options["max_bytes"], options["store"]
    refuse_limits_beside(store, maxsize, max_bytes, options["ttl"])
    if options["on_failed"] not in _OUTCOMES:
        raise ValueError(f"on_failed={options['on_failed']!r}: expected 'raise' or 'return'")
    return _binding.Stated(
        stated_store(store),
        *limits(maxsize, max_bytes),
        codec_of(options["codec"]),
        options["key"],
        options["strict"],
        {
            "batch_size": _batch_size(options["batch_size"]),
            "ttl": nanoseconds("ttl", options["ttl"], least=1),
            "wait_timeout": nanoseconds("wait_timeout", options["wait_timeout"]),
            "copy": options["copy"],
            "cache_if": options["cache_if"],
            "on_failed": options["on_failed"],
            "check": checks.result if checks is not None else None,
        },
    )


def nanoseconds(option: str, seconds: object, least: int = 0) -> int | None:
    """A number of seconds, `None` for one without end. ``least`` is the smallest result.

    Raises:
        ValueError: it is no number, or too small.
    """
    if seconds is None:
        return None
    number = real(seconds)
    if number is None or not number * _SECOND >= least:
        more = "more than 0" if least else "0 or more"
        raise ValueError(f"{option}={seconds!r}: expected seconds, {more}, or None for no limit")
    return None if number * _SECOND >= ENDLESS else round(number * _SECOND)


def _batch_size(size: object) -> int | None:
    if size is None:
        return None
    number = whole(size)
    if number is None or number < 1:
        raise ValueError(f"batch_size={size!r}: expected 1 or more items, or None for all at once")
    return number


def _require_names(names: object) -> None:
    if isinstance(names, str) or (isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names)):
        return
    raise _wrong("batch_variable_name", names, "a parameter's name, or a tuple of names")


def _wrong(option: str, value: object, expected: str) -> SignatureError:
    return SignatureError("cache_batch_variable", f"{option}= takes {expected}, not {value!r}")


def refuse_generator(name: str, function: Callable[..., Any]) -> None:
    """Say at decoration that what yields its results has no list of them."""
    if is_async_generator(function):
        raise SignatureError(name, "an async generator function is not cached; make it a coroutine that returns a list")
