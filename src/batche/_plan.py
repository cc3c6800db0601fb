"""Pure planning of one call: which items are distinct, and how results go back to their positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batche._types import Key


class Plan:
    """A batch and the key of each position.

    ``first`` maps each distinct key to its first position, in first-seen order; ``by_use`` has the distinct keys
    in order of their last position, which is the order of their use. Nothing of it changes.
    """

    __slots__ = ("_first", "by_use", "items", "keys")

    def __init__(self, items: Sequence[Any], keys: list[Key], by_use: list[Key]) -> None:
        self.items = items
        self.keys = keys
        self.by_use = by_use
        self._first: dict[Key, int] | None = None

    @property
    def first(self) -> dict[Key, int]:
        """Made when it is asked for: a batch that only hits does without it."""
        if self._first is None:
            positions = range(len(self.keys) - 1, -1, -1)
            last_to_first = dict(zip(reversed(self.keys), positions, strict=True))
            self._first = {key: last_to_first[key] for key in dict.fromkeys(self.keys)}
        return self._first

    def distinct(self) -> list[Key]:
        """A new list of the distinct keys in first-seen order."""
        return list(self.first) if self.has_duplicates else self.keys.copy()

    @property
    def has_duplicates(self) -> bool:
        return len(self.by_use) != len(self.keys)

    def items_of(self, keys: Sequence[Key]) -> list[Any]:
        """A new list of the items that ``keys``, which are in first-seen order, stand for."""
        if len(keys) == len(self.keys):
            return list(self.items)
        first = self.first
        return [self.items[first[key]] for key in keys]

    def in_order(self, keys: set[Key]) -> list[Key]:
        """``keys`` in first-seen order."""
        if len(keys) == len(self.keys):
            return self.keys.copy()
        return [key for key in dict.fromkeys(self.keys) if key in keys]


def split(items: Sequence[Any], keys: list[Key]) -> Plan:
    """Find the distinct items of a batch. ``keys`` is aligned with ``items``."""
    if len(keys) == 1 or len(set(keys)) == len(keys):
        return Plan(items, keys, keys)
    return Plan(items, keys, list(dict.fromkeys(reversed(keys)))[::-1])


def merge(plan: Plan, results: Mapping[Key, Any]) -> list[Any]:
    """The results of all positions, in order; duplicates share one object."""
    return list(map(results.__getitem__, plan.keys))
