"""Storing what a call computed, in as many transactions as it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from batche._types import Call, Key
from batche.stores.lmdb import records, totals
from batche.stores.lmdb.claims import Claims
from batche.stores.lmdb.environment import Transaction
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.place import OpenEnvironment
from batche.stores.lmdb.records import CLAIM
from batche.stores.lmdb.writing import Writing

MOST_KEYS: Final = 1024
"""Keys of one transaction: a fork, an event loop and a writer wait for no more than that."""
MOST_BYTES: Final = 4 << 20
"""Bytes of one transaction, for the same reason."""
_LEAST_BYTES: Final = 1 << 20
"""Bytes that a store without a stated limit may use however little is free."""


class Putting:
    """The entries of one `put`, and what became of them so far."""

    def __init__(self, opened: OpenEnvironment, claims: Claims, call: Call, entries: Sequence[tuple[Key, Any]]) -> None:
        self.call = call
        self.kept: set[Key] = set()
        self.too_large: set[Key] = set()
        self.done = False
        self.needs_victims = False
        self.no_victims = False
        self.evicted_by_default = False
        self.most_bytes = 0
        self._opened = opened
        self._claims = claims
        self._left = list(reversed(entries))

    def store(self, writing: Writing, victims: Candidates, *, scarce: bool) -> None:
        """Store as many of the remaining entries as this transaction may hold and `victims` make room for."""
        epoch = totals.read_epoch(writing.transaction, self.call.namespace)
        mine = self._claims.bytes_of(self.call, epoch)[:-1]
        self._begin(writing, mine, scarce=scarce)
        tick, stored, room = self._opened.slots.tick(), time.time_ns(), MOST_BYTES
        for moment in range(tick, tick + MOST_KEYS):
            if not self._left or room < 0:
                break
            key, value = self._left[-1]
            if take_claim(writing.transaction, key, mine):
                if not self._make_room(writing, key, len(value), victims):
                    return
                if key not in self.too_large:
                    writing.add(key, value, moment, stored, epoch)
                    self.kept.add(key)
                    room -= len(value)
            self._left.pop()
        self.done = not self._left

    def _begin(self, writing: Writing, mine: bytes, *, scarce: bool) -> None:
        self.needs_victims = False
        limits = writing.limits
        self.most_bytes = limits.max_bytes
        if limits.by_default and scarce:
            self.most_bytes = min(limits.max_bytes, max(writing.bytes, _LEAST_BYTES))
        if self.no_victims:  # the counts say that there are entries, the table says that there are none
            writing.entries = writing.bytes = 0
        self._skip_surplus(writing, mine)

    def _skip_surplus(self, writing: Writing, mine: bytes) -> None:
        """Pass over entries that the later ones of this put would evict."""
        maxsize = writing.limits.maxsize
        while 0 <= maxsize < len(self._left):
            key, _ = self._left.pop()
            if take_claim(writing.transaction, key, mine) and maxsize:
                writing.evictions += 1

    def _make_room(self, writing: Writing, key: Key, value_bytes: int, victims: Candidates) -> bool:
        """Evict for an entry, or find it too large; `False`, and its claim put back, where there are no more victims."""
        size = records.size_of(value_bytes)
        if size > self.most_bytes:
            self.too_large.add(key)
            return True
        if writing.has_room(size, self.most_bytes):
            return True
        self.evicted_by_default |= writing.limits.by_default and writing.bytes + size > self.most_bytes
        if writing.make_room(size, self.most_bytes, victims):
            return True
        epoch = totals.read_epoch(writing.transaction, self.call.namespace)
        writing.transaction.put(CLAIM + key, self._claims.bytes_of(self.call, epoch))
        self.needs_victims = True
        return False

    def drop(self, writing: Writing, keys: Sequence[Key]) -> None:
        """End the claims of keys that have no entry to store."""
        epoch = totals.read_epoch(writing.transaction, self.call.namespace)
        mine = self._claims.bytes_of(self.call, epoch)[:-1]
        for key in keys:
            take_claim(writing.transaction, key, mine)


def take_claim(transaction: Transaction, key: Key, mine: bytes) -> bool:
    """Remove the claim of ``key`` if it is the one that begins with ``mine``; whether it was."""
    raw = transaction.pop(CLAIM + key)
    if raw is None:
        return False
    if raw[:-1] != mine:
        transaction.put(CLAIM + key, raw)
        return False
    return True
