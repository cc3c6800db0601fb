"""One write transaction on entries: what it changes is collected here, and written back at its end.

Everything here runs under the writer's turn, inside the transaction. The slot table is changed before the commit
where a stale copy could otherwise be served, and after it where a slot becomes free.
"""

from __future__ import annotations

from batche._types import KEY_BYTES, NAMESPACE_BYTES, Key
from batche.stores.lmdb import records
from batche.stores.lmdb.environment import Transaction
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.records import CLAIM, DOMAIN, ENTRY, FREE, GLOBAL, SLOT, Domain
from batche.stores.lmdb.slots import Slots


class Writing:
    """The state of one transaction for one domain."""

    def __init__(self, transaction: Transaction, slots: Slots, domain: bytes) -> None:
        self.transaction = transaction
        self.slots = slots
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
        self._may_reuse = True  # until the table of free slots is found empty

    # ---- entries ----

    def has_room(self, size: int, max_bytes: int) -> bool:
        """Whether an entry of ``size`` bytes fits beside what is there."""
        maxsize = self.limits.maxsize
        return (maxsize < 0 or self.entries < maxsize) and self.bytes + size <= max_bytes

    def add(self, key: Key, value: bytes, tick: int, stored: int, epoch: int) -> None:
        """Write an entry. There is room for it."""
        self.remove(key)
        slot = self._take_slot()
        generation = self._generation
        self._generation += 1
        self.transaction.put(ENTRY + key, records.pack_record(slot, generation, stored, epoch, value))
        self.transaction.put(SLOT + records.pack_index(slot), key)
        self.slots.fill(slot, tick, generation, self._domain_word)
        self.entries += 1
        self.bytes += records.size_of(len(value))

    def remove(self, key: Key) -> bool:
        """Remove the entry of ``key``, if there is one."""
        raw = self.transaction.pop(ENTRY + key)
        if raw is None:
            return False
        self.entries -= 1
        self.bytes -= records.size_of(len(raw) - records.HEAD_BYTES)
        record = records.unpack_record(raw)
        if record is not None:  # a damaged one cannot tell its slot, which stays out of use
            self.slots.outdate(record.slot)
            self._freed.append(record.slot)
        return True

    def make_room(self, size: int, max_bytes: int, victims: Candidates) -> bool:
        """Evict the least recent entries until ``size`` bytes fit; `False` where new victims must be looked for."""
        while not self.has_room(size, max_bytes):
            slot = victims.pop()
            if slot is None:
                return False
            self._evict(slot)
        return True

    def _evict(self, slot: int) -> None:
        key = self.transaction.get(SLOT + records.pack_index(slot))
        raw = self.transaction.get(ENTRY + key) if key is not None else None
        record = records.unpack_record(raw) if raw is not None else None
        if key is None or record is None or record.slot != slot:
            self.slots.free(slot)  # left by a transaction that was never committed
            return
        self.remove(key)
        self.evictions += 1

    # ---- slots ----

    def _take_slot(self) -> int:
        slot = self._freed.pop() if self._freed else self._reuse()
        if slot is None:
            slot, self._fresh = self._fresh, self.slots.after(self._fresh)
        self.slots.ensure(slot)
        return slot

    def _reuse(self) -> int | None:
        """A slot that an earlier transaction freed."""
        if not self._may_reuse:
            return None
        cursor = self.transaction.cursor()
        if not cursor.set_range(FREE) or not cursor.key().startswith(FREE):
            self._may_reuse = False
            return None
        slot = records.unpack_index(cursor.key()[len(FREE) :])
        cursor.delete()
        return slot

    # ---- the end ----

    def forget(self) -> None:
        """Remove the domain, which has no entries left."""
        self.transaction.delete(self._domain_key)
        self.limits = self._before = self.limits._replace(entries=self.entries, bytes=self.bytes, evictions=self.evictions)

    def finish(self) -> list[int]:
        """Write back what has changed; returns the slots that are free once this is committed."""
        for slot in self._freed:
            self.transaction.put(FREE + records.pack_index(slot), b"")
        counted = self.limits._replace(entries=self.entries, bytes=self.bytes, evictions=self.evictions)
        if counted != self._before:
            self.transaction.put(self._domain_key, records.pack_domain(counted))
        if (self._generation, self._fresh) != self._allotted:
            self.transaction.put(GLOBAL, records.pack_global(self._generation, self._fresh))
        return self._freed


def keys_of(transaction: Transaction, kind: bytes, namespace: bytes, after: bytes, most: int) -> list[Key]:
    """Up to ``most`` keys of a namespace that have a record of ``kind`` (an entry or a claim), past ``after``."""
    prefix = kind + namespace
    cursor = transaction.cursor()
    found: list[Key] = []
    there = cursor.set_range(kind + after if after else prefix)
    while there and len(found) < most and cursor.key().startswith(prefix):
        key = cursor.key()[len(kind) :]
        if key != after:
            found.append(key)
        there = cursor.next()
    return found


def claimed_keys(transaction: Transaction, most: int) -> list[tuple[Key, bytes]]:
    """Up to ``most`` claims of all namespaces, with their bytes."""
    cursor = transaction.cursor()
    found: list[tuple[Key, bytes]] = []
    there = cursor.set_range(CLAIM)
    while there and len(found) < most and cursor.key().startswith(CLAIM):
        if len(cursor.key()) == len(CLAIM) + KEY_BYTES:
            found.append((cursor.key()[len(CLAIM) :], cursor.value()))
        there = cursor.next()
    return found


def namespace_of(key: Key) -> bytes:
    """The namespace that a key begins with."""
    return key[:NAMESPACE_BYTES]
