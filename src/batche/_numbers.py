"""Numbers as users write them, numpy's among them: a limit, a size, a time."""

from __future__ import annotations

import operator
from typing import Any, Final

ENDLESS: Final = 1 << 62
"""Bytes, entries and nanoseconds that are more than anybody has: no limit."""


def whole(value: Any, *, or_float: bool = False) -> int | None:
    """A whole number, of whatever type stands for one; `None` for anything else, a truth value too.

    ``or_float``: also one like ``1e5``, a real number without a fraction.
    """
    if _is_truth(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        number = real(value) if or_float else None
    return int(number) if isinstance(number, float) and number.is_integer() else None


def real(value: Any) -> int | float | None:
    """A real number, of whatever type stands for one; `None` for anything else: text, a truth value, NaN, an array."""
    if isinstance(value, str | bytes) or _is_truth(value) or getattr(value, "ndim", None):
        return None
    try:
        number: int | float = value if isinstance(value, int) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number else None  # noqa: PLR0124 - only a NaN differs from itself


def _is_truth(value: object) -> bool:
    """Whether it is a `bool`, or numpy's, told by its name because numpy may not be imported."""
    return type(value).__name__ in {"bool", "bool_"}
