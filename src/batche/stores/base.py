"""The `Store` protocol: batch first, so that one step of the engine is one round trip.

A store keeps two things under a key: an *entry* (a result) and a *claim* (a caller's right to compute it).
It never sees an item, a scope or a function. All keys of one call of a method belong to one namespace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, runtime_checkable

from batche._types import MINE, MISS, CacheInfo, Call, Entry, Key, Mine, Owner, Stored
from batche.errors import StoreError

Answer: TypeAlias = Entry | Owner | Literal[Mine.MINE]
"""What a claim comes to: the entry that is there by now, who else computes it, or `MINE`."""

COUNTED: Final = ("hits", "misses", "waits", "expirations", "takeovers", "rejected", "errors", "near_hits")
"""The counts that callers report, in the order of a row of counts; the others a store keeps itself."""

PATIENCE: Final = 10.0
"""Seconds that a writer waits for its turn before it gives up and answers without the store."""


class StoreBusyError(StoreError):
    """Another writer has been at work for longer than this one may wait."""


class _Attempt(threading.local):
    """Inside its ``with`` a store waits for no other writer, in this thread: it raises `StoreBusyError` at once.

    It also does no more than one transaction of a ``put``. So a caller that must not wait, an event loop, may do
    something else and ask again, and say how long it has waited so far; once that is enough, what is raised is another
    `StoreError`.
    """

    depth = 0
    waited = 0.0
    """Seconds since the first attempt at what is attempted now."""

    def after(self, waited: float) -> Self:
        """The same, when it has waited for so many seconds."""
        self.waited = waited
        return self

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.depth -= 1
        self.waited = 0.0

    def __bool__(self) -> bool:
        return self.depth > 0


attempt: Final = _Attempt()
"""One for all stores: true while this thread makes an attempt."""


@runtime_checkable
class Store(Protocol):
    """Keeps entries and claims. Any method but `release` may raise [`StoreError`][batche.StoreError], and nothing else.

    Methods are called from any thread. For async functions that is the event loop's: there `attempt` is true, and who
    would have to wait for another writer raises `StoreBusyError` at once, to be called again a little later.

    ``encoded`` says what values are: bytes made by the function's codec where `True`, the results themselves where
    `False` (then the store never leaves its process). Optional is ``outlives``: `True` where entries are still there
    when the program has ended, so that a function which no name can find (a lambda) is refused without ``name=``.
    """

    encoded: bool

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        """The entries of ``keys``, aligned, `None` where there is none. Takes no lock that a writer holds.

        Reading is a use: it makes entries recent, the last key most of all. With ``use=False`` it does not; a store
        that cannot read a result without a use then puts `MISS` in its place.
        """
        ...

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        """Claim ``keys`` for ``call`` in order, until ``limit`` of them are won; one answer for each key tried.

        Each key is read again in the same step, so an entry stored meanwhile is never computed again; one that is not
        newer than ``call.newer_than`` is left where it is, and claimed as if it were not. Claims of dead owners are
        taken over, and with ``force`` those of the living too: what they compute is then not stored. A store may try
        only the first of the keys, but at least one: the answer is then shorter than ``keys``, as it is where the
        limit was reached.

        A claim saves double work; losing one costs a second computation, never a wrong entry.
        """
        ...

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
        """Store what ``call`` computed, each only under its own claim, which ends; then claim the next keys.

        For a key that ``call`` is ``heir_of``, the claim of the call named there is as good as its own. An entry whose
        claim is gone (voided by an invalidation, taken over, or ended by an heir) is not stored. ``drop`` are claimed
        keys that have no entry to store. ``claim`` and ``limit`` are as for `claim`. With ``force`` no claim is asked
        for: each entry takes the place of an older one, and voids whatever claim there is on its key.
        """
        ...

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        """End ``call`` and so every claim it still holds, and count its outcomes. Never waits, never raises.

        ``abandoned`` says that its caller did not live to see an outcome: waiters treat it as dead. ``counts`` are
        added to those of the call's namespace; their names are those of `COUNTED`.
        """
        ...

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        """Who holds the claim of each key: `None` where nobody does, ``alive=False`` where its owner died.

        ``before`` is an earlier answer for the same keys; a store that can tell that nothing changed returns it.
        """
        ...

    def delete(self, keys: Sequence[Key], /) -> int:
        """Remove entries and void the claims of ``keys``; the number of entries removed."""
        ...

    def clear(self, namespace: bytes, /) -> int:
        """Remove every entry of a namespace, void its claims and zero its counts; the number removed."""
        ...

    def stats(self, namespace: bytes, /) -> CacheInfo:
        """The counts of a namespace over all processes; changes nothing."""
        ...

    def close(self) -> None:
        """Let go of what this process holds open. May be called twice; entries stay where the store persists."""
        ...


@runtime_checkable
class Scannable(Protocol):
    """What a store may do beside: tell its keys by recency, and remove entries while reading them.

    `Cache` needs it for iteration, ``pop`` and ``popitem``; decorated functions do without.
    """

    def keys(self, namespace: bytes, /) -> Iterator[Key]:
        """The keys of a namespace, the least recently used first; changes no recency.

        A key that is there all the while comes exactly once, whatever is stored, used and removed beside. What was
        removed since may come, and what was stored since may not.
        """
        ...

    def take(self, keys: Sequence[Key], /) -> Sequence[Entry | None]:
        """Remove entries as ``delete`` does and return them: each entry goes to one taker."""
        ...

    def take_oldest(self, namespace: bytes, /) -> tuple[Key, Entry] | None:
        """Remove and return the least recently used entry of a namespace; `None` where it has none."""
        ...


__all__ = [
    "COUNTED",
    "MINE",
    "MISS",
    "PATIENCE",
    "Answer",
    "CacheInfo",
    "Call",
    "Entry",
    "Key",
    "Owner",
    "Scannable",
    "Store",
    "StoreBusyError",
    "Stored",
    "attempt",
]
