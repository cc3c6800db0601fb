"""What every store does, whatever it is made of: one suite for mappings, the LMDB store and that of a place."""

from __future__ import annotations

import time
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import cachetools
import pytest

from batche.stores.base import MINE, Answer, CacheInfo, Call, Entry, Key, Owner, Store, Stored
from batche.stores.lmdb import LmdbStore
from batche.stores.lmdb.upkeep import Limits
from batche.stores.mapping import MappingStore
from batche.testing import LruStoreContract, ScannableStoreContract, StoreContract
from tests.stores._driving import new_place


class TestMappingStore(LruStoreContract, ScannableStoreContract):
    def new_store(self, maxsize: int | None = None) -> Store:
        return MappingStore(maxsize=maxsize)


class TestLruCache(LruStoreContract, ScannableStoreContract):
    by_recency = False  # cachetools iterates in the order of insertion

    def new_store(self, maxsize: int | None = None) -> Store:
        return MappingStore(cachetools.LRUCache(10_000 if maxsize is None else maxsize))


class TestTtlCache(ScannableStoreContract):
    by_recency = False

    def new_store(self) -> Store:
        return MappingStore(cachetools.TTLCache(10_000, ttl=3600))


class TestDict(ScannableStoreContract):
    by_recency = False  # a dict knows of no use

    def new_store(self) -> Store:
        return MappingStore({})


class TestOtherDicts(StoreContract):
    @pytest.fixture(autouse=True, params=[OrderedDict, UserDict, lambda: defaultdict(list)])
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.make = request.param

    def new_store(self) -> Store:
        return MappingStore(self.make())


class OnDisk:
    @pytest.fixture(autouse=True)
    def _have_a_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path


class TestLmdbStore(OnDisk, LruStoreContract, ScannableStoreContract):
    def new_store(self, maxsize: int | None = None) -> Store:
        return LmdbStore(self.directory / "s", maxsize=maxsize)


class TestStoreOfAPlace(OnDisk, LruStoreContract, ScannableStoreContract):
    def new_store(self, maxsize: int | None = None) -> Store:
        return LmdbStore.of_function(new_place(self.directory), "private", Limits(maxsize))


@dataclass
class SmallStore:
    """What a third party may write: neither hashable nor weakly referable by accident, one lock for all."""

    encoded: bool = True
    entries: dict[Key, Entry] = field(default_factory=dict)
    claims: dict[Key, Call | None] = field(default_factory=dict)  # None: of a call that was abandoned
    counts: dict[tuple[bytes, str], int] = field(default_factory=dict)
    lock: Any = field(default_factory=RLock)

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        return [self.entries.get(key) for key in keys]

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        answers: list[Answer] = []
        with self.lock:
            for key in keys:
                if answers.count(MINE) == limit:
                    break
                answers.append(self._claim(call, key, force))
        return answers

    def _claim(self, call: Call, key: Key, force: bool) -> Answer:
        entry, owner = self.entries.get(key), self.claims.get(key, call)
        if entry is not None and entry[1] > call.newer_than:
            return entry
        if owner not in (call, None) and not force:
            return Owner(owner.id, owner.pid)
        if owner is None:
            self._count(call.namespace, {"takeovers": 1})
        self.claims[key] = call
        return MINE

    def put(
        self,
        call: Call,
        entries: Sequence[tuple[Key, Any]],
        /,
        drop: Sequence[Key] = (),
        claim: Sequence[Key] = (),
        limit: int | None = None,
        *,
        force: bool = False,
    ) -> Stored:
        with self.lock:
            for key in [key for key, _ in entries if force]:
                self.claims[key] = call
            mine = {key: value for key, value in entries if self._may_store(call, key)}
            self.entries.update((key, (value, time.time_ns())) for key, value in mine.items())
            for key in (*mine, *drop):
                if self._may_store(call, key):
                    del self.claims[key]
            return Stored(frozenset(mine), frozenset(), list(self.claim(call, claim, limit)))

    def _may_store(self, call: Call, key: Key) -> bool:
        owner = self.claims.get(key)
        return owner is not None and (owner is call or owner.id == call.heir_of.get(key))

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        with self.lock:
            for key in [key for key, owner in self.claims.items() if owner is call]:
                if abandoned:
                    self.claims[key] = None
                else:
                    del self.claims[key]
            self._count(call.namespace, counts or {})

    def _count(self, namespace: bytes, counts: Mapping[str, int]) -> None:
        for name, number in counts.items():
            self.counts[namespace, name] = self.counts.get((namespace, name), 0) + number

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        with self.lock:
            return [self._owner(key) for key in keys]

    def _owner(self, key: Key) -> Owner | None:
        if key not in self.claims:
            return None
        call = self.claims[key]
        return Owner((0, 0), 0, alive=False) if call is None else Owner(call.id, call.pid)

    def delete(self, keys: Sequence[Key], /) -> int:
        with self.lock:
            for key in keys:
                self.claims.pop(key, None)
            return sum(self.entries.pop(key, None) is not None for key in keys)

    def clear(self, namespace: bytes, /) -> int:
        with self.lock:
            self.counts = {name: number for name, number in self.counts.items() if name[0] != namespace}
            return self.delete([key for key in {**self.entries, **self.claims} if key.startswith(namespace)])

    def stats(self, namespace: bytes, /) -> CacheInfo:
        counts = {name: number for (of, name), number in self.counts.items() if of == namespace}
        return CacheInfo(counts.pop("hits", 0), counts.pop("misses", 0), None, len(self.entries), **counts)

    def close(self) -> None:
        """Nothing is open."""


class TestThirdPartyStore(StoreContract):
    def new_store(self) -> Store:
        return SmallStore()
