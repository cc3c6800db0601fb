"""Keys in the order of their use, and entries taken out: what iteration, ``pop`` and ``popitem`` of a mapping need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias

from batche._types import Entry, Key
from batche.stores.lmdb import records, totals
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.following import MOST_KEYS
from batche.stores.lmdb.records import CLAIM, ENTRY, pack_slot
from batche.stores.lmdb.slots import Slots
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.writing import Writing, entry_keys, namespace_of

_MOST_HUNTS: Final = 3
"""Scans whose candidates may all have been used meanwhile, before one scan is made with the writer's turn."""

Taken: TypeAlias = tuple[Key, Entry] | None


class Write(Protocol):
    """Runs a function in a write transaction; ``undo`` is called where that was not committed."""

    def __call__(self, body: Callable[[Writing], Taken], /, *, undo: Callable[[], object]) -> Taken: ...


Read: TypeAlias = Callable[[Callable[[Transaction], list[Key]]], list[Key]]


def keys_by_use(slots: Slots, domain: int | None, namespace: bytes, read: Read) -> list[Key]:
    """The keys of a namespace, the least recently used first, read in pieces of one transaction each.

    The keys are walked in their own order, in which none moves, so that each that stays is found once; the slots,
    which entries change as they are replaced, only say in which order they come.
    """
    position = {key: number for number, key in enumerate(_keys_of_slots(slots, domain, read))}
    keys: list[Key] = []
    more = True
    while more:
        piece = read(partial(_walk, namespace, keys[-1] if keys else b""))
        keys += piece
        more = len(piece) == MOST_KEYS
    latest = len(position)  # stored or replaced since: whatever is used comes after what is not
    return sorted(keys, key=lambda key: position.get(key, latest))


def _walk(namespace: bytes, after: bytes, transaction: Transaction) -> list[Key]:
    return entry_keys(transaction, namespace, after, MOST_KEYS)


def _keys_of_slots(slots: Slots, domain: int | None, read: Read) -> Iterable[Key]:
    by_use = list(Candidates(slots, domain).settled())
    for start in range(0, len(by_use), MOST_KEYS):
        yield from read(partial(_read_slots, by_use[start : start + MOST_KEYS]))


def _read_slots(slots: Sequence[int], transaction: Transaction) -> list[Key]:
    return [key for key in (transaction.get(pack_slot(slot)) for slot in slots) if key is not None]


def take(keys: Sequence[Key], writing: Writing) -> list[Entry | None]:
    """Remove the entries of ``keys``, all of one namespace, void their claims, and return them."""
    epoch = totals.read_epoch(writing.transaction, namespace_of(keys[0]))
    return [_take_one(key, epoch, writing) for key in keys]


def _take_one(key: Key, epoch: int, writing: Writing) -> Entry | None:
    raw = writing.transaction.get(ENTRY + key)
    writing.transaction.delete(CLAIM + key)
    writing.remove(key)
    record = records.unpack_record(raw) if raw is not None else None
    return (record.value, record.stored) if record is not None and record.epoch == epoch else None


class Oldest:
    """Takes the least recently used entries of one namespace, whatever others of its domain are older still."""

    def __init__(self, slots: Slots, domain: int | None, namespace: bytes) -> None:
        self._candidates = Candidates(slots, domain)
        # Where others are in the domain too, the oldest of all may hold none of this namespace.
        self._refill = self._candidates.refill if domain is not None else self._candidates.refill_all
        self._namespace = namespace

    def take(self, write: Write) -> Taken:
        """Remove and return the entry; `None` where the namespace has none. Each goes to one taker."""
        for _ in range(_MOST_HUNTS):
            while len(self._candidates):
                taken = write(self._take_candidate, undo=self._candidates.put_back)
                if taken is not None:
                    return taken
            self._refill()
        return write(self._take_now, undo=self._candidates.put_back)

    def _take_candidate(self, writing: Writing) -> Taken:
        """Take one of the next candidates, unless they were all used since they were found."""
        self._candidates.settle()
        for _ in range(MOST_KEYS):
            slot = self._candidates.pop()
            if slot is None:
                return None
            taken = self._take_slot(slot, writing)
            if taken is not None:
                return taken
        return None

    def _take_now(self, writing: Writing) -> Taken:
        """The same by a scan under the writer's turn: a use that comes after it is too late."""
        if not entry_keys(writing.transaction, self._namespace, b"", 1):
            return None
        found = (self._take_slot(slot, writing) for slot in self._candidates.settled())
        return next((taken for taken in found if taken is not None), None)

    def _take_slot(self, slot: int, writing: Writing) -> Taken:
        key = writing.transaction.get(pack_slot(slot))
        if key is None or not key.startswith(self._namespace):
            return None
        raw = writing.transaction.get(ENTRY + key)
        if raw is None or records.slot_of(raw) != slot:
            return None  # the slot is free; its key has another by now
        entry = take([key], writing)[0]
        return (key, entry) if entry is not None else None
