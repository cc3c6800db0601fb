"""The results of one call: how each was come by, and what is handed out.

What is handed out for one position is that position's alone: nobody who changes it changes another's, or the cache.
With ``copy=False`` positions may share it, and arrays are read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from batche._ownership import IMMUTABLE, is_borrowed, none_is_borrowed, read_only
from batche._plan import Plan, merge
from batche._settings import Settings
from batche._types import Entry, Key, Stored
from batche.errors import BatchError, Failed, StoreError

_TOO_LARGE: Final = "a result is larger than max_bytes, or the mapping's own limit; raise it to cache it"
_TROUBLES: Final = ("rejected", "errors")


class Results:
    """What a call has so far, by key. ``counts`` says what became of its positions, and of the rest."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.counts: dict[str, int] = {}
        self._settings = settings
        self._plan = plan
        self._values: dict[Key, Any] = {}
        self._failed: dict[Key, Failed] = {}
        self._handed: set[int] = set()  # the ids of computed values that may be changed by who got them

    def accept(self, key: Key, entry: Entry, outcome: str) -> bool:
        """Take an entry as the result of ``key``, unless it cannot be decoded: that is raised where it is wanted."""
        try:
            self._values[key] = self._settings.codec.decode(entry[0])
        except Exception as error:  # a user's codec may raise anything
            self.count("errors")
            if self._settings.strict:
                remedy = "remove it by cache_invalidate(), or all by cache_clear()"
                raise StoreError(
                    self._settings.function, f"has an entry that cannot be read: {error}; {remedy}"
                ) from error
            self._settings.reports.once("unreadable entry", f"an entry is computed again: {error}")
            return False
        self.count(outcome)
        return True

    def spread(self, values: Sequence[Any]) -> list[Any]:
        """The results of all positions, from those of the distinct keys in order of use."""
        self._values = dict(zip(self._plan.by_use, values, strict=True))
        return self.merge()

    def encode(self, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
        """The entries of computed ``keys`` in order of use, without those that cannot or shall not be stored."""
        encode, wanted = self._settings.codec.encode, self._worth_storing(keys)
        order = [key for key in self._plan.by_use if key in wanted] if self._plan.has_duplicates else list(wanted)
        try:
            return [(key, encode(self._values[key])) for key in order]
        except Exception:
            return self._encode_each(order)

    def _worth_storing(self, keys: Sequence[Key]) -> dict[Key, None]:
        """Those of ``keys`` that have not failed and that ``cache_if`` lets in, in order."""
        cache_if = self._settings.cache_if
        if self._failed:
            keys = [key for key in keys if key not in self._failed]
        if cache_if is not None:
            values = map(self._values.__getitem__, keys)
            chosen = zip(keys, self._plan.items_of(keys), values, strict=True)
            keys = [key for key, item, value in chosen if cache_if(item, value)]
        return dict.fromkeys(keys)

    def _encode_each(self, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
        """The same where some result is one that no codec takes."""
        entries = []
        for key in keys:
            try:
                entries.append((key, self._settings.codec.encode(self._values[key])))
            except Exception as error:  # a user's codec may raise anything
                self.reject(1, f"codec: {type(self._values[key]).__qualname__}", str(error))
        return entries

    def add(self, part: Sequence[Key], values: Sequence[Any]) -> None:
        """Take what the function returned for ``part``, once it is checked."""
        if self._settings.check is not None:
            for key, value in zip(part, values, strict=True):
                self._settings.check(self._plan.first[key], value)
        self._values.update(zip(part, values, strict=True))
        self.count("misses", len(part))
        if any(issubclass(kind, Failed) for kind in set(map(type, values))):
            pairs = zip(part, values, strict=True)
            self._failed.update((key, value) for key, value in pairs if isinstance(value, Failed))
        if self._settings.copy:
            self._own(part, values)
        else:
            self._values.update(zip(part, map(read_only, values), strict=True))

    def has_failed(self, key: Key) -> bool:
        """Whether the function gave `Failed` for the item of ``key``."""
        return key in self._failed

    def _own(self, part: Sequence[Key], values: Sequence[Any]) -> None:
        """Where the function returned what is not one item's alone, or cannot be written to, give the item its own."""
        kinds, identities = set(map(type, values)), set(map(id, values))
        if kinds <= IMMUTABLE:
            return
        alone = len(identities) == len(values) and identities.isdisjoint(self._handed)
        if alone and none_is_borrowed(values, kinds):
            self._handed |= identities
            return
        for key, value in zip(part, values, strict=True):
            if type(value) not in IMMUTABLE:
                if id(value) in self._handed or is_borrowed(value):
                    self._values[key] = self._copy(value)
                self._handed.add(id(value))

    def _copy(self, value: Any) -> Any:
        try:
            return self._settings.codec.decode(self._settings.codec.encode(value))
        except Exception:
            return value  # it cannot be copied, so positions share it, as they would without a cache

    def merge(self) -> list[Any]:
        """The results in order of positions; each mutable one is an object of its own.

        `BatchError` where items have failed and that is what the caller wants.
        """
        results = merge(self._plan, self._values)
        if self._settings.copy and self._plan.has_duplicates:
            for position, key in enumerate(self._plan.keys):
                if self._plan.first[key] != position and type(results[position]) not in IMMUTABLE:
                    results[position] = self._copy(results[position])
        if self._failed and self._settings.on_failed == "raise":
            failed = [position for position, key in enumerate(self._plan.keys) if key in self._failed]
            raise BatchError(self._settings.function, failed, results)
        return results

    def reject(self, number: int, cause: str, message: str) -> None:
        self.count("rejected", number)
        self._settings.reports.once(cause, f"not stored: {message}")

    def reject_large(self, stored: Stored | None) -> None:
        """Count and tell those that the store did not take because of their size."""
        if stored is not None and stored.too_large:
            self.reject(len(stored.too_large), "too large", _TOO_LARGE)

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    @property
    def computed(self) -> int:
        """How many items this call computed."""
        return self.counts.get("misses", 0)

    def counted(self) -> dict[str, int]:
        """Each position by its outcome: who computed it counts a miss, and whom the call failed too."""
        if not self._settings.counts:
            return {name: number for name, number in self.counts.items() if name in _TROUBLES}
        distinct = len(self._plan.by_use)
        if len(self._values) < distinct:
            self.count("misses", distinct - len(self._values))
        if len(self._plan.keys) > distinct:
            self.count("hits", len(self._plan.keys) - distinct)
        return self.counts
