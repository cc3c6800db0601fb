"""A dict with a limit, the least recently used entry first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any


class Lru(MutableMapping[str, Any]):
    """Exact LRU by count: ``mapping[key]`` is a use, ``in``, ``peek`` and iteration are not.

    ``maxsize``: most entries; `None`: no limit; 0: nothing is kept. Has no lock of its own; each change of what is
    inside is one step of C, so that a fork at any moment copies a whole mapping.
    """

    def __init__(self, maxsize: int | None = None) -> None:
        self.maxsize = maxsize
        self._held: OrderedDict[str, Any] = OrderedDict()

    def __getitem__(self, key: str) -> Any:
        value = self._held[key]
        self._held.move_to_end(key)
        return value

    def peek(self, key: str) -> Any:
        """The value of ``key``, its recency unchanged; raises KeyError where there is none."""
        return self._held[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if self.maxsize == 0:
            return
        self._held[key] = value
        self._held.move_to_end(key)
        while self.maxsize is not None and len(self._held) > self.maxsize:
            self._held.popitem(last=False)

    def __delitem__(self, key: str) -> None:
        del self._held[key]

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)
