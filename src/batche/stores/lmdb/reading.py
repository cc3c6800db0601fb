"""Reading entries: what is fetched inside a transaction, and what is made of it outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from operator import not_
from typing import Final, NamedTuple
from zlib import crc32

from batche._types import NAMESPACE_BYTES, Entry, Key
from batche.stores.lmdb import totals
from batche.stores.lmdb.environment import Environment
from batche.stores.lmdb.following import MOST_BYTES
from batche.stores.lmdb.records import (
    CHECKSUM_BYTES,
    CLAIM,
    ENTRY,
    HEAD_BYTES,
    OVERHEAD_BYTES,
    WHOLE,
    unpack_head,
)
from batche.stores.lmdb.slots import Slots
from batche.stores.lmdb.transaction import EpochRead, Transaction
from batche.stores.lmdb.writing import namespace_of

PIECE: Final = 64
"""Keys that are read before the bytes are added up."""


class Missed(NamedTuple):
    """Keys that had no entry as of the transaction ``snapshot``."""

    snapshot: int
    keys: frozenset[Key]

    def still(self, keys: Sequence[Key], transaction: Transaction) -> bool:
        """Whether ``keys`` have no entry still: nothing was committed between the snapshot and ``transaction``.

        A write transaction's number is one more than that of the last commit.
        """
        return transaction.id() == self.snapshot + 1 and self.keys.issuperset(keys)


def read_raw(keys: Sequence[Key], lmdb: Environment, transaction: Transaction) -> tuple[EpochRead, list[bytes | None]]:
    """The epoch, and the records of the first of ``keys``: of all, or of as many as one transaction may hold.

    The epoch is looked up again only where somebody has committed since it was: a third of what reading one key costs.
    """
    number, namespace = transaction.id(), keys[0][:NAMESPACE_BYTES]
    known = lmdb.epoch_read
    if known[0] != number or known[1] != namespace:
        known = lmdb.epoch_read = EpochRead(number, namespace, totals.read_epoch(transaction, namespace))
    raws = [transaction.get(ENTRY + keys[0])] if len(keys) == 1 else read_records(keys, transaction)
    return known, raws


def read_records(keys: Sequence[Key], transaction: Transaction) -> list[bytes | None]:
    """The records of the first of ``keys``: of all, or of as many as one transaction may hold, but of one at least."""
    get = transaction.get
    raws = [get(ENTRY + key) for key in keys[:PIECE]]
    if len(keys) > PIECE:
        _read_on(keys, get, raws)
    return raws


def _read_on(keys: Sequence[Key], get: Callable[[bytes], bytes | None], raws: list[bytes | None]) -> None:
    room = MOST_BYTES - sum(map(len, filter(None, raws)))
    while room > 0 and len(raws) < len(keys):
        piece = [get(ENTRY + key) for key in keys[len(raws) : len(raws) + PIECE]]
        raws += piece
        room -= sum(map(len, filter(None, piece)))


def missed(snapshot: int, keys: Sequence[Key], entries: Sequence[Entry | None]) -> Missed:
    """Which of ``keys`` had no entry."""
    return Missed(snapshot, frozenset(compress(keys, map(not_, entries))))  # no entry is empty


def read_claims(keys: Sequence[Key], transaction: Transaction) -> tuple[int, list[bytes | None]]:
    """The epoch, and the claims of ``keys`` as they are written."""
    return totals.read_epoch(transaction, namespace_of(keys[0])), [transaction.get(CLAIM + key) for key in keys]


def unpack(raws: Sequence[bytes | None], epoch: int, slots: Slots, tick: int) -> list[Entry | None]:
    """The entries in ``raws``, `None` for what is missing, damaged or of another epoch.

    Each entry is noted as used at ``tick`` and its place in ``raws``: one plain store of 8 bytes, unless a later use
    is noted already. With a ``tick`` of 0, which is earlier than any use, nothing is noted.
    """
    if not any(raws):  # no record is empty
        return [None] * len(raws)
    words = slots.table.view  # what `words` gives, without its call
    known = len(words)
    entries: list[Entry | None] = []
    append = entries.append
    for moment, raw in enumerate(raws, tick):
        if raw is None or crc32(raw) != WHOLE or len(raw) < OVERHEAD_BYTES:
            append(None)
            continue
        slot, _, stored, written = unpack_head(raw)
        if written != epoch:
            append(None)
            continue
        if slot >= known:
            words = slots.refresh()
            known = len(words)
            if slot >= known:  # the table is shorter than it was before a crash of the system
                append(None)
                continue
        if words[slot] < moment:  # noqa: PLR1730 - max() is a call, and may store FREE when the slot is passed on
            words[slot] = moment
        append((raw[HEAD_BYTES:-CHECKSUM_BYTES], stored))
    return entries
