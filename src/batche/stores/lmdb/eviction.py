"""Which entries are the least recently used: a scan of the slot table, outside any lock.

A scan takes the slots whose ticks are below a threshold, oldest first. Ticks only grow, and whatever the scan did
not take is younger than all it took; so a candidate whose tick is the same when it is evicted *is* the least
recent, and one whose tick has changed goes back in line, or is passed over where it is younger than the threshold by
now. Exact, with no write on a hit.

A threshold comes from a sample of the ticks, so a scan reads the table once and sorts only what it took.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import Final

from batche.stores.lmdb.slots import DOMAIN, FREE, Slots

SHARE: Final = 8
"""A scan looks for this part of all entries (one in `SHARE`), so each eviction pays for `SHARE` slots of a scan."""
_SAMPLE: Final = 1024
"""Slots that are looked at to choose a threshold."""


class Candidates:
    """The next victims of one domain, oldest first. Used under the writer's lock, refilled outside of it."""

    def __init__(self, slots: Slots, domain: int | None) -> None:
        self._slots = slots
        self._domain = domain
        # What the last scan did not take is younger than the first; the second is what is left of what it took. One
        # attribute, because another thread may refill while one evicts.
        self._found: tuple[int, deque[tuple[int, int]]] = 0, deque()
        self._taken: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._found[1])

    def pop(self) -> int | None:
        """The least recently used slot, as far as the last scan can tell; `None` where a new scan is needed."""
        words, (latest, queue) = self._slots.words, self._found
        while queue:
            tick, slot = queue.popleft()
            now = words[slot]
            if now == tick:
                self._taken.append((tick, slot))
                return slot
            if now <= latest:  # a slow reader's use: its moment may be older than that of other candidates
                insort(queue, (now, slot))
        return None

    def settle(self) -> None:
        """Those taken are gone: their removal is committed."""
        self._taken.clear()

    def put_back(self) -> None:
        """Those taken are the oldest still: their removal was not committed."""
        self._found[1].extendleft(reversed(self._taken))
        self._taken.clear()

    def refill(self) -> None:
        """Scan the table. Takes no lock.

        It takes nothing that was stored since it began: that may be older than what is stored while it goes on.
        """
        begun = self._slots.tick()
        latest = min(self._threshold(), begun)
        found = self._scan(latest)
        self._found = (latest, found) if found else (begun, self._scan(begun))

    def settled(self) -> Iterator[int]:
        """All slots, the least recently used first, as one scan under the writer's turn finds them.

        For when readers use every victim before it is evicted: a use that comes after this scan is too late.
        """
        return (slot for _, slot in self._scan(FREE - 1))

    def _scan(self, latest: int) -> deque[tuple[int, int]]:
        return deque(sorted(pair for chunk in self._slots.chunks() for pair in self._among(latest, *chunk)))

    def _among(self, latest: int, slots: range, ticks: list[int], domains: list[int]) -> list[tuple[int, int]]:
        if self._domain is None:
            return [(tick, slot) for tick, slot in zip(ticks, slots, strict=True) if 0 < tick <= latest]
        return [
            (tick, slot)
            for tick, slot, domain in zip(ticks, slots, domains, strict=True)
            if domain == self._domain and 0 < tick <= latest
        ]

    def _threshold(self) -> int:
        """A tick that about one in `SHARE` of the entries does not exceed, or, where there are few, any tick."""
        sample = self._slots.sample(_SAMPLE)
        words = self._slots.words  # after the sample, which maps what others have added to the table
        ticks = [words[slot] for slot in sample if self._domain in (None, words[slot + DOMAIN])]
        used = sorted(tick for tick in ticks if 0 < tick < FREE)
        return used[len(used) // SHARE] if len(used) >= _SAMPLE // SHARE else FREE - 1
