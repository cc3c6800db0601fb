"""A store inside this process: entries in a mapping, claims beside it, one lock.

Values are the results themselves, not bytes. A forked child gets a copy of the entries as they were.
"""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, MutableMapping, Sequence
from threading import RLock
from typing import Any

from batche._process import renew_after_fork
from batche._types import MINE, CacheInfo, Call, Entry, Key, Owner, Stored
from batche.stores.base import Answer


class MappingStore:
    """Entries in a dict with exact LRU by count, shared by the threads and tasks of one process.

    ``maxsize`` is the most entries over all namespaces; `None`: no limit; 0: nothing is kept. The number of
    evictions is the store's too, and zero again when a namespace is cleared.
    """

    encoded: bool = False

    def __init__(self, *, maxsize: int | None = None) -> None:
        if maxsize is not None and maxsize < 0:
            raise ValueError(f"maxsize must be 0 or more, or None for no limit, not {maxsize}")
        self._maxsize = maxsize
        self._entries: MutableMapping[Key, Entry] = OrderedDict()
        self._claims: dict[Key, Call] = {}
        self._abandoned: set[Key] = set()
        self._evictions = 0
        self._counts: dict[bytes, Counter[str]] = {}
        self._lock = RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = RLock()
        self._claims = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._entries)} entries, maxsize={self._maxsize})"

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            if use:
                self._touch([key for key, entry in zip(keys, found, strict=True) if entry is not None])
        return found

    def _touch(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._entries[key] = self._entries.pop(key)

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        with self._lock:
            answers: list[Answer] = []
            won = 0
            for key in keys:
                if limit is not None and won >= limit:
                    break
                answers.append(answer := self._claim(call, key, force))
                won += answer is MINE
        return answers

    def _claim(self, call: Call, key: Key, force: bool) -> Answer:
        if (entry := self._entries.get(key)) is not None and entry[1] > call.newer_than:
            self._touch([key])
            return entry
        if (owner := self._claims.get(key)) is not None and not force:
            return Owner(owner.id, owner.pid)
        if key in self._abandoned:
            self._abandoned.discard(key)
            self._count(call.namespace, {"takeovers": 1})
        call.handle = call.handle or set()
        call.handle.add(key)  # first: an interrupt right after the claim must leave it where `release` looks
        self._claims[key] = call
        return MINE

    def put(
        self,
        call: Call,
        entries: Sequence[tuple[Key, Any]],
        /,
        drop: Sequence[Key] = (),
        claim: Sequence[Key] = (),
        limit: int | None = None,
    ) -> Stored:
        now = time.time_ns()
        with self._lock:
            kept = [(key, value) for key, value in entries if self._claims.get(key) is call]
            for key, value in kept:
                self._store(key, (value, now))
            for key in (*drop, *(key for key, _ in kept)):
                if self._claims.get(key) is call:
                    del self._claims[key]
            claims = self.claim(call, claim, limit)
        return Stored(frozenset(key for key, _ in kept), frozenset(), list(claims))

    def _store(self, key: Key, entry: Entry) -> None:
        if self._maxsize == 0:
            return
        self._entries.pop(key, None)
        self._entries[key] = entry
        while self._maxsize is not None and len(self._entries) > self._maxsize:
            oldest = next(iter(self._entries))
            del self._entries[oldest]
            self._evictions += 1

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        with self._lock:
            held = [key for key in call.handle or () if self._claims.get(key) is call]
            for key in held:
                del self._claims[key]
            if abandoned:
                self._abandoned.update(held)
            if counts:
                self._count(call.namespace, counts)

    def _count(self, namespace: bytes, counts: Mapping[str, int]) -> None:
        self._counts.setdefault(namespace, Counter()).update(counts)

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        with self._lock:
            return [self._owner(key) for key in keys]

    def _owner(self, key: Key) -> Owner | None:
        if (call := self._claims.get(key)) is not None:
            return Owner(call.id, call.pid)
        return Owner((0, 0), os.getpid(), alive=False) if key in self._abandoned else None

    def delete(self, keys: Sequence[Key], /) -> int:
        with self._lock:
            for key in keys:
                self._claims.pop(key, None)
                self._abandoned.discard(key)
            return sum(self._entries.pop(key, None) is not None for key in keys)

    def clear(self, namespace: bytes, /) -> int:
        with self._lock:
            self._abandoned -= {key for key in self._abandoned if key.startswith(namespace)}
            for key in [key for key in self._claims if key.startswith(namespace)]:
                del self._claims[key]
            held = [key for key in self._entries if key.startswith(namespace)]
            for key in held:
                del self._entries[key]
            self._counts.pop(namespace, None)
            self._evictions = 0
        return len(held)

    def stats(self, namespace: bytes, /) -> CacheInfo:
        with self._lock:
            counts = dict(self._counts.get(namespace, {}))
            return CacheInfo(
                counts.pop("hits", 0),
                counts.pop("misses", 0),
                self._maxsize,
                len(self._entries),
                evictions=self._evictions,
                **counts,
            )

    def close(self) -> None:
        """Drop every entry and claim."""
        with self._lock:
            self._entries.clear()
            self._claims.clear()
