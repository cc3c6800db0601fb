"""What every process does for the others: it joins, folds the counts of the dead, and has their claims swept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from batche._boot import boot_identity
from batche._numbers import ENDLESS
from batche._trouble import StoreFullError
from batche._types import NAMESPACE_BYTES
from batche.errors import StoreError
from batche.stores.base import PATIENCE
from batche.stores.lmdb import rebuilding, removing, totals
from batche.stores.lmdb.claims import Claims
from batche.stores.lmdb.counts import Lane
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.growth import Grow, Growth, patiently
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.records import Domain
from batche.stores.lmdb.relief import BALLAST_BYTES, SHORT, Reserve, make_room
from batche.stores.lmdb.sweeping import Pass, Sweep
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.writing import Writing

ROUND: Final = 1.0
"""Seconds between two looks for processes that died."""
HASTE: Final = 0.25
"""Seconds that a reader waits for its first turn to write; without one its counts stay in its process for a while."""
_MOST_LANES: Final = 256
"""Lanes of the dead that readers leave to the next writer: beyond that one of them folds all."""
_ALL: Final = bytes(NAMESPACE_BYTES)
"""The domain of a store whose limits count all namespaces together."""

T = TypeVar("T")


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoration or a store's maker states, and when; `None`: nothing stated."""

    maxsize: int | None = None
    max_bytes: int | None = None
    when: int = field(default_factory=time.time_ns)

    def applied_to(self, domain: Domain, fallback: int) -> Domain:
        """``domain`` with each limit that is stated here, unless somebody stated that one later.

        ``fallback`` bytes where nobody ever stated a limit. A process first uses a function some time after it was
        decorated, a forked child perhaps long after: so the moment of decoration decides, not that of use.
        """
        if domain.max_bytes < 0:
            domain = domain._replace(max_bytes=fallback, by_default=True)
        if self.maxsize is not None and self.when > domain.maxsize_stated:
            maxsize = self.maxsize if self.maxsize < ENDLESS else -1
            domain = domain._replace(maxsize=maxsize, maxsize_stated=self.when)
        if self.max_bytes is not None and self.when > domain.max_bytes_stated:
            domain = domain._replace(max_bytes=self.max_bytes, by_default=False, max_bytes_stated=self.when)
        return domain


def _limits_of(domain: Domain) -> tuple[int, int, bool]:
    """The limits in force, whenever they were stated."""
    return domain.maxsize, domain.max_bytes, domain.by_default


class Upkeep:
    """The writing side of one store: every write passes here. ``together``: limits count all namespaces as one."""

    def __init__(self, opened: OpenEnvironment, claims: Claims, stated: Limits, *, together: bool) -> None:
        self._opened = opened
        self._claims = claims
        self._sweep = Sweep(opened.slots, claims)
        self._stated = stated
        self._together = together
        self._joined: set[bytes] = set()
        self.visited: set[bytes] = set()  # joined, or joined but for a transaction that nothing asked for yet
        self._join_again = 0.0
        self._candidates: dict[bytes, Candidates] = {}
        self._most_bytes: dict[bytes, int] = {}
        self._reserve = Reserve(opened.lmdb)
        self._growth = Growth(opened.lmdb)
        self._hopeless_until = 0.0

    def domain(self, namespace: bytes) -> bytes:
        """What the limits of ``namespace`` count: itself, or the whole store."""
        return _ALL if self._together else namespace

    def victims(self, namespace: bytes) -> Candidates:
        """What goes first where the entries that limits count with those of ``namespace`` are too many."""
        domain = self.domain(namespace)
        if domain not in self._candidates:
            word = None if self._together else int.from_bytes(domain, "big")
            self._candidates[domain] = Candidates(self._opened.slots, word)
        return self._candidates[domain]

    def write(
        self,
        namespace: bytes,
        body: Callable[[Writing], T],
        *,
        undo: Callable[[], object] = _nothing,
        need: int = 0,
        room: int | None = None,
        grow: Grow | None = None,
    ) -> T:
        """Run ``body``, which stores about ``need`` bytes, after joining, and with what is due for others.

        ``grow``: what it stores; `None` if it only removes. Where there is no room for it, entries are evicted and it
        is run once more; where ``room`` is short, more than it stores are evicted before. ``undo`` is called after each
        transaction that was not committed.

        Raises:
            StoreFullError: there is no room for it all the same.
        """
        self.join(namespace)
        dead: Sequence[Lane] = ()
        if self._is_due():
            self._reserve.take()
            dead = self._find_dead()
            self._opened.lmdb.check_readers()
        if room is not None and room < SHORT and not self._is_hopeless():
            self._make_room(namespace, need)
        commit = partial(self._commit, namespace, body, undo=undo, dead=dead, grow=grow)
        return patiently(partial(self._with_room, namespace, need, commit))

    def commit(self, namespace: bytes, body: Callable[[Writing], T], *, dead: Sequence[Lane] = ()) -> T:
        """The same once joined; the lanes of the ``dead`` are folded in it and freed after it."""
        return self._with_room(namespace, 0, partial(self._commit, namespace, body, dead=dead))

    def _with_room(self, namespace: bytes, need: int, attempt: Callable[[], T]) -> T:
        """Make an attempt to write ``need`` bytes, and where there is no room for them another one, after evicting."""
        try:
            return attempt()
        except StoreFullError:
            if self._is_hopeless():
                raise
            self._make_room(namespace, max(need, BALLAST_BYTES // 2))
            self._hopeless_until = time.monotonic() + ROUND
            result = attempt()
            self._hopeless_until = 0.0
            return result

    def room(self) -> int | None:
        """The bytes that may be written at most, as far as that can be told; `None`: ample."""
        return self._reserve.room()

    def _is_hopeless(self) -> bool:
        """Whether evicting has not helped: it is not tried again for a while, because each time costs entries."""
        return time.monotonic() < self._hopeless_until

    def _make_room(self, namespace: bytes, need: int) -> None:
        self._hopeless_until = time.monotonic() + ROUND
        self._opened.lmdb.check_readers()
        make_room(partial(self._commit, namespace), self.victims(namespace), self._reserve, need)
        self._hopeless_until = 0.0

    def _commit(
        self,
        namespace: bytes,
        body: Callable[[Writing], T],
        *,
        undo: Callable[[], object] = _nothing,
        dead: Sequence[Lane] = (),
        grow: Grow | None = None,
        patience: float = PATIENCE,
    ) -> T:
        """One attempt; ``undo`` is called if it was not committed, before another writer's turn."""
        opened, domain, victims = self._opened, self.domain(namespace), self.victims(namespace)
        begun: list[Writing] = []

        def inside(transaction: Transaction) -> tuple[T, list[int], list[Lane], Pass | None]:
            victims.settle()
            writing = Writing(transaction, opened.slots, domain)
            begun.append(writing)
            swept = self._sweep.go_on(transaction)
            folded = [lane for lane in dead if opened.lanes.hold([lane])]  # nobody else folded it meanwhile
            for lane in folded:
                counted = self.domain(lane.namespace)
                if counted == domain or totals.has_domain(transaction, counted):  # else it was forgotten since
                    totals.fold(transaction, lane)
            result = body(writing)
            self._go_on_clearing(begun)
            return result, [slot for each in begun for slot in each.finish()], folded, swept

        def after(done: tuple[T, list[int], list[Lane], Pass | None]) -> None:
            for slot in done[1]:
                opened.slots.free(slot)
            for lane in done[2]:
                opened.lanes.free(lane)
            self._sweep.committed(done[3])
            victims.settle()
            opened.slots.committed()
            self._most_bytes[domain] = begun[0].limits.max_bytes

        def undone() -> None:
            for writing in begun:
                writing.undo()
            victims.put_back()
            undo()

        before = partial(self._let_grow, domain, grow) if grow is not None else _nothing
        return opened.lmdb.write(inside, after=after, undo=undone, before=before, patience=patience)[0]

    def _go_on_clearing(self, begun: list[Writing]) -> None:
        """Do a piece of a clear that was left undone, once the first of ``begun`` has done its own."""
        writing = begun[0]
        namespace = None if self._is_hopeless() else removing.left_undone(self._opened.workers, writing.transaction)
        if namespace is None:
            return
        domain = self.domain(namespace)
        if domain != writing.domain:
            writing = Writing(writing.transaction, self._opened.slots, domain)
            begun.append(writing)
        removing.go_on(namespace, writing)

    def _let_grow(self, domain: bytes, grow: Grow) -> None:
        """Tell ``grow`` how many pages it may take. By the limit as of this process's last transaction."""
        if domain in self._most_bytes:
            grow.may_take(self._growth.pages_for(grow.pages, self._most_bytes[domain]))

    # ---- joining ----

    def join(self, namespace: bytes) -> None:
        """Before the first write of a namespace: state its limits, and have a lane to count in."""
        if namespace in self._joined and self._opened.lanes.has(namespace):
            return
        self._with_room(namespace, 0, partial(self._join, namespace))

    def _join(self, namespace: bytes, *, patience: float = PATIENCE) -> None:
        workers = self._opened.workers
        fallback = self._opened.default_limit()
        row = workers.row()
        self._greet(patience)

        def body(writing: Writing) -> None:
            self._opened.lanes.take(namespace, workers.token, row)
            writing.limits = self._stated.applied_to(writing.limits, fallback)

        self._commit(namespace, body, dead=self._find_dead() if self._is_due() else (), patience=patience)
        self._opened.watch()
        self._joined.add(namespace)
        self.visited.add(namespace)

    def _greet(self, patience: float) -> None:
        """At the first use after a boot, have ticks go on and the tables fit the entries."""
        opened, boot = self._opened, boot_identity()
        if opened.slots.boot != boot:
            opened.lmdb.in_turn(partial(rebuilding.after_boot, opened, boot, self.domain), patience=patience)

    def _visit(self, namespace: bytes) -> bool:
        """Join without a transaction, which would cost a store its mark, if nothing is to be written down."""
        opened, workers = self._opened, self._opened.workers
        domain = opened.lmdb.read(totals.read_domain, self.domain(namespace))
        stated = self._stated.applied_to(domain, opened.default_limit())
        if _limits_of(stated) != _limits_of(domain) or sum(1 for _ in opened.lanes.all()) > _MOST_LANES:
            return False
        row = workers.row()
        self._greet(HASTE)
        opened.lmdb.in_turn(lambda: opened.lanes.take(namespace, workers.token, row), patience=HASTE)
        opened.watch()
        self.visited.add(namespace)
        return True

    def join_if_free(self, namespace: bytes) -> None:
        """Join before the first hit, where that can be written and without a long wait: a hit needs no writing.

        Until then what this process counts is kept in it.
        """
        if namespace in self.visited and self._opened.lanes.has(namespace):
            return
        if time.monotonic() < self._join_again:
            return
        try:
            if not self._opened.is_marked() or not self._visit(namespace):
                self._join(namespace, patience=HASTE)
        except StoreError:
            self._join_again = time.monotonic() + ROUND

    def leave(self, namespace: bytes) -> bool:
        """Give up a namespace; whether no other living process counts in it."""
        self._opened.lanes.drop(namespace)
        self._joined.discard(namespace)
        self.visited.discard(namespace)
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
