"""A store that keeps nothing: every caller computes, and its calls are counted in this process.

It is what ``store="off"`` means, and what stands in for a store that cannot be opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batche._forks import ProcessLock
from batche._types import MINE, CacheInfo, Call, Entry, Key, Owner, Stored
from batche.errors import StoreError
from batche.stores.base import Answer


class NullStore:
    """Answers every read with nothing and grants every claim.

    ``trouble`` is why the store that it stands in for cannot be opened: each call then counts as an error, and what
    must reach that store (`delete`, `clear`) raises it.
    """

    encoded: bool = False

    def __init__(self, trouble: StoreError | None = None) -> None:
        self.trouble = trouble
        self._counts: dict[bytes, Counter[str]] = {}
        self._counting = ProcessLock()

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        return [None] * len(keys)

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        if force:  # somebody means to replace what is there
            self._must_reach_store()
        return [MINE] * len(keys[:limit])

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
        if force:
            self._must_reach_store()
        return Stored(frozenset(), frozenset(), list(self.claim(call, claim, limit)))

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        if counts:
            with self._counting.lock:
                self._counts.setdefault(call.namespace, Counter()).update(counts)
                self._counts[call.namespace]["errors"] += self.trouble is not None

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        return [None] * len(keys)

    def delete(self, keys: Sequence[Key], /) -> int:
        self._must_reach_store()
        return 0

    def clear(self, namespace: bytes, /) -> int:
        self._must_reach_store()
        with self._counting.lock:
            self._counts.pop(namespace, None)
        return 0

    def keys(self, namespace: bytes, /) -> Iterator[Key]:
        return iter(())

    def take(self, keys: Sequence[Key], /) -> Sequence[Entry | None]:
        self._must_reach_store()
        return [None] * len(keys)

    def take_oldest(self, namespace: bytes, /) -> tuple[Key, Entry] | None:
        self._must_reach_store()
        return None

    def stats(self, namespace: bytes, /) -> CacheInfo:
        with self._counting.lock:
            counts = dict(self._counts.get(namespace, {}))
        return CacheInfo(counts.pop("hits", 0), counts.pop("misses", 0), 0, 0, **counts)

    def _must_reach_store(self) -> None:
        if self.trouble is not None:
            raise StoreError(self.trouble.store, self.trouble.problem) from self.trouble

    def close(self) -> None:
        """Nothing is open."""
