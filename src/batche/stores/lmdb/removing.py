"""Removing entries: some, or all of a namespace, in pieces that one transaction may hold."""

from __future__ import annotations

from collections.abc import Sequence

from batche._types import Key
from batche.stores.lmdb import totals
from batche.stores.lmdb.following import MOST_BYTES, MOST_KEYS
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.records import CLAIM, ENTRY, NAMESPACE, unpack_record
from batche.stores.lmdb.writing import Writing, entry_keys


def delete(keys: Sequence[Key], writing: Writing) -> int:
    """Remove the entries of ``keys`` and void their claims; the number of entries."""
    for key in keys:
        writing.transaction.delete(CLAIM + key)
    return sum(writing.remove(key) for key in keys)


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


def forget(namespace: bytes, writing: Writing) -> None:
    """Remove what is written of an empty namespace, but not what limits count of a whole store."""
    if writing.domain == namespace:
        writing.forget()
    writing.transaction.delete(NAMESPACE + namespace)
