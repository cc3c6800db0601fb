"""What every process does for the others: it joins, folds the counts of the dead, and has their claims swept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from batche._process import boot_identity
from batche._types import NAMESPACE_BYTES
from batche.stores.base import PATIENCE, StoreBusyError
from batche.stores.lmdb import totals
from batche.stores.lmdb.claims import Claims
from batche.stores.lmdb.counts import Lane
from batche.stores.lmdb.environment import Transaction
from batche.stores.lmdb.place import OpenEnvironment
from batche.stores.lmdb.records import Domain
from batche.stores.lmdb.sweeping import Pass, Sweep
from batche.stores.lmdb.writing import Writing

ROUND: Final = 1.0
"""Seconds between two looks for processes that died."""
HASTE: Final = 0.25
"""Seconds that a reader waits for its first turn to write; without one its counts stay in its process for a while."""
_ALL: Final = bytes(NAMESPACE_BYTES)
"""The domain of a store whose limits count all namespaces together."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoration or a store's maker states, and when; `None`: nothing stated."""

    maxsize: int | None = None
    max_bytes: int | None = None
    when: int = field(default_factory=time.time_ns)

    def applied_to(self, domain: Domain, fallback: int) -> Domain:
        """``domain`` with what is stated here, unless somebody stated limits later.

        ``fallback`` bytes where nobody ever stated a limit. A process first uses a function some time after it was
        decorated, a forked child perhaps long after: so the moment of decoration decides, not that of use.
        """
        if domain.max_bytes < 0:
            domain = domain._replace(max_bytes=fallback, by_default=True)
        if self.when <= domain.stated:
            return domain
        if self.maxsize is not None:
            domain = domain._replace(maxsize=self.maxsize, stated=self.when)
        if self.max_bytes is not None:
            domain = domain._replace(max_bytes=self.max_bytes, by_default=False, stated=self.when)
        return domain


class Upkeep:
    """The writing side of one store: every write passes here. ``together``: limits count all namespaces as one."""

    def __init__(self, opened: OpenEnvironment, claims: Claims, stated: Limits, *, together: bool) -> None:
        self._opened = opened
        self._claims = claims
        self._sweep = Sweep(opened.slots, claims)
        self._stated = stated
        self._together = together
        self._joined: set[bytes] = set()
        self._join_again = 0.0

    def domain(self, namespace: bytes) -> bytes:
        """What the limits of ``namespace`` count: itself, or the whole store."""
        return _ALL if self._together else namespace

    def write(self, namespace: bytes, body: Callable[[Writing], T]) -> T:
        """Run ``body`` in a write transaction, after joining, and with what is due for others."""
        self.join(namespace)
        if self._is_due():
            self._bury(namespace)
        return self.commit(namespace, body)

    def commit(
        self, namespace: bytes, body: Callable[[Writing], T], *, dead: Sequence[Lane] = (), patience: float = PATIENCE
    ) -> T:
        """Run ``body`` in a write transaction; the lanes of the ``dead`` are folded in it and freed after it."""
        opened, domain = self._opened, self.domain(namespace)

        def inside(transaction: Transaction) -> tuple[T, list[int], list[Lane], Pass | None]:
            writing = Writing(transaction, opened.slots, domain)
            swept = self._sweep.go_on(transaction)
            folded = [lane for lane in dead if opened.lanes.hold([lane])]  # nobody else folded it meanwhile
            for lane in folded:
                totals.fold(transaction, lane)
            return body(writing), writing.finish(), folded, swept

        def after(done: tuple[T, list[int], list[Lane], Pass | None]) -> None:
            for slot in done[1]:
                opened.slots.free(slot)
            for lane in done[2]:
                opened.lanes.free(lane)
            self._sweep.committed(done[3])
            opened.slots.committed()

        return opened.lmdb.write(inside, after=after, patience=patience)[0]

    # ---- joining ----

    def join(self, namespace: bytes, *, patience: float = PATIENCE) -> None:
        """Before the first use of a namespace: state its limits, and have a lane to count in."""
        if namespace in self._joined and self._opened.lanes.has(namespace):
            return
        workers = self._opened.workers
        fallback = self._opened.default_limit()
        boot, row = boot_identity(), workers.row()

        def body(writing: Writing) -> None:
            self._opened.slots.set_clock(boot)
            self._opened.lanes.take(namespace, workers.token, row)
            writing.limits = self._stated.applied_to(writing.limits, fallback)

        self.commit(namespace, body, dead=self._find_dead() if self._is_due() else (), patience=patience)
        self._joined.add(namespace)

    def join_if_free(self, namespace: bytes) -> None:
        """Join before the first hit, unless a writer has been at it for long: a hit waits for nobody."""
        if namespace in self._joined and self._opened.lanes.has(namespace):
            return
        if time.monotonic() < self._join_again:
            return
        try:
            self.join(namespace, patience=HASTE)
        except StoreBusyError:
            self._join_again = time.monotonic() + ROUND

    def leave(self, namespace: bytes) -> bool:
        """Give up a namespace; whether no other living process counts in it."""
        self._opened.lanes.drop(namespace)
        self._joined.discard(namespace)
        workers, lanes = self._opened.workers, self._opened.lanes
        for lane in lanes.of(namespace):
            if lane.token == workers.token:  # taken when this environment was open in this process before
                lanes.free(lane)
        return not self.is_used_by_others(namespace)

    def is_used_by_others(self, namespace: bytes) -> bool:
        """Whether another living process counts in a namespace. It stays so for a transaction that asks in itself."""
        workers, lanes = self._opened.workers, self._opened.lanes.of(namespace)
        return any(lane.token != workers.token and workers.alive(lane.row, lane.token) for lane in lanes)

    # ---- the dead ----

    def _is_due(self) -> bool:
        return time.monotonic() - self._opened.looked > ROUND

    def _find_dead(self) -> list[Lane]:
        """The lanes of processes that died. Their claims are swept by the next writer."""
        self._opened.looked = time.monotonic()
        alive, lanes = self._opened.workers.alive, self._opened.lanes
        tokens = {token for token, row in lanes.owners() if not alive(row, token)}
        if not tokens:
            return []
        self._claims.suspect()
        return [lane for lane in lanes.all() if lane.token in tokens]  # read only now: they counted until they died

    def _bury(self, namespace: bytes) -> None:
        dead = self._find_dead()
        self._opened.lmdb.check_readers()
        if dead:
            self.commit(namespace, lambda _: None, dead=dead)
