"""What a `Cache` does to its store. A step of many keys is one for each `PIECE` of them, or fewer large ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from batche import _calls
from batche._binding import Binding
from batche._engine import FIRST_POLL, LAST_POLL
from batche._names import qualified_name
from batche._records import Objects, Pairs
from batche._types import MINE, MISS, Call, Entry, Key
from batche.errors import CodecError, UnkeyableError
from batche.stores.base import Scannable

PIECE: Final = 1024
"""Keys that are read or stored in one step."""
_LONGEST_STORING: Final = 1.0
"""Seconds that `Entries.find_or_store` waits for somebody who is storing the same key, before it stores its own."""


class Entries:
    """The entries of one cache. ``lifetime``: nanoseconds after which one has expired; `None`: never."""

    def __init__(self, bound: Binding, lifetime: int | None) -> None:
        self.store = bound.settings.store
        self._lifetime = lifetime
        self._namespace = bound.settings.namespace
        self._nobody = bound.settings.nobody
        self._scope = bound.keyer.scope({})
        self._codec = bound.settings.codec
        self._records: Pairs | Objects = Pairs(self._codec) if self.store.encoded else Objects(self._codec)

    def _keys(self, keys: Sequence[Any]) -> list[Key]:
        try:
            return self._scope.keys(keys)
        except UnkeyableError:
            pass
        try:
            return self._scope.keys([_plain(key) for key in keys])
        except UnkeyableError as error:
            raise UnkeyableError("key", error.type_name, error.problem) from error.__cause__

    # ---- reading ----

    def read(self, keys: Sequence[Any]) -> list[Any]:
        """The value of each key, `MISS` where it has none; counted, and one step."""
        entries = self.store.read(self._keys(keys))
        oldest = self._oldest()
        there = [entry if entry is not None and entry[1] > oldest else None for entry in entries]
        hits, expired = len(there) - there.count(None), there.count(None) - list(entries).count(None)
        counts = {"hits": hits, "misses": len(there) - hits, "expirations": expired}
        self.store.release(self._nobody, counts={name: number for name, number in counts.items() if number})
        value = self._records.value
        return [MISS if entry is None else value(entry[0]) for entry in there]

    def has(self, key: object) -> bool:
        """Whether a key has a value; no use, not counted."""
        return self._is_there(self.store.read(self._keys([key]), use=False)[0])

    def are(self, pairs: Sequence[tuple[Any, Any]], others: Sequence[tuple[Any, Any]]) -> bool:
        """Whether two lists of keys and values are of one content; the keys need not be hashable."""
        try:
            return len(pairs) == len(others) and self._by_key(pairs) == self._by_key(others)
        except UnkeyableError:  # no key of a cache
            return False

    def _by_key(self, pairs: Sequence[tuple[Any, Any]]) -> dict[Key, Any]:
        return dict(zip(self._keys([key for key, _ in pairs]), [value for _, value in pairs], strict=True))

    def _oldest(self) -> int:
        """The wall clock at or before which whatever was stored has expired by now."""
        return 0 if self._lifetime is None else max(0, time.time_ns() - self._lifetime)

    def _is_there(self, entry: Entry | None) -> bool:
        """Whether an entry was found that has not expired."""
        return entry is not None and entry[1] > self._oldest()

    # ---- storing ----

    def write(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Store at most `PIECE` keys and values, the last most recent of all; the last one to begin wins."""
        records: dict[Key, Any] = {}
        for name, (key, value) in zip(self._keys([key for key, _ in pairs]), pairs, strict=True):
            records.pop(name, None)  # the last of several is the one that is used last
            records[name] = self._records.encode(key, value)
        call = self._new_call()
        try:
            self._put(call, records, force=True)
        finally:
            self.store.release(call)

    def find_or_store(self, key: Any, value: Any) -> Any:
        """The value of ``key``; where it has none, ``value``, which is stored. Of all who do so one stores."""
        name, record = self._keys([key])[0], self._records.encode(key, value)
        call = self._new_call(self._oldest())
        try:
            found = self._claim_or_find(call, name)
            if found is not None:
                return self._records.value(found[0])
            self._put(call, {name: record})
            return value
        finally:
            self.store.release(call)

    def _claim_or_find(self, call: Call, name: Key) -> Entry | None:
        """Claim one key, or find what somebody else stored; one who takes too long is passed over."""
        delay, deadline = FIRST_POLL, time.monotonic() + _LONGEST_STORING
        while True:
            answer = self.store.claim(call, [name], force=time.monotonic() > deadline)[0]
            if answer is MINE:
                return None
            if isinstance(answer, tuple):
                return answer
            time.sleep(delay)
            delay = min(2 * delay, LAST_POLL)

    def _put(self, call: Call, records: dict[Key, Any], *, force: bool = False) -> None:
        stored = self.store.put(call, list(records.items()), force=force)
        if stored.too_large:
            problem = f"{len(stored.too_large)} of {len(records)} values are larger than the cache takes (max_bytes)"
            raise CodecError(self._codec.name, problem)

    def _new_call(self, newer_than: int = 0) -> Call:
        call = _calls.new_call(self._namespace)
        call.newer_than = newer_than
        call.holds = True  # from before it does until it is released
        return call

    # ---- removing ----

    def remove(self, keys: Sequence[Any]) -> int:
        """Remove ``keys``; the number of those that were there."""
        names = list(dict.fromkeys(self._keys(keys)))
        if self._lifetime is None:
            return self.store.delete(names)
        return sum(map(self._is_there, self._scannable().take(names)))

    def take(self, key: Any) -> Any:
        """Remove a key and return its value, `MISS` where it had none. Each value goes to one taker."""
        entry = self._scannable().take(self._keys([key]))[0]
        return self._records.value(entry[0]) if entry is not None and self._is_there(entry) else MISS

    def take_oldest(self) -> tuple[Any, Any] | None:
        """Remove and return the key and value least recently used. Each goes to one taker."""
        while (taken := self._scannable().take_oldest(self._namespace)) is not None:
            if self._is_there(taken[1]):
                return self._pair(taken[1][0])
        return None

    def clear(self) -> None:
        self.store.clear(self._namespace)

    # ---- iterating ----

    def keys(self) -> Iterator[Any]:
        """All keys, the least recently used first."""
        return map(self._records.key, self._scan())

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """All keys and values in the same order; no use, but in a mapping that cannot be read so."""
        return map(self._pair, self._scan())

    def number(self) -> int:
        """How many there are, by reading all."""
        return sum(1 for _ in self._scan())

    def _pair(self, record: Any) -> tuple[Any, Any]:
        return self._records.key(record), self._records.value(record)

    def _scan(self) -> Iterator[Any]:
        """The records that are there, read in pieces of one step."""
        names = self._scannable().keys(self._namespace)
        return self._read_on(names)

    def _read_on(self, names: Iterator[Key]) -> Iterator[Any]:
        while piece := list(islice(names, PIECE)):
            yield from (entry[0] for entry in self._look(piece) if entry is not None and self._is_there(entry))

    def _look(self, names: Sequence[Key]) -> Sequence[Entry | None]:
        entries = list(self.store.read(names, use=False))
        unread = [index for index, entry in enumerate(entries) if entry is not None and entry[0] is MISS]
        for index, entry in zip(unread, self.store.read([names[index] for index in unread]), strict=True):
            entries[index] = entry
        return entries

    def _scannable(self) -> Scannable:
        if not isinstance(self.store, Scannable):
            raise TypeError(
                f"a {type(self.store).__name__} cannot tell its keys: iteration, len, pop and popitem need a store "
                "with keys(), take() and take_oldest(), see batche.stores.base.Scannable"
            )
        return self.store


@dataclass(frozen=True, slots=True)
class _Class:
    """A class in a key, which ``cachetools`` puts there: known by its name."""

    name: str


def _plain(key: object) -> object:
    """A key of ``cachetools.keys`` as plain data: a tuple, in which classes mark where the keywords begin."""
    if not isinstance(key, tuple) or (type(key) is not tuple and type(key).__module__ != "cachetools.keys"):
        return key
    return tuple(_Class(qualified_name(part)) if isinstance(part, type) else part for part in key)
