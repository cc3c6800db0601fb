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
from typing import Final, NamedTuple

from batche.stores.lmdb.slots import DOMAIN, FREE, Slots

SHARE: Final = 8
"""A scan looks for this part of all entries (one in `SHARE`), so each eviction pays for `SHARE` slots of a scan."""
_SAMPLE: Final = 256
"""Slots that are looked at to choose a threshold."""


class Found(NamedTuple):
    """What a scan has found: what it did not take is younger than ``latest``, or was put back (see `Slots.undone`)."""

    latest: int
    queue: deque[tuple[int, int]]
    undone: int


class Candidates:
    """The next victims of one domain, oldest first.

    Taken, settled and put back under the writer's turn, refilled outside of it. A transaction begins by `settle`: what
    it finds taken was gone with the one before, from whose end a signal handler may have kept it.
    """

    def __init__(self, slots: Slots, domain: int | None) -> None:
        self._slots = slots
        self._domain = domain
        self._found = Found(0, deque(), 0)  # one attribute, because another thread may refill while one evicts
        self._taken: dict[int, int] = {}  # slots and their ticks

    def __len__(self) -> int:
        return len(self._found.queue)

    def pop(self) -> int | None:
        """The least recently used slot, as far as the last scan can tell; `None` where a new scan is needed.

        Each leaves the queue last of all, so that a signal handler which raises in between loses none.
        """
        words, (latest, queue, undone) = self._slots.words, self._found
        if undone != self._slots.undone:
            queue.clear()
        while queue:
            tick, slot = queue[0]
            now = words[slot]
            if slot in self._taken:  # another thread's scan has found it too, before its removal is committed
                queue.popleft()
            elif now == tick:
                self._taken[slot] = tick
                queue.popleft()
                return slot
            else:
                if now <= latest:  # a slow reader's use: its moment may be older than that of other candidates
                    insort(queue, (now, slot))
                queue.popleft()
        return None

    def settle(self) -> None:
        """Those taken are gone: their removal is committed."""
        self._taken.clear()

    def put_back(self) -> None:
        """Those taken are the oldest still: their removal was not committed."""
        self._found.queue.extendleft((tick, slot) for slot, tick in reversed(self._taken.items()))
        self._taken.clear()

    def provide(self, number: int, *, exhausted: bool) -> None:
        """Scan, if the victims of ``number`` entries that come next may run out: to find that out costs a transaction.

        An empty queue says nothing where nobody was ``exhausted`` so far: a store that is not full needs no victims. So
        it is not let become empty. By bytes an entry may need several victims; then a transaction is lost.
        """
        if exhausted or 0 < len(self) <= number:
            self.refill(number)

    def refill(self, least: int = 1) -> None:
        """Scan the table for ``least`` victims, or about as many, and for more in a large one. Takes no lock.

        It takes nothing that was stored since it began: that may be older than what is stored while it goes on.
        """
        begun, undone = self._slots.tick(), self._slots.undone
        latest = min(self._threshold(least), begun)
        found = self._scan(latest)
        self._found = Found(latest, found, undone) if found else Found(begun, self._scan(begun), undone)

    def refill_all(self) -> None:
        """The same with all slots as candidates: for who takes only some of them."""
        begun, undone = self._slots.tick(), self._slots.undone
        self._found = Found(begun, self._scan(begun), undone)

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
