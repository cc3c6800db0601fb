"""The lazy LRU: recency in a table without a lock, victims by a scan without a lock, checked again before they go.

Readers take a tick, read, and store the tick in the entry's slot; writers scan the table slot by slot, evict, fill a
slot, commit, and free what was freed. Each may be killed between any two of these. One entry is *less recent* than
another where its last use had ended before a finished use of the other began: that one must then not be evicted.
Uses that overlap in time may count in either order. Ghosts: when uses began and ended, and which entry a copy is of.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from tests.model._checker import FAULT, State, stands_for

FREE = 1 << 30
"""The tick of a slot without an entry."""
NO = -1


class Entry(NamedTuple):
    slot: int
    generation: int


class Reader(NamedTuple):
    """``at``: 0 idle, 1 has its tick, 2 has read, 3 has looked at its slot. ``copy`` is what it keeps decoded."""

    at: int
    key: int
    moment: int
    entry: Any  # an `Entry`, or ()
    larger: int
    left: int
    copy: tuple[int, ...]


class Step(IntEnum):
    IDLE = 0
    SCANNING = 1
    EVICTING = 2
    FILLING = 3
    COMMITTING = 4
    FREEING = 5


class Writer(NamedTuple):
    """``queue`` and ``scanned`` are pairs of tick and slot; ``victims`` are keys and their slots."""

    at: Step
    key: int
    left: int
    latest: int
    place: int
    scanned: tuple[tuple[int, int], ...]
    queue: tuple[tuple[int, int], ...]
    hunts: int
    victim: int
    freed: int
    slot: int
    generation: int


class World(NamedTuple):
    """``used`` is, for each key, when its last use began and when it ended; ``kept`` is what is committed."""

    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    ticks: tuple[int, ...]
    generations: tuple[int, ...]
    kept: tuple[Any, ...]  # each an `Entry`, or ()
    keys: tuple[int, ...]  # the key that each slot was last given to
    free: int  # slots that are written down as free
    next_generation: int
    used: tuple[tuple[int, int], ...]
    clock: int
    deletes: int
    crashes: int
    wrong: str


class Recency:
    """The model: ``maxsize`` entries of ``keys`` keys. ``flaws`` names what is left out, to see that it is noticed."""

    MOST_HUNTS = 1

    def __init__(
        self,
        *,
        keys: int = 3,
        maxsize: int = 2,
        readers: int = 1,
        reads: int = 1,
        writers: int = 1,
        writes: int = 1,
        deletes: int = 0,
        crashes: int = 0,
        copies: bool = False,
        flaws: frozenset[str] = frozenset(),
    ) -> None:
        self.name = f"recency: {maxsize} of {keys} entries, {readers} readers x {reads}, {writers} writers x {writes}"
        self.name += (
            (", copies" if copies else "")
            + (f", deletes {deletes}" if deletes else "")
            + (f", crashes {crashes}" if crashes else "")
        )
        self._keys, self._maxsize, self._flaws = keys, maxsize, flaws
        self._readers, self._reads, self._writers, self._writes = readers, reads, writers, writes
        self._copies = copies
        self._crashes, self._deletes = crashes, deletes
        self._slots = maxsize + 1

    # ---- what the checker asks for ----

    def begin(self) -> Iterator[World]:
        """A full store, its entries stored one after the other."""
        full = range(self._maxsize)
        rest = range(self._maxsize, self._keys)
        yield World(
            (Reader(0, NO, 0, (), 0, self._reads, ()),) * self._readers,
            (Writer(Step.IDLE, NO, self._writes, 0, 0, (), (), 0, NO, NO, NO, 0),) * self._writers,
            (*(number + 1 for number in full), FREE),
            (*(number + 1 for number in full), 0),
            (*(Entry(number, number + 1) for number in full), *(() for _ in rest)),
            (*full, NO),
            0,
            self._maxsize + 1,
            (*((number + 1, number + 1) for number in full), *((0, 0) for _ in rest)),
            self._maxsize,
            self._deletes,
            self._crashes,
            "",
        )

    def is_over(self, world: World) -> bool:
        return all(one.at == 0 for one in world.readers) and all(one.at is Step.IDLE for one in world.writers)

    def wrong(self, world: World) -> str | None:
        if world.wrong:
            return world.wrong
        if any(one.at >= Step.FILLING for one in world.writers):
            return None
        entries = [entry for entry in world.kept if entry]
        if len({entry.slot for entry in entries}) < len(entries):
            return "two entries share a slot"
        if len(entries) > self._maxsize:
            return "more entries than maxsize"
        lost = [entry for entry in entries if world.ticks[entry.slot] == FREE]
        return f"the entry in slot {lost[0].slot} can never be evicted" if lost else None

    def canonical(self, world: World) -> State:
        """Of moments only the order counts; readers are alike, and writers."""
        moments = {0, *world.ticks, world.clock}
        moments.update(*world.used)
        for reader in world.readers:
            moments.update((reader.moment, reader.larger))
        for writer in world.writers:
            moments.add(writer.latest)
            moments.update(tick for tick, _ in (*writer.scanned, *writer.queue))
        moments.discard(FREE)
        names = {moment: number for number, moment in enumerate(sorted(moments))} | {FREE: FREE}

        def pairs(queue: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
            return tuple((names[tick], slot) for tick, slot in queue)

        readers = [one._replace(moment=names[one.moment], larger=names[one.larger]) for one in world.readers]
        writers = [
            one._replace(latest=names[one.latest], scanned=pairs(one.scanned), queue=pairs(one.queue))
            for one in world.writers
        ]
        return world._replace(
            readers=tuple(sorted(readers)),
            writers=tuple(sorted(writers)),
            ticks=tuple(names[tick] for tick in world.ticks),
            used=tuple((names[begun], names[ended]) for begun, ended in world.used),
            clock=names[world.clock],
        )

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        for number, reader in enumerate(world.readers):
            yield from self._reading(world, number, reader)
            if reader.at and world.crashes:
                yield (
                    f"{FAULT}reader {number} is killed",
                    self._reader(world, number, self._idle(reader, copy=()), crash=1),
                )
        for number, writer in enumerate(world.writers):
            yield from self._writing(world, number, writer)
            if writer.at and world.crashes:
                yield f"{FAULT}writer {number} is killed", self._killed(world, number, writer)

    # ---- readers ----

    @stands_for("stores.lmdb.store:LmdbStore.read", "stores.lmdb.reading:read_raw", "stores.lmdb.slots:Slots.tick")
    def _reading(self, world: World, number: int, reader: Reader) -> Iterator[tuple[str, World]]:
        if reader.at == 0:
            if reader.left:
                now = world._replace(clock=world.clock + 1)
                for key in range(self._keys):
                    begun = reader._replace(at=1, key=key, moment=now.clock, left=reader.left - 1)
                    yield f"{FAULT}reader {number} takes a tick for key {key}", self._reader(now, number, begun)
            if reader.copy:
                yield f"{FAULT}reader {number} serves its copy", self._serve(world, number, reader)
        elif reader.at == 1:
            entry = world.kept[reader.key]
            read = self._idle(reader, copy=reader.copy)
            if entry:
                copy = (reader.key, *entry) if self._copies else ()
                read = reader._replace(at=2, entry=entry, copy=copy)
            yield f"reader {number} reads key {reader.key}", self._reader(world, number, read)
        elif reader.at == 2:
            larger = max(world.ticks[reader.entry[0]], reader.moment)
            if "ticks go back" in self._flaws:
                larger = reader.moment
            looked = reader._replace(at=3, larger=larger)
            if "look and store are two" in self._flaws:
                yield f"reader {number} looks at its slot", self._reader(world, number, looked)
            else:
                yield f"reader {number} notes its use", self._note(world, number, looked)
        else:
            yield f"reader {number} stores its tick", self._note(world, number, reader)

    @stands_for("stores.lmdb.reading:unpack")
    def _note(self, world: World, number: int, reader: Reader) -> World:
        ticks = self._set(world.ticks, reader.entry[0], reader.larger)
        world = world._replace(ticks=ticks, clock=world.clock + 1)
        if world.kept[reader.key] == reader.entry:
            begun = max(world.used[reader.key][0], reader.moment)
            world = world._replace(used=self._set(world.used, reader.key, (begun, world.clock)))
        return self._reader(world, number, self._idle(reader, copy=reader.copy))

    @stands_for("stores.lmdb.slots:Slots.outdate")
    def _serve(self, world: World, number: int, reader: Reader) -> World:
        """A decoded copy is served only while its slot has the generation that its record had."""
        key, slot, generation = reader.copy
        if world.generations[slot] == generation and world.kept[key] != reader.copy[1:]:
            return world._replace(wrong=f"a copy of key {key} is served after its entry has gone")
        return self._reader(world, number, reader._replace(copy=()))

    def _idle(self, reader: Reader, *, copy: tuple[int, ...]) -> Reader:
        return Reader(0, NO, 0, (), 0, reader.left, copy)

    # ---- writers ----

    def _writing(self, world: World, number: int, writer: Writer) -> Iterator[tuple[str, World]]:
        has_turn = all(one.at <= Step.EVICTING for one in world.writers)
        match writer.at:
            case Step.IDLE:
                if writer.left:
                    for key in range(self._keys):
                        if not world.kept[key]:
                            begun = writer._replace(at=Step.EVICTING, key=key, left=writer.left - 1, hunts=0)
                            yield f"{FAULT}writer {number} comes with key {key}", self._writer(world, number, begun)
                if world.deletes and has_turn:
                    yield from self._delete(world, number, writer)
            case Step.SCANNING:
                yield f"writer {number} scans slot {writer.place}", self._scan(world, number, writer)
            case Step.EVICTING if has_turn:
                yield from self._evict(world, number, writer)
            case Step.FILLING:
                yield f"writer {number} fills a slot", self._fill(world, number, writer)
            case Step.COMMITTING:
                yield f"writer {number} commits", self._commit(world, number, writer)
            case Step.FREEING:
                yield f"writer {number} frees what was freed", self._free(world, number, writer)

    @stands_for("stores.lmdb.removing:delete", "stores.lmdb.writing:Writing.remove")
    def _delete(self, world: World, number: int, writer: Writer) -> Iterator[tuple[str, World]]:
        for key, entry in enumerate(world.kept):
            if entry:
                gone = writer._replace(at=Step.COMMITTING, victim=key, freed=entry.slot)
                outdated = self._outdated(world, entry.slot)._replace(deletes=world.deletes - 1)
                yield f"{FAULT}writer {number} deletes key {key}", self._writer(outdated, number, gone)

    @stands_for("stores.lmdb.eviction:Candidates.refill", "stores.lmdb.eviction:Candidates._threshold")
    def _refill(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        """Begin a scan, for any threshold that a sample may come to, but nothing that is stored from now on."""
        world = world._replace(clock=world.clock + 1)
        thresholds = {tick for tick in world.ticks if 0 < tick < FREE} | {world.clock}
        for latest in sorted(thresholds):
            begun = writer._replace(
                at=Step.SCANNING, latest=latest, place=0, scanned=(), queue=(), hunts=writer.hunts + 1
            )
            yield self._writer(world, number, begun)

    @stands_for("stores.lmdb.eviction:Candidates._scan", "stores.lmdb.slots:Slots.chunks")
    def _scan(self, world: World, number: int, writer: Writer) -> World:
        """Look at one slot; after the last one what was found is sorted."""
        tick, found = world.ticks[writer.place], writer.scanned
        if 0 < tick <= writer.latest:
            found = (*found, (tick, writer.place))
        if writer.place + 1 < self._slots:
            return self._writer(world, number, writer._replace(place=writer.place + 1, scanned=found))
        order = found if "not sorted" in self._flaws else tuple(sorted(found))
        done = writer._replace(at=Step.EVICTING, place=0, scanned=(), queue=order)
        return self._writer(world, number, done)

    @stands_for(
        "stores.lmdb.putting:Putting._make_room",
        "stores.lmdb.writing:Writing.make_room",
        "stores.lmdb.eviction:Candidates.pop",
        "stores.lmdb.eviction:Candidates.settled",
    )
    def _evict(self, world: World, number: int, writer: Writer) -> Iterator[tuple[str, World]]:
        """Under the turn: take candidates until one is as it was when it was scanned; else scan again."""
        if world.kept[writer.key]:  # somebody else stored it meanwhile
            yield f"writer {number} finds its key", self._writer(world, number, self._done(writer))
            return
        queue = list(writer.queue)
        if writer.hunts > self.MOST_HUNTS:
            queue = sorted((tick, slot) for slot, tick in enumerate(world.ticks) if 0 < tick < FREE)
        while sum(map(bool, world.kept)) >= self._maxsize:
            if not queue:
                for scanning in self._refill(world, number, writer):
                    yield f"writer {number} begins to scan", scanning
                return
            tick, slot = queue.pop(0)
            now = world.ticks[slot]
            if now != tick and "not looked at again" not in self._flaws:
                if now <= writer.latest and "passed over" not in self._flaws:
                    insort(queue, (now, slot))
                continue
            key = world.keys[slot]
            entry = world.kept[key] if key != NO else ()
            if entry and entry.slot == slot:
                left = () if writer.hunts > self.MOST_HUNTS else tuple(queue)
                following = writer._replace(at=Step.FILLING, queue=left, victim=key, freed=slot)
                evicted = self._judged(self._outdated(world, slot), key)
                yield f"writer {number} evicts key {key}", self._writer(evicted, number, following)
                return
            world = world._replace(
                ticks=self._set(world.ticks, slot, FREE)
            )  # left by whom a crash kept from its commit
        yield (
            f"writer {number} finds room",
            self._writer(world, number, writer._replace(at=Step.FILLING, queue=tuple(queue))),
        )

    def _judged(self, world: World, key: int) -> World:
        """Whether the victim is the least recent of all, as far as uses that have ended can tell."""
        busy = {reader.key for reader in world.readers if reader.at}
        less = [
            other
            for other, entry in enumerate(world.kept)
            if entry and other != key and other not in busy and world.used[other][1] < world.used[key][0]
        ]
        wrong = f"key {key} is evicted though key {less[0]} is less recent" if less else ""
        return world._replace(wrong=wrong)

    @stands_for(
        "stores.lmdb.writing:Writing._evict", "stores.lmdb.writing:Writing._vacate", "stores.lmdb.slots:Slots.outdate"
    )
    def _outdated(self, world: World, slot: int) -> World:
        if "outdated after the commit" in self._flaws:
            return world
        ticks = self._set(world.ticks, slot, FREE) if "freed before the commit" in self._flaws else world.ticks
        return world._replace(ticks=ticks, generations=self._set(world.generations, slot, world.generations[slot] + 1))

    @stands_for(
        "stores.lmdb.writing:Writing.add_all", "stores.lmdb.writing:Writing._take_slots", "stores.lmdb.slots:Slots.fill"
    )
    def _fill(self, world: World, number: int, writer: Writer) -> World:
        """A slot freed just now, one freed before, or a new one; filled before the commit."""
        known = [slot for slot in range(self._slots) if world.free >> slot & 1]
        fresh = [slot for slot in range(self._slots) if world.keys[slot] == NO]
        slot = next(slot for slot in [*([writer.freed] if writer.freed != NO else []), *known, *fresh])
        generation, clock = world.next_generation, world.clock + 1
        if "outdated after the commit" not in self._flaws:
            world = world._replace(generations=self._set(world.generations, slot, generation))
        filled = writer._replace(at=Step.COMMITTING, slot=slot, generation=generation)
        return self._writer(world._replace(ticks=self._set(world.ticks, slot, clock), clock=clock), number, filled)

    @stands_for("stores.lmdb.upkeep:Upkeep.commit", "stores.lmdb.writing:Writing.finish")
    def _commit(self, world: World, number: int, writer: Writer) -> World:
        kept, used = list(world.kept), list(world.used)
        if writer.victim != NO:
            kept[writer.victim], used[writer.victim] = (), (0, 0)
        if writer.slot == NO:
            world = world._replace(kept=tuple(kept), used=tuple(used), free=world.free | 1 << writer.freed)
            return self._writer(world, number, writer._replace(at=Step.FREEING))
        kept[writer.key] = Entry(writer.slot, writer.generation)
        moment = world.ticks[writer.slot]
        used[writer.key] = (moment, world.clock + 1)
        world = world._replace(
            kept=tuple(kept),
            used=tuple(used),
            keys=self._set(world.keys, writer.slot, writer.key),
            free=world.free & ~(1 << writer.slot),
            next_generation=world.next_generation + 1,
            clock=world.clock + 1,
        )
        return self._writer(world, number, writer._replace(at=Step.FREEING))

    @stands_for("stores.lmdb.slots:Slots.free", "stores.lmdb.upkeep:Upkeep.commit")
    def _free(self, world: World, number: int, writer: Writer) -> World:
        if writer.slot == NO:
            world = world._replace(ticks=self._set(world.ticks, writer.freed, FREE))
        elif "outdated after the commit" in self._flaws:
            world = world._replace(generations=self._set(world.generations, writer.slot, writer.generation))
        return self._writer(world, number, self._done(writer))

    def _done(self, writer: Writer) -> Writer:
        """Idle, with the candidates that are left for the next time."""
        latest = writer.latest if writer.queue else 0
        return Writer(Step.IDLE, NO, writer.left, latest, 0, (), writer.queue, 0, NO, NO, NO, 0)

    def _killed(self, world: World, number: int, writer: Writer) -> World:
        """What it wrote to the table stays, what it wrote to a transaction is gone.

        The limit: an entry whose slot it had filled already is as recent as if it had been used.
        """
        if writer.at is Step.COMMITTING and NO not in (writer.victim, writer.slot):
            clock = world.clock + 1
            world = world._replace(
                clock=clock, used=self._set(world.used, writer.victim, (world.used[writer.victim][0], clock))
            )
        gone = self._done(writer._replace(left=0, queue=()))
        return self._writer(world._replace(crashes=world.crashes - 1), number, gone)

    # ---- parts ----

    def _reader(self, world: World, number: int, reader: Reader, *, crash: int = 0) -> World:
        return world._replace(readers=self._set(world.readers, number, reader), crashes=world.crashes - crash)

    def _writer(self, world: World, number: int, writer: Writer) -> World:
        return world._replace(writers=self._set(world.writers, number, writer))

    def _set(self, values: tuple[Any, ...], place: int, value: object) -> tuple[Any, ...]:
        return (*values[:place], value, *values[place + 1 :])
