"""The items and results that every peer is given: the same in every process and at every run."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # it ships no types
import numpy as np

LIST_LENGTH: Final = 16
ARRAY_LENGTH: Final = 384


class Kind(NamedTuple):
    """A kind of result, and how it goes through peers that keep only bytes."""

    value: Callable[[int], Any]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    same: Callable[[Any, Any], bool]


def item(number: int) -> str:
    return f"A short text to embed, and one that nobody else has: number {number}."


def items(numbers: Iterable[int]) -> list[str]:
    return [item(number) for number in numbers]


def _floats(number: int) -> list[float]:
    return [math.sin(number * LIST_LENGTH + place) for place in range(LIST_LENGTH)]


def _array(number: int) -> Any:
    return np.random.default_rng(number).standard_normal(ARRAY_LENGTH, dtype=np.float32)


def _same_list(one: Any, other: Any) -> bool:
    return type(one) is list and one == other


def _same_array(one: Any, other: Any) -> bool:
    return isinstance(one, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)


KINDS: Final = {
    "lists": Kind(_floats, msgpack.packb, msgpack.unpackb, _same_list),
    "arrays": Kind(_array, np.ndarray.tobytes, partial(np.frombuffer, dtype=np.float32), _same_array),
}
DESCRIBED: Final = {"lists": f"lists of {LIST_LENGTH} floats", "arrays": f"arrays of {ARRAY_LENGTH} float32"}


def drawn(seed: int, entries: int, batch: int) -> list[int]:
    """The numbers of a batch of entries that are there, drawn without duplicates: the same for every peer."""
    return random.Random(seed).sample(range(entries), batch)
