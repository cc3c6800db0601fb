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
_SAMPLE: Final = 256
"""Slots that are looked at to choose a threshold."""


class Candidates:
    """The next victims of one domain, oldest first. Used under the writer's lock, refilled outside of it."""

    def __init__(self, slots: Slots, domain: int | None) -> None:
        self._slots = slots
        self._domain = domain
        # What the last scan did not take is younger than the first; the second is what is left of what it took. One
        # attribute, because another thread may refill while one evicts.
        self._found: tuple[int, deque[tuple[int, int]]] = 0, deque()
        self._taken: dict[int, int] = {}  # slots and their ticks

    def __len__(self) -> int:
        return len(self._found[1])

    def pop(self) -> int | None:
        """The least recently used slot, as far as the last scan can tell; `None` where a new scan is needed."""
        words, (latest, queue) = self._slots.words, self._found
        while queue:
            tick, slot = queue.popleft()
            now = words[slot]
            if slot in self._taken:  # another thread's scan has found it too, before its removal is committed
                continue
            if now == tick:
                self._taken[slot] = tick
                return slot
            if now <= latest:  # a slow reader's use: its moment may be older than that of other candidates
                insort(queue, (now, slot))
        return None

    def settle(self) -> None:
        """Those taken are gone: their removal is committed."""
        self._taken.clear()

    def put_back(self) -> None:
        """Those taken are the oldest still: their removal was not committed."""
        self._found[1].extendleft((tick, slot) for slot, tick in reversed(self._taken.items()))
        self._taken.clear()

    def provide(self, number: int, *, exhausted: bool) -> None:
        """Scan for the victims of ``number`` entries to come: where none were found when some were needed, or no more
        than these are left of an earlier scan. To run out of them under the writer's lock costs a transaction.
        """
        if exhausted or 0 < len(self) <= number:  # to use up the last one hides that there is a need
            self.refill(number)

    def refill(self, least: int = 1) -> None:
        """Scan the table for ``least`` victims, or about as many, and for more in a large one. Takes no lock.

        It takes nothing that was stored since it began: that may be older than what is stored while it goes on.
        """
        begun = self._slots.tick()
        latest = min(self._threshold(least), begun)
        found = self._scan(latest)
        self._found = (latest, found) if found else (begun, self._scan(begun))

    def refill_all(self) -> None:
        """The same with all slots as candidates: for who takes only some of them."""
        begun = self._slots.tick()
        self._found = begun, self._scan(begun)

    def settled(self) -> Iterator[int]:
        """All slots, the least recently used first, as one scan under the writer's turn finds them.

        For when readers use every victim before it is evicted: a use that comes after this scan is too late.
        """
        return (slot for _, slot in self._scan(FREE - 1))

    def _scan(self, latest: int) -> deque[tuple[int, int]]:
        return deque(sorted(pair for chunk in self._slots.chunks() for pair in self._among(latest, *chunk)))

    def _among(self, latest: int, slots: range, ticks: list[int], domains: list[int]) -> list[tuple[int, int]]:
        wanted = self._domain
        return [
            (tick, slot)
            for tick, slot, domain in zip(ticks, slots, domains, strict=True)
            if tick <= latest and tick and (wanted is None or domain == wanted)  # first what most are not
        ]

    def _threshold(self, least: int) -> int:
        """A tick that one in `SHARE` of the entries does not exceed, or ``least`` and some more: about so many.

        Any tick where there are few entries.
        """
        sample = self._slots.sample(_SAMPLE)
        words = self._slots.words  # after the sample, which maps what others have added to the table
        ticks = [words[slot] for slot in sample if self._domain in (None, words[slot + DOMAIN])]
        used = sorted(tick for tick in ticks if 0 < tick < FREE)
        place = max(len(used) // SHARE, 2 * least * _SAMPLE // self._slots.capacity)
        return used[place] if place < len(used) and len(used) >= _SAMPLE // SHARE else FREE - 1
