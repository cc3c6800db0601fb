"""A store inside this process: results in a mapping, claims beside it, one lock.

Values are the results themselves, not bytes. A forked child gets a copy of the entries as they were.
"""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from batche._forks import HeldLock, Order, ProcessLock, renew_after_fork
from batche._types import MINE, MISS, CacheInfo, Call, Entry, Key, Owner, Stored
from batche.errors import StoreError
from batche.stores._lru import Lru
from batche.stores.base import Answer

_LONG_AGO: Final = 1
"""When an entry was stored that was in the mapping before this process knew of it."""
_SPARE_TIMES: Final = 1024
"""Times of entries that the mapping dropped by itself, kept before they are looked for."""


class MappingStore:
    """Entries in a mapping of this process, shared by its threads and tasks.

    Args:
        mapping: any `MutableMapping` of text to objects: a dict, a ``cachetools`` cache. Its limits are its own, and
            it may drop entries at any time. `None`: a mapping of the store's own, with exact LRU.
        maxsize: most entries of the store's own mapping; `None`: no limit; 0: nothing is kept.

    Keys in the mapping are text that begins with the namespace; other keys in it are left alone. A read is
    ``mapping[key]``, so that the mapping notes a use; with ``use=False`` it is only ``key in mapping``, and the entry
    comes without its value (`MISS`), unless the mapping is a dict or the store's own.

    The mapping's methods, which may be a user's code, run under the store's lock: it is re-entrant, so they may call
    a cached function. What they raise becomes `StoreError`, but for a ``ValueError`` of storing, which is how a mapping
    refuses a value. One mapping should have one store: see `store_of`.
    """

    encoded: bool = False

    def __init__(self, mapping: MutableMapping[str, Any] | None = None, *, maxsize: int | None = None) -> None:
        if maxsize is not None and maxsize < 0:
            raise ValueError(f"maxsize must be 0 or more, or None for no limit, not {maxsize}")
        if mapping is not None and maxsize is not None:
            raise ValueError("a mapping has its own limit: give maxsize to it, not beside it")
        self._mapping: MutableMapping[str, Any] = Lru(maxsize) if mapping is None else mapping
        self._peek = _peek_of(self._mapping)
        self._stored: dict[Key, int] = {}
        self._claims: dict[Key, Call] = {}
        self._abandoned: set[Key] = set()
        self._evictions = 0
        self._counts: dict[bytes, Counter[str]] = {}
        # Only a user's mapping may be torn by a fork.
        self._guard = ProcessLock() if mapping is None else HeldLock(Order.ENTRIES)
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._claims = {}

    def __repr__(self) -> str:
        maxsize, currsize = self._sizes()
        return f"{type(self).__name__}({type(self._mapping).__name__} of {currsize} entries, maxsize={maxsize})"

    # ---- the mapping ----

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Have the mapping to this thread alone; what it raises is `StoreError`."""
        with self._guard.lock:
            if self._guard.torn:
                raise StoreError(self._name, "was being changed by another thread when this process was forked")
            try:
                yield
            except StoreError:
                raise
            except Exception as error:  # a user's mapping may raise anything
                raise StoreError(self._name, f"{type(error).__name__}: {error}") from error

    @property
    def _name(self) -> str:
        return f"the mapping of type {type(self._mapping).__name__}"

    def _get(self, key: Key, get: Callable[[str], Any]) -> Entry | None:
        # Looked for first: a defaultdict would make what is missing.
        name = name_of(key)
        try:
            return (get(name), self._stored.get(key, _LONG_AGO)) if name in self._mapping else None
        except KeyError:  # it expired in between
            return None

    def _set(self, key: Key, value: Any, now: int) -> bool:
        """Store ``value`` unless the mapping refuses it; whether it was taken."""
        name = name_of(key)
        number = len(self._mapping) + (name not in self._mapping)
        try:
            self._mapping[name] = value
        except ValueError:  # as cachetools says that a value is too large
            return False
        self._stored[key] = now
        if name in self._mapping:
            self._evictions += max(0, number - len(self._mapping))
        return True

    def _forget_times(self) -> None:
        """Drop the times of entries that the mapping has dropped, now and then."""
        if len(self._stored) > 2 * len(self._mapping) + _SPARE_TIMES:
            self._stored = {key: time for key, time in self._stored.items() if name_of(key) in self._mapping}

    def _remove(self, key: Key) -> bool:
        self._stored.pop(key, None)
        try:
            del self._mapping[name_of(key)]
        except KeyError:
            return False
        return True

    def _sizes(self) -> tuple[int | None, int]:
        """The mapping's own limit and size, in its own measure where it has one."""
        if self._guard.torn:
            return None, 0
        with self._using():
            currsize = _whole(getattr(self._mapping, "currsize", None))
            maxsize = _whole(getattr(self._mapping, "maxsize", None))
            return maxsize, len(self._mapping) if currsize is None else currsize

    # ---- reading and claiming ----

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        get = self._mapping.__getitem__ if use else self._peek
        with self._using():
            return [self._get(key, get) for key in keys]

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        with self._using():
            answers: list[Answer] = []
            won = 0
            for key in keys:
                if limit is not None and won >= limit:
                    break
                answers.append(answer := self._claim(call, key, force))
                won += answer is MINE
        return answers

    def _claim(self, call: Call, key: Key, force: bool) -> Answer:
        if self._stored.get(key, _LONG_AGO) > call.newer_than:
            entry = self._get(key, self._mapping.__getitem__)
            if entry is not None:
                return entry
        owner = self._claims.get(key)
        if owner is not None and owner is not call and not force:
            return Owner(owner.id, owner.pid)
        if key in self._abandoned:
            self._abandoned.discard(key)
            self._count(call.namespace, {"takeovers": 1})
        call.handle = call.handle or set()
        call.handle.add(key)  # first: an interrupt right after the claim must leave it where `release` looks
        self._claims[key] = call
        return MINE

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        with self._guard.lock:
            return [self._owner(key) for key in keys]

    def _owner(self, key: Key) -> Owner | None:
        if (call := self._claims.get(key)) is not None:
            return Owner(call.id, call.pid)
        return Owner((0, 0), os.getpid(), alive=False) if key in self._abandoned else None

    # ---- storing ----

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
        now = time.time_ns()
        with self._using():
            if force:
                self._void([key for key, _ in entries])
            mine = [(key, value) for key, value in entries if force or self._may_store(call, key)]
            kept = {key for key, value in mine if self._set(key, value, now)}
            self._forget_times()
            for key in (*drop, *(key for key, _ in mine)):
                if self._may_store(call, key):
                    del self._claims[key]
            claims = self.claim(call, claim, limit)
        return Stored(frozenset(kept), frozenset(key for key, _ in mine if key not in kept), list(claims))

    def _may_store(self, call: Call, key: Key) -> bool:
        """Whether the claim of ``key`` is one that ``call`` may store under."""
        owner = self._claims.get(key)
        return owner is call or (owner is not None and owner.id == call.heir_of.get(key))

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        with self._guard.lock:
            held = [key for key in call.handle or () if self._claims.get(key) is call]
            for key in held:
                del self._claims[key]
            if abandoned:
                self._abandoned.update(held)
            if counts:
                self._count(call.namespace, counts)

    def _count(self, namespace: bytes, counts: Mapping[str, int]) -> None:
        self._counts.setdefault(namespace, Counter()).update(counts)

    # ---- removing ----

    def delete(self, keys: Sequence[Key], /) -> int:
        with self._using():
            self._void(keys)
            return sum(self._remove(key) for key in keys)

    def _void(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._claims.pop(key, None)
            self._abandoned.discard(key)

    def clear(self, namespace: bytes, /) -> int:
        with self._using():
            self._void([key for key in (*self._claims, *self._abandoned) if key.startswith(namespace)])
            self._counts.pop(namespace, None)
            if not self._counts:  # else they are another function's as well
                self._evictions = 0
            return sum(self._remove(key) for key in self._keys(namespace))

    def _keys(self, namespace: bytes) -> list[Key]:
        """The keys of a namespace in the order of the mapping."""
        prefix = name_of(namespace)
        return [key_of(name) for name in self._mapping if isinstance(name, str) and name.startswith(prefix)]

    # ---- in order of recency: `Scannable` ----

    def keys(self, namespace: bytes, /) -> Iterator[Key]:
        """In the order of the mapping: least recent first where it is the store's own."""
        with self._using():
            return iter(self._keys(namespace))

    def take(self, keys: Sequence[Key], /) -> Sequence[Entry | None]:
        with self._using():
            entries = [self._get(key, self._mapping.__getitem__) for key in keys]
            self.delete(keys)
            return entries

    def take_oldest(self, namespace: bytes, /) -> tuple[Key, Entry] | None:
        with self._using():
            for key in self._keys(namespace):
                entry = self.take([key])[0]
                if entry is not None:
                    return key, entry
        return None

    # ---- telling ----

    def stats(self, namespace: bytes, /) -> CacheInfo:
        maxsize, currsize = self._sizes()
        with self._guard.lock:
            counts = dict(self._counts.get(namespace, {}))
            hits, misses = counts.pop("hits", 0), counts.pop("misses", 0)
            return CacheInfo(hits, misses, maxsize, currsize, evictions=self._evictions, **counts)

    def close(self) -> None:
        """Drop every claim, and the entries where the mapping is the store's own; a user's is left as it is."""
        with self._guard.lock:
            self._claims.clear()
            if isinstance(self._mapping, Lru):
                self._mapping.clear()


def name_of(key: bytes) -> str:
    """What a key, or a namespace, is called in a mapping."""
    return f"{key[:8].hex()}:{key[8:].hex()}"


def key_of(name: str) -> Key:
    """The key that `name_of` made a name of."""
    return bytes.fromhex(name.replace(":", ""))


def _whole(size: object) -> int | None:
    """A mapping's own measure where it is a number of entries; `None` where it has none (or says infinity)."""
    return size if isinstance(size, int) else None


def _peek_of(mapping: MutableMapping[str, Any]) -> Callable[[str], Any]:
    """What reads ``mapping`` without a use: where there is no such thing, nothing is read."""
    if isinstance(mapping, Lru):
        return mapping.peek
    if type(mapping) in (dict, OrderedDict):
        return mapping.__getitem__
    return lambda name: MISS


_stores: WeakValueDictionary[int, MappingStore] = WeakValueDictionary()
_choosing: Final = ProcessLock()


def store_of(mapping: MutableMapping[str, Any]) -> MappingStore:
    """The one store of ``mapping`` in this process, for as long as somebody uses it."""
    with _choosing.lock:
        store = _stores.get(id(mapping))  # found while the store lives, and so the mapping that it holds
        if store is None:
            store = _stores[id(mapping)] = MappingStore(mapping)
        return store
