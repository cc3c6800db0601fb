"""A store that keeps nothing: every caller computes, and its calls are counted in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from threading import RLock
from typing import Any, ClassVar

from batche._types import MINE, CacheInfo, Call, Entry, Key, Owner, Stored
from batche.stores.base import Answer


class NullStore:
    """Answers every read with nothing and grants every claim."""

    encoded: ClassVar[bool] = False

    def __init__(self) -> None:
        self._counts: dict[bytes, Counter[str]] = {}
        self._lock = RLock()

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        return [None] * len(keys)

    def claim(self, call: Call, keys: Sequence[Key], /, limit: int | None = None) -> Sequence[Answer]:
        return [MINE] * len(keys[:limit])

    def put(
        self,
        call: Call,
        entries: Sequence[tuple[Key, Any]],
        /,
        drop: Sequence[Key] = (),
        claim: Sequence[Key] = (),
        limit: int | None = None,
    ) -> Stored:
        return Stored(frozenset(), frozenset(), list(self.claim(call, claim, limit)))

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        if counts:
            with self._lock:
                self._counts.setdefault(call.namespace, Counter()).update(counts)

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        return [None] * len(keys)

    def delete(self, keys: Sequence[Key], /) -> int:
        return 0

    def clear(self, namespace: bytes, /) -> int:
        with self._lock:
            self._counts.pop(namespace, None)
        return 0

    def stats(self, namespace: bytes, /) -> CacheInfo:
        with self._lock:
            counts = dict(self._counts.get(namespace, {}))
        return CacheInfo(counts.pop("hits", 0), counts.pop("misses", 0), 0, 0, **counts)

    def close(self) -> None:
        """Nothing is open."""
