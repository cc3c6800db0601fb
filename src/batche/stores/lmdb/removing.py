"""Removing entries: some, or all of a namespace, in pieces that one transaction may hold.

A clear takes a call's word in the table of workers and is written down, until all is removed. So where it was killed or
failed on the way, the next writers see that, and go on with it, a piece in each transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from batche._types import Key
from batche.stores.lmdb import totals
from batche.stores.lmdb.following import MOST_BYTES, MOST_KEYS
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.records import CLAIM, CLAIM_BYTES, CLEARING, ENTRY, NAMESPACE, unpack_claim, unpack_record
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.workers import State, Workers
from batche.stores.lmdb.writing import Writing, entry_keys


def delete(keys: Sequence[Key], writing: Writing) -> int:
    """Remove the entries of ``keys`` and void their claims; the number of entries."""
    for key in keys:
        writing.transaction.delete(CLAIM + key)
    return sum(writing.remove(key) for key in keys)


def begin_clear(opened: OpenEnvironment, namespace: bytes, clear: bytes, writing: Writing) -> None:
    """Void all that is there, and write down that ``clear`` is about to remove it."""
    raise_epoch(opened, namespace, writing)
    writing.transaction.put(CLEARING + namespace, clear)


def raise_epoch(opened: OpenEnvironment, namespace: bytes, writing: Writing) -> None:
    """From here on no entry or claim of ``namespace`` counts; its counts begin at zero."""
    before = totals.read_totals(writing.transaction, namespace)
    living = totals.living_counts(writing.transaction, opened, namespace)
    zeroed = tuple(-number for number in living)
    totals.write_totals(writing.transaction, namespace, totals.Totals(before.epoch + 1, zeroed))
    if writing.domain == namespace:
        writing.evictions = 0


def clear_piece(namespace: bytes, last: bytes, writing: Writing) -> tuple[int, bytes | None]:
    """Remove entries of earlier epochs past key ``last``; the number, and where to go on, `None` at the end."""
    epoch = totals.read_epoch(writing.transaction, namespace)
    keys = entry_keys(writing.transaction, namespace, last, MOST_KEYS)
    removed, room = 0, MOST_BYTES
    for key in keys:
        raw = writing.transaction.get(ENTRY + key) or b""
        record = unpack_record(raw)
        if record is None or record.epoch != epoch:
            removed += writing.remove(key)
        room -= len(raw)
        if room < 0:
            return removed, key
    return removed, keys[-1] if len(keys) == MOST_KEYS else None


def clear_next(namespace: bytes, last: bytes, clear: bytes, writing: Writing) -> tuple[int, bytes | None]:
    """`clear_piece` for the one that is written down as ``clear``, unless another has begun since."""
    removed, last_now = clear_piece(namespace, last, writing)
    if last_now is None and writing.transaction.get(CLEARING + namespace) == clear:
        writing.transaction.delete(CLEARING + namespace)
    return removed, last_now


def left_undone(workers: Workers, transaction: Transaction) -> bytes | None:
    """A namespace whose clear has ended before all was removed, if there is one."""
    cursor = transaction.cursor()
    there = cursor.set_range(CLEARING)
    while there and cursor.key().startswith(CLEARING):
        clear = unpack_claim(cursor.value()[:CLAIM_BYTES])
        if clear is None or workers.state(clear.handle) is not State.RUNNING:
            return bytes(cursor.key()[len(CLEARING) :])
        there = cursor.next()
    return None


def go_on(namespace: bytes, writing: Writing) -> None:
    """Do a piece of a clear that was left undone."""
    name = CLEARING + namespace
    raw = writing.transaction.get(name) or b""
    clear, last = raw[:CLAIM_BYTES], raw[CLAIM_BYTES:]
    _, last_now = clear_piece(namespace, last if last.startswith(namespace) else b"", writing)
    if last_now is None:
        writing.transaction.delete(name)
    else:
        writing.transaction.put(name, clear + last_now)


def forget(opened: OpenEnvironment, namespace: bytes, writing: Writing) -> None:
    """Remove what is written of an empty namespace, but not what limits count of a whole store.

    What the dead have counted in it goes too, whatever they were: this process under an earlier token, say.
    """
    for lane in opened.lanes.of(namespace):
        opened.lanes.free(lane)
    if writing.domain == namespace:
        writing.forget()
    for kind in (NAMESPACE, CLEARING):
        writing.transaction.delete(kind + namespace)
