"""Recency without a write transaction: a table of slots that every process maps.

Each entry has a slot of three words: the tick of its last use, its generation, and its domain. A hit stores the
current tick with one plain 8-byte store. Slots come in chunks of three arrays, so that a scan for the oldest
reads each array in one piece; a slot is named by the index of its tick word.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from batche._boot import boot_ns
from batche._trouble import StoreFullError
from batche.stores.lmdb.words import WORD, Words, allocate, open_file

CHUNK: Final = 1024
"""Slots of one chunk."""
GENERATION: Final = CHUNK
"""From a slot's tick word to the word of its generation."""
DOMAIN: Final = 2 * CHUNK
"""From a slot's tick word to the word of its domain."""
_CHUNK_WORDS: Final = 3 * CHUNK
HEADER_WORDS: Final = 512
IDENTITY: Final = HEADER_WORDS - 1
"""The word that says which environment the table is of."""
LEAST_BYTES: Final = (HEADER_WORDS + _CHUNK_WORDS) * WORD
_OFFSET, _COMMITS, _ENDED, _SWEPT, _BOOT, _WRITTEN, _LATEST, _MOURNING, _UNDONE = range(9)
FREE: Final = (1 << 64) - 1
"""The tick of a slot without an entry: later than any use, so that neither a hit nor a scan takes it up."""
_MASK: Final = (1 << 64) - 1


def new_table(directory: Path, identity: int = 0, *, inside: int | None = None) -> None:
    """Make the table of the new environment ``identity``: a header and one chunk of slots."""
    allocate(directory / "slots", LEAST_BYTES, mark=(IDENTITY, identity), inside=inside)


def boot_of(directory: Path, inside: int | None = None) -> int:
    """The boot in which a table was used last, read and not mapped; 0 where there is no whole header."""
    try:
        descriptor = open_file(directory / "slots", os.O_RDONLY, inside)
    except OSError:
        return 0
    try:
        return int.from_bytes(os.pread(descriptor, WORD, _BOOT * WORD), sys.byteorder)
    finally:
        os.close(descriptor)


class Slots:
    """The slot table of one environment. Everything but `use` and the reading of words is for writers."""

    def __init__(self, directory: Path, *, inside: int | None = None) -> None:
        self.table = Words(directory / "slots", head=HEADER_WORDS, unit=_CHUNK_WORDS, inside=inside)
        self.synced = False
        """Whether what the table grows by must survive a crash of the system."""

    @property
    def words(self) -> memoryview:
        """All words of the table; take it anew after an `IndexError`, which says that the table has grown."""
        return self.table.view

    def refresh(self) -> memoryview:
        """Map what other processes have added; returns the words."""
        self.table.refresh()
        return self.table.view

    def tick(self) -> int:
        """The moment of a use, in nanoseconds: the boot-time clock plus the table's offset, same in all processes."""
        return (boot_ns() + self.table.view[_OFFSET]) & _MASK

    def set_clock(self, boot: int) -> None:
        """At the first open after a boot, let ticks go on from the later of the wall clock and the last tick.

        ``boot`` tells boots apart. The caller holds the writer's lock.
        """
        words = self.table.view
        if words[_BOOT] != boot:
            last = max((tick for _, ticks, _ in self.chunks() for tick in ticks if tick != FREE), default=0)
            words[_OFFSET] = (max(time.time_ns(), last + 1) - boot_ns()) & _MASK
            words[_BOOT] = boot

    @property
    def boot(self) -> int:
        """The boot in which the clock was set last."""
        return self.table.view[_BOOT]

    def fill(self, slots: Sequence[int], tick: int, generation: int, domain: int) -> None:
        """Note the new entries of ``slots``, used one after the other from ``tick`` on. They are in the table."""
        words = self.table.view
        for slot, number, moment in zip(slots, count(generation), count(tick)):
            words[slot + GENERATION] = number
            words[slot + DOMAIN] = domain
            words[slot] = moment

    def _words_of(self, slots: Sequence[int]) -> memoryview:
        """The words, mapped anew where others have added those of ``slots``."""
        words = self.table.view
        return words if max(slots, default=0) + DOMAIN < len(words) else self.refresh()

    def note(self, slots: Sequence[int]) -> dict[int, tuple[int, int, int]]:
        """What `restore` takes to give each of ``slots`` back to the entry that it has now."""
        words = self._words_of(slots)
        return {slot: (words[slot], words[slot + GENERATION], words[slot + DOMAIN]) for slot in slots}

    def restore(self, slot: int, tick: int, generation: int, domain: int) -> None:
        """After a removal that was not committed: the slot is its entry's again. A use since then stays noted."""
        words = self.table.view
        words[slot + GENERATION] = generation
        words[slot + DOMAIN] = domain
        if words[slot] == FREE:
            words[slot] = tick

    def outdate(self, slots: Sequence[int]) -> None:
        """Before entries go: from now on nobody serves a decoded copy of them."""
        words = self._words_of(slots)
        for slot in slots:
            words[slot + GENERATION] = words[slot + GENERATION] + 1 & _MASK

    def free(self, slot: int) -> None:
        """After the commit that removed an entry."""
        self.table.view[slot] = FREE

    @property
    def first(self) -> int:
        """The first slot of a new table."""
        return HEADER_WORDS

    def following(self, slot: int, number: int) -> tuple[list[int], int]:
        """The ``number`` slots from ``slot`` on, which were never used, and the one that comes after them."""
        slots: list[int] = []
        while len(slots) < number:
            chunk, place = divmod(slot - HEADER_WORDS, _CHUNK_WORDS)
            run = min(number - len(slots), CHUNK - place)
            slots.extend(range(slot, slot + run))
            slot = slot + run if place + run < CHUNK else HEADER_WORDS + (chunk + 1) * _CHUNK_WORDS
        return slots, slot

    def ensure(self, slot: int) -> None:
        """Make sure that ``slot`` is in the table, which doubles, by at most 64 chunks. Under the writer's lock.

        Where there is no room for that many, one has to do.
        """
        if slot >= self._whole():
            self.table.refresh()
        while slot >= self._whole():
            chunks = self._chunks()
            try:
                self._grow(chunks + min(chunks, 64))
            except StoreFullError:
                self._grow(chunks + 1)

    def _grow(self, chunks: int) -> None:
        self.table.grow(HEADER_WORDS + chunks * _CHUNK_WORDS, synced=self.synced)

    def _chunks(self) -> int:
        """The number of whole chunks: a file system that filled up may have left a part of one more."""
        return (len(self.table) - HEADER_WORDS) // _CHUNK_WORDS

    def _whole(self) -> int:
        """Where the last whole chunk ends."""
        return HEADER_WORDS + self._chunks() * _CHUNK_WORDS

    @property
    def capacity(self) -> int:
        """How many slots the table has, as far as it is mapped."""
        return self._chunks() * CHUNK

    def chunks(self) -> Iterator[tuple[range, list[int], list[int]]]:
        """The table piece by piece: slots, their ticks, their domains. Takes no lock; all may have changed since."""
        words = self.refresh()
        for start in range(HEADER_WORDS, len(words) - _CHUNK_WORDS + 1, _CHUNK_WORDS):
            ticks = words[start : start + CHUNK].tolist()
            domains = words[start + DOMAIN : start + DOMAIN + CHUNK].tolist()
            yield range(start, start + CHUNK), ticks, domains

    def sample(self, number: int) -> list[int]:
        """``number`` slots, evenly spread over the table."""
        self.refresh()
        capacity = self.capacity
        places = (index * capacity // number for index in range(number))
        return [HEADER_WORDS + place // CHUNK * _CHUNK_WORDS + place % CHUNK for place in places]

    # ---- the header's signals ----

    @property
    def commits(self) -> int:
        """A number that every commit changes."""
        return self.table.view[_COMMITS]

    def committed(self) -> None:
        """Note a commit. The caller holds the writer's lock."""
        self.table.view[_COMMITS] = (self.table.view[_COMMITS] + 1) & _MASK
        self.table.view[_LATEST] = boot_ns()

    @property
    def undone(self) -> int:
        """A number that changes when a transaction is undone: a scan beside it saw its ticks, which are gone."""
        return self.table.view[_UNDONE]

    def undo(self) -> None:
        """Note it, once the slots are as they were. The caller holds the writer's lock."""
        self.table.view[_UNDONE] = (self.table.view[_UNDONE] + 1) & _MASK

    @property
    def idle(self) -> float:
        """Seconds since the last commit; where that was in an earlier boot, some number or other."""
        return (boot_ns() - self.table.view[_LATEST]) / 1e9

    @property
    def written(self) -> int:
        """What `batche.stores.lmdb.mark` notes of the last write; 0 where there was none since all was synced."""
        return self.table.view[_WRITTEN]

    @written.setter
    def written(self, how: int) -> None:
        self.table.view[_WRITTEN] = how

    def ended(self, serial: int) -> None:
        """Note that a call has ended with claims still written down."""
        self.table.view[_ENDED] = serial

    def to_sweep(self) -> int | None:
        """What to hand to `swept` once over claims are gone; `None` where there are none."""
        ended = self.table.view[_ENDED]
        return ended if ended != self.table.view[_SWEPT] else None

    @property
    def ended_last(self) -> int:
        """What the last `ended` noted."""
        return self.table.view[_ENDED]

    def swept(self, ended: int) -> None:
        """Note that the claims of every call that had ended at ``ended`` are gone."""
        self.table.view[_SWEPT] = ended

    @property
    def mourning(self) -> int:
        """The boot-time clock until which marked claims of the dead stay; 0 where there are none."""
        return self.table.view[_MOURNING]

    def mourn(self, until: int) -> None:
        """Set `mourning`. The caller holds the writer's lock."""
        self.table.view[_MOURNING] = until
