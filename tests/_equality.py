"""When two values are the same: type and content, down to the leaves."""

from __future__ import annotations

import struct
from datetime import datetime, time
from decimal import Decimal
from typing import Any

import numpy as np


def same(one: Any, other: Any) -> bool:
    """As ``==``, but types count, NaN is itself, ``-0.0`` is not ``0.0``, and dicts have an order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, np.ndarray | np.generic):
        return _same_array(one, other)
    if isinstance(one, Decimal | datetime | time):
        return repr(one) == repr(other)  # which tells the fold, the zone, and zeros at the end
    return _same_container(one, other)


def _same_array(one: Any, other: Any) -> bool:
    alike = one.dtype == other.dtype and one.dtype.char == other.dtype.char and one.shape == other.shape
    if not alike or one.flags.fnc != other.flags.fnc:
        return False
    if one.dtype.names is not None:  # the padding between fields may differ
        return all(_same_array(np.asarray(one[name]), np.asarray(other[name])) for name in one.dtype.names)
    return bool(one.tobytes() == other.tobytes())


def _same_container(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(mine, theirs) for theirs in other) for mine in one)
    return bool(one == other)
