"""One write transaction on entries: what it changes is collected here, and written back at its end.

Everything here runs under the writer's turn, inside the transaction. The slot table is changed before the commit
where a stale copy could otherwise be served, and after it where a slot becomes free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from batche._types import KEY_BYTES, NAMESPACE_BYTES, Key
from batche.stores.lmdb import records
from batche.stores.lmdb.records import CLAIM, DOMAIN, ENTRY, FREE, GLOBAL, Domain, pack_index, pack_slot, pack_slots
from batche.stores.lmdb.slots import Slots
from batche.stores.lmdb.transaction import Transaction

MOST_EVICTED: Final = 1024
"""Entries that one transaction evicts: a lowered limit may ask for far more, and a fork or a writer waits for it."""


class Writing:
    """The state of one transaction for one domain."""

    def __init__(self, transaction: Transaction, slots: Slots, domain: bytes) -> None:
        self.transaction = transaction
        self._pop = transaction.cursor().pop  # the transaction's own makes a cursor each time
        self.slots = slots
        self.domain = domain
        self._domain_key = DOMAIN + domain
        self._domain_word = int.from_bytes(domain, "big")
        self._before = records.unpack_domain(transaction.get(self._domain_key))
        self.limits: Domain = self._before
        self.entries = self._before.entries
        self.bytes = self._before.bytes
        self.evictions = self._before.evictions
        self._allotted = records.unpack_global(transaction.get(GLOBAL), slots.first)
        self._generation, self._fresh = self._allotted
        self._freed: list[int] = []
        self._filled: dict[int, int] = {}  # slots of new entries, and the ticks they were given
        self._noted: dict[int, tuple[int, int, int]] = {}  # what was in the table of the entries removed

    # ---- entries ----

    def has_room(self, entries: int, size: int, max_bytes: int) -> bool:
        """Whether ``entries`` of ``size`` bytes in all fit beside what is there."""
        maxsize = self.limits.maxsize
        return (maxsize < 0 or self.entries + entries <= maxsize) and self.bytes + size <= max_bytes

    def add_all(
        self, keys: Sequence[Key], values: Sequence[bytes], tick: int, stored: int, epoch: int, *, size: int
    ) -> None:
        """Write entries, of ``size`` bytes in all, for which there is room, in order of use from ``tick`` on."""
        slots = self._take_slots(len(keys))
        generation, self._generation = self._generation, self._generation + len(keys)
        names = [ENTRY + key for key in keys]

        def written() -> Iterable[tuple[bytes, bytes]]:  # the same each time
            return zip(names, records.pack_records(slots, generation, stored, epoch, values), strict=True)

        cursor = self.transaction.cursor()
        _, added = cursor.putmulti(written(), overwrite=False)
        if added < len(names):
            self._replace(written())
        cursor.putmulti(zip(pack_slots(slots), keys, strict=True))
        self._filled.update(zip(slots, range(tick, tick + len(slots)), strict=True))
        self.slots.fill(slots, tick, generation, self._domain_word)
        self.entries += len(keys)
        self.bytes += size

    def _replace(self, written: Iterable[tuple[bytes, bytes]]) -> None:
        """Write the records of keys that may have an entry already."""
        for name, record in written:
            if self.transaction.get(name) != record:
                self.remove(name[len(ENTRY) :])
                self.transaction.put(name, record)

    def remove(self, key: Key) -> bool:
        """Remove the entry of ``key``, if there is one."""
        raw = self._pop(ENTRY + key)
        if raw is None:
            return False
        self._count_out(raw)
        slot = records.slot_of(raw)  # one whose head is damaged cannot tell its slot, which stays out of use
        if slot is not None and self.transaction.get(pack_slot(slot)) == key:
            self._vacate([slot])
        return True

    def _count_out(self, raw: bytes) -> None:
        self.entries -= 1
        self.bytes -= records.size_of(len(raw) - records.OVERHEAD_BYTES)

    def _vacate(self, slots: Sequence[int]) -> None:
        """Have ``slots`` free once this is committed; from now on nobody serves a decoded copy of what was in them."""
        self._noted |= self.slots.note([slot for slot in slots if slot not in self._filled and slot not in self._noted])
        self.slots.outdate(slots)
        self._freed += slots

    def make_room(self, entries: int, size: int, max_bytes: int, pop: Callable[[], int | None]) -> bool:
        """Evict what ``pop`` gives until ``entries`` of ``size`` bytes fit, or one transaction evicted enough."""
        evicted: list[int] = []
        for _ in range(MOST_EVICTED):
            slot = None if self.has_room(entries, size, max_bytes) else pop()
            if slot is None:
                break
            if self._evict(slot):
                evicted.append(slot)
        self._vacate(evicted)  # only now: what raises before this leaves the table as it is
        return self.has_room(entries, size, max_bytes)

    def _evict(self, slot: int) -> bool:
        """Remove the entry that has ``slot``, if one has; else a transaction has left it that was never committed."""
        key = self.transaction.get(pack_slot(slot))
        raw = self._pop(ENTRY + key) if key is not None else None
        if raw is not None and records.slot_of(raw) == slot:
            self._count_out(raw)
            self.evictions += 1
            return True
        if raw is not None and key is not None:
            self.transaction.put(ENTRY + key, raw)
        self.slots.free(slot)
        return False

    # ---- slots ----

    def _take_slots(self, number: int) -> list[int]:
        """Slots for new entries: those freed just now, those freed before, and then new ones."""
        slots = [self._freed.pop() for _ in range(min(number, len(self._freed)))]
        slots += self._reuse(number - len(slots))
        fresh, self._fresh = self.slots.following(self._fresh, number - len(slots))
        slots += fresh
        self.slots.ensure(max(slots, default=0))
        return slots

    def _reuse(self, number: int) -> list[int]:
        """Up to ``number`` slots that earlier transactions freed."""
        cursor = self.transaction.cursor()
        slots: list[int] = []
        there = number > 0 and cursor.set_range(FREE)
        while there and len(slots) < number and cursor.key().startswith(FREE):
            slots.append(records.unpack_index(cursor.key()[len(FREE) :]))
            there = cursor.delete()
        return slots

    # ---- the end ----

    def touch(self) -> None:
        """Change nothing, in a transaction that is committed all the same."""
        self.transaction.put(GLOBAL, records.pack_global(*self._allotted))

    def undo(self) -> None:
        """Where nothing was committed: give each slot back to the entry that it still belongs to, or to none."""
        words = self.slots.words
        for slot, tick in self._filled.items():
            if words[slot] == tick:
                self.slots.free(slot)
        for slot, noted in self._noted.items():
            self.slots.restore(slot, *noted)
        if self._filled or self._noted:
            self.slots.undo()

    def forget(self) -> None:
        """Remove the domain, which has no entries left."""
        self.transaction.delete(self._domain_key)
        self.limits = self._before = self._counted()

    def _counted(self) -> Domain:
        """The domain as it is by now. Counts that were lost, and began anew, never end below nothing."""
        return self.limits._replace(entries=max(0, self.entries), bytes=max(0, self.bytes), evictions=self.evictions)

    def finish(self) -> list[int]:
        """Write back what has changed; returns the slots that are free once this is committed."""
        for slot in self._freed:
            self.transaction.put(FREE + pack_index(slot), b"")
        counted = self._counted()
        if counted != self._before:
            self.transaction.put(self._domain_key, records.pack_domain(counted))
        if (self._generation, self._fresh) != self._allotted:
            self.transaction.put(GLOBAL, records.pack_global(self._generation, self._fresh))
        return self._freed


def entry_keys(transaction: Transaction, namespace: bytes, after: bytes, most: int) -> list[Key]:
    """Up to ``most`` keys of a namespace that have an entry, past ``after``."""
    prefix = ENTRY + namespace
    cursor = transaction.cursor()
    found: list[Key] = []
    there = cursor.set_range(ENTRY + after if after else prefix)
    while there and len(found) < most and cursor.key().startswith(prefix):
        key = cursor.key()[len(ENTRY) :]
        if key != after:
            found.append(key)
        there = cursor.next()
    return found


def claimed_keys(transaction: Transaction, after: bytes, most: int) -> list[tuple[Key, bytes]]:
    """Up to ``most`` claims of all namespaces past key ``after``, with their bytes."""
    cursor = transaction.cursor()
    found: list[tuple[Key, bytes]] = []
    there = cursor.set_range(CLAIM + after)
    while there and len(found) < most and cursor.key().startswith(CLAIM):
        if len(cursor.key()) == len(CLAIM) + KEY_BYTES and cursor.key() != CLAIM + after:
            found.append((cursor.key()[len(CLAIM) :], cursor.value()))
        there = cursor.next()
    return found


def namespace_of(key: Key) -> bytes:
    """The namespace that a key begins with."""
    return key[:NAMESPACE_BYTES]
