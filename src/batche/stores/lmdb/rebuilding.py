"""The first use after a boot: ticks go on where they stood, and the slot table fits the entries again.

A durable store keeps its entries over a crash of the system, but the table beside them is not synced at each commit,
only when it grows: what it says may be older than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from batche._types import NAMESPACE_BYTES, Key
from batche.stores.lmdb import mark, records
from batche.stores.lmdb.following import MOST_KEYS
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.reading import PIECE
from batche.stores.lmdb.records import ENTRY, SLOT, unpack_index, unpack_record
from batche.stores.lmdb.slots import DOMAIN, FREE, GENERATION, Slots
from batche.stores.lmdb.transaction import Transaction

_Used = tuple[int, Key]
"""A slot, and the key under which its entry is."""


def after_boot(opened: OpenEnvironment, boot: int, domain_of: Callable[[bytes], bytes]) -> None:
    """Do what is due at the first use in ``boot``, unless it is done. The caller is the only writer.

    ``domain_of`` tells the domain of a namespace. Readers are not held up.
    """
    if opened.slots.boot != boot:
        if opened.mark is not None and mark.read(opened.path) == mark.DURABLE:
            _rebuild(opened, domain_of)
        opened.slots.set_clock(boot)


def _rebuild(opened: OpenEnvironment, domain_of: Callable[[bytes], bytes]) -> None:
    """Give each entry its words. What the table says of an entry that it knows stays."""
    start = SLOT
    while used := opened.lmdb.read(partial(_used_from, start)):
        opened.slots.ensure(used[-1][0])
        lost = [pair for pair in used if not _is_known(opened.slots, *pair, domain_of)]
        for at in range(0, len(lost), PIECE):
            _restore(opened, lost[at : at + PIECE], domain_of)
        start = records.pack_slot(used[-1][0] + 1)
    for slot in opened.lmdb.read(_free):
        opened.slots.ensure(slot)
        opened.slots.free(slot)


def _used_from(start: bytes, transaction: Transaction) -> list[_Used]:
    """The next slots that have, or had, an entry."""
    cursor = transaction.cursor()
    used: list[_Used] = []
    there = cursor.set_range(start)
    while there and len(used) < MOST_KEYS and cursor.key().startswith(SLOT):
        used.append((unpack_index(cursor.key()[len(SLOT) :]), cursor.value()))
        there = cursor.next()
    return used


def _free(transaction: Transaction) -> list[int]:
    cursor = transaction.cursor()
    free: list[int] = []
    there = cursor.set_range(records.FREE)
    while there and cursor.key().startswith(records.FREE):
        free.append(unpack_index(cursor.key()[len(records.FREE) :]))
        there = cursor.next()
    return free


def _is_known(table: Slots, slot: int, key: Key, domain_of: Callable[[bytes], bytes]) -> bool:
    words = table.words
    return 0 < words[slot] < FREE and words[slot + DOMAIN] == _domain_word(key, domain_of)


def _domain_word(key: Key, domain_of: Callable[[bytes], bytes]) -> int:
    return int.from_bytes(domain_of(key[:NAMESPACE_BYTES]), "big")


def _restore(opened: OpenEnvironment, lost: Sequence[_Used], domain_of: Callable[[bytes], bytes]) -> None:
    """Write the words of slots that the table does not know: used when they were stored."""
    raws = opened.lmdb.read(lambda transaction: [transaction.get(ENTRY + key) for _, key in lost])
    words = opened.slots.words
    for (slot, key), raw in zip(lost, raws, strict=True):
        record = unpack_record(raw) if raw is not None else None
        if record is None or record.slot != slot:
            words[slot] = FREE
        else:
            words[slot + GENERATION], words[slot + DOMAIN] = record.generation, _domain_word(key, domain_of)
            words[slot] = record.stored
