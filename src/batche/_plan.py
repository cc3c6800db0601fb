"""Pure planning of one call: which items are distinct, and how results go back to their positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batche._types import Key


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch and the key of each position.

    ``first`` maps each distinct key to its first position, in first-seen order; ``by_use`` has the distinct keys
    in order of their last position, which is the order of their use.
    """

    items: Sequence[Any]
    keys: list[Key]
    first: dict[Key, int]
    by_use: list[Key]

    @property
    def has_duplicates(self) -> bool:
        return len(self.first) != len(self.keys)

    def items_of(self, keys: Sequence[Key]) -> list[Any]:
        """A new list of the items that ``keys`` stand for."""
        return [self.items[self.first[key]] for key in keys]

    def in_order(self, keys: set[Key]) -> list[Key]:
        """``keys`` in first-seen order."""
        return [key for key in self.first if key in keys]


def split(items: Sequence[Any], keys: list[Key]) -> Plan:
    """Find the distinct items of a batch. ``keys`` is aligned with ``items``."""
    distinct = dict.fromkeys(keys)
    if len(distinct) == len(keys):
        return Plan(items, keys, dict(zip(keys, range(len(keys)), strict=True)), keys)
    first: dict[Key, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    return Plan(items, keys, first, list(dict.fromkeys(reversed(keys)))[::-1])


def merge(plan: Plan, results: Mapping[Key, Any]) -> list[Any]:
    """The results of all positions, in order; duplicates share one object."""
    return [results[key] for key in plan.keys]
