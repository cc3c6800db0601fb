"""Storing what a call computed, in as many transactions as it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate, compress
from typing import Any, Final

from batche._types import Call, Key
from batche.stores.lmdb import records, totals
from batche.stores.lmdb.claims import Claims, Right
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.following import LEAST_BYTES, MOST_BYTES, MOST_KEYS
from batche.stores.lmdb.growth import keys_in, pages_to_store
from batche.stores.lmdb.records import CLAIM
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.writing import Writing

_MOST_HUNTS: Final = 3
"""Transactions in a row that may find no victim before one looks for them itself, with the writer's turn."""
_BYTES_A_KEY: Final = 24 * 4096
"""A key that is stored and one that is evicted each dirty a page, whose room comes back two transactions later: a store
that holds no more than this for each key of a transaction would have a file of many times its bytes."""
_LEAST_KEYS: Final = 16
"""Keys of one transaction in the smallest store."""
_CRAMPED_KEYS: Final = 4
_CRAMPED_BYTES: Final = 128 << 10
"""Keys and bytes of one transaction where room is short: each key needs some pages until two transactions later."""
_ROOM_A_KEY: Final = 16 * 4096
"""Room for each key of a transaction: of what is there, most has to be left for those that follow."""


class Putting:
    """The entries of one `put`, and what became of them so far."""

    def __init__(
        self,
        claims: Claims,
        call: Call,
        entries: Sequence[tuple[Key, Any]],
        drop: Sequence[Key],
        *,
        force: bool = False,
    ) -> None:
        self.call = call
        self.scarce = False
        self.room: int | None = None
        self.kept: list[Key] = []
        self.too_large: list[Key] = []
        self.done = False
        self.needs_victims = False
        self.evicted_by_default = False
        self.most_bytes = 0
        self._claims = claims
        self._force = force
        self._replaces = force or call.newer_than > 0  # else it has claimed only what had no entry
        self._drop = drop
        self._given = entries
        self._entries = list(entries)
        self._largest = max(map(records.size_of, {len(value) for _, value in entries}), default=0)
        self._stored = 0
        self._hunts = 0
        self._cramped = False
        self._pages: int | None = None
        self._mark = self._progress()

    def _progress(self) -> tuple[list[tuple[Key, Any]], int, int, int, int]:
        return self._entries, self._stored, len(self.kept), len(self.too_large), self._hunts

    def undo(self) -> None:
        """Go back to what it was before the last `store`, which was not committed, and try less from now on."""
        self._entries, self._stored, kept, too_large, self._hunts = self._mark
        del self.kept[kept:], self.too_large[too_large:]
        self.done = self.needs_victims = False
        self._cramped = True

    @property
    def need(self) -> int:
        """The bytes that the next transaction stores, at the most."""
        return self._need(*self._most())

    @property
    def pages(self) -> int:
        """The pages that the next transaction needs, at the most, if there is no lack of pages."""
        keys, size = self._most_by_room()
        return pages_to_store(min(keys, len(self._entries) - self._stored), self._need(keys, size))

    def may_take(self, pages: int | None) -> None:
        """Learn how many pages the next transaction may take; `None`: as many as it needs."""
        self._pages = pages

    def _need(self, keys: int, size: int) -> int:
        return max(self._largest, min(keys * self._largest, size))

    def _most(self) -> tuple[int, int]:
        """The keys and bytes of one transaction: what was written when it ends must be few of the pages there are."""
        keys, size = self._most_by_room()
        if self._pages is not None:
            keys = min(keys, max(_CRAMPED_KEYS, keys_in(self._pages)))
            size = min(size, max(_CRAMPED_BYTES, self._pages * records.PAGE_BYTES // 2))
        return keys, size

    def _most_by_room(self) -> tuple[int, int]:
        if self._cramped:
            return _CRAMPED_KEYS, _CRAMPED_BYTES
        if self.room is None:
            return MOST_KEYS, MOST_BYTES
        keys = (self.room - _CRAMPED_BYTES) // _ROOM_A_KEY
        return max(_CRAMPED_KEYS, min(MOST_KEYS, keys)), max(_CRAMPED_BYTES, min(MOST_BYTES, self.room // 8))

    @property
    def rest(self) -> int:
        """How many entries were not tried so far: of those given, so with large ones that were passed over already."""
        if self._stored == len(self._entries):
            return 0
        following = self._entries[self._stored][0]
        return len(self._given) - next(at for at, (key, _) in enumerate(self._given) if key == following)

    def store(self, writing: Writing, victims: Candidates) -> None:
        """Store as many of the remaining entries as one transaction may hold and ``victims`` make room for.

        The last transaction ends the claims of the keys that have no entry to store.
        """
        self._mark = self._progress()
        epoch = totals.read_epoch(writing.transaction, self.call.namespace)
        right = Right(self._claims.bytes_of(self.call, epoch), self.call.heir_of, self._force)
        self._begin(writing, right)
        part = self._next_part()
        keys, values, raws = take_claims(writing.transaction, part, right)
        if self._replaces:
            for key in keys:
                writing.remove(key)
        size = sum(map(records.size_of, map(len, values)))
        if not self._make_room(writing, len(keys), size, victims):
            for key, raw in zip(keys, raws, strict=True):
                writing.transaction.put(CLAIM + key, raw or right.mine)  # an heir's are the owner's until it has stored
            return
        writing.add_all(keys, values, writing.slots.tick(), time.time_ns(), epoch, size=size)
        self.kept += keys
        self._stored += len(part)
        self.done = self._stored == len(self._entries)
        if self.done:
            for key in self._drop:
                take_claim(writing.transaction, key, right)

    def _begin(self, writing: Writing, right: Right) -> None:
        self.needs_victims = False
        limits = writing.limits
        self.most_bytes = limits.max_bytes
        if limits.by_default and self.scarce:
            self.most_bytes = min(limits.max_bytes, max(writing.bytes, LEAST_BYTES))
        self._skip_surplus(writing, right)

    def _skip_surplus(self, writing: Writing, right: Right) -> None:
        """Pass over what is larger than the store, and entries that the later ones of this put would evict."""
        if self._largest > self.most_bytes:
            self._skip_large(writing, right)
        maxsize = writing.limits.maxsize
        while 0 <= maxsize < len(self._entries) - self._stored:
            key = self._entries[self._stored][0]
            if take_claim(writing.transaction, key, right) and maxsize:
                writing.evictions += 1
                if self._replaces:  # an old entry would outlive the new one, where a later claim is gone
                    writing.remove(key)
            self._stored += 1

    def _skip_large(self, writing: Writing, right: Right) -> None:
        fits = [records.size_of(len(value)) <= self.most_bytes for _, value in self._entries]
        for (key, _), fit in zip(self._entries, fits, strict=True):
            if not fit and take_claim(writing.transaction, key, right):
                self.too_large.append(key)
        stored = self._stored
        self._entries = [entry for entry, fit in zip(self._entries[stored:], fits[stored:], strict=True) if fit]
        self._stored = 0

    def _next_part(self) -> list[tuple[Key, Any]]:
        """As many of the remaining entries as one transaction and the store may hold."""
        keys, size = self._most()
        most = min(keys, max(_LEAST_KEYS, self.most_bytes // _BYTES_A_KEY))
        part = self._entries[self._stored : self._stored + most]
        room = min(size, self.most_bytes)
        if self._largest * len(part) <= room:
            return part
        for number, size in enumerate(accumulate(records.size_of(len(value)) for _, value in part)):
            if size > room:
                return part[: max(number, 1)]
        return part

    def _make_room(self, writing: Writing, entries: int, size: int, victims: Candidates) -> bool:
        """Evict for entries of ``size`` bytes; `False` where it takes another transaction."""
        self.evicted_by_default |= writing.limits.by_default and writing.bytes + size > self.most_bytes
        if self._hunts < _MOST_HUNTS:
            made = writing.make_room(entries, size, self.most_bytes, victims.pop)
        else:
            made = self._make_room_now(writing, entries, size, victims)
        self.needs_victims = not made and not len(victims)
        self._hunts = self._hunts + 1 if self.needs_victims else 0
        return made

    def _make_room_now(self, writing: Writing, entries: int, size: int, victims: Candidates) -> bool:
        """The same where every victim was used before it could be evicted, or where there is none at all."""
        left, evicted = victims.settled(), writing.evictions
        made = writing.make_room(entries, size, self.most_bytes, lambda: next(left, None))
        if not made and writing.evictions == evicted:  # the counts say that there are entries, and there are none
            writing.entries = writing.bytes = 0
        return made


def take_claims(
    transaction: Transaction, entries: Sequence[tuple[Key, Any]], right: Right
) -> tuple[list[Key], list[Any], list[bytes | None]]:
    """Remove the claims of ``entries`` that ``right`` covers; the keys and values of those, and the claims."""
    pop = transaction.cursor().pop  # as in `Writing`
    raws = [pop(CLAIM + key) for key, _ in entries]
    if right.all or raws.count(right.mine) == len(raws):
        return [key for key, _ in entries], [value for _, value in entries], raws
    held = [_is_held(transaction, key, raw, right) for (key, _), raw in zip(entries, raws, strict=True)]
    keys, values = (list(compress(column, held)) for column in zip(*entries, strict=True))
    return keys, values, list(compress(raws, held))


def take_claim(transaction: Transaction, key: Key, right: Right) -> bool:
    """Remove the claim of ``key`` if ``right`` covers it; whether it did."""
    return _is_held(transaction, key, transaction.pop(CLAIM + key), right)


def _is_held(transaction: Transaction, key: Key, raw: bytes | None, right: Right) -> bool:
    """Whether ``right`` covers the claim ``raw`` that was just removed; somebody else's is put back."""
    covered = right.covers(key, raw)
    if raw is not None and not covered and not right.is_own(raw):
        transaction.put(CLAIM + key, raw)
    return covered
