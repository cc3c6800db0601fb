"""Removing the claims that are over: by the next writers, a piece in each transaction.

A claim of a call that ended goes at once. One of the dead is first marked, and goes a while later: until then its
waiters see that its owner died, and whoever takes it over is known to have done so. The mark is in the claim and the
time in the slot table's header, before the commit, so it does not matter which process comes to remove it, or dies on
the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from batche._boot import boot_ns
from batche._types import Key
from batche.stores.lmdb.claims import Claims
from batche.stores.lmdb.records import CLAIM, is_mourned, mourned, unpack_claim
from batche.stores.lmdb.slots import Slots
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.workers import Handle, State
from batche.stores.lmdb.writing import claimed_keys

MOST_SWEPT: Final = 1024
"""Claims that one transaction looks at; the next writer goes on."""
MOURNING: Final = 1.0
"""Seconds that a claim of the dead stays at least once it is marked; it is gone by the first write after twice that."""


class Pass(NamedTuple):
    """One look at all claims, as far as it has come."""

    ended: int
    """What the header's signal was when it began."""
    until: int
    """The header's `mourning` when it began or marked last. If that has changed, others have marked some."""
    buries: bool
    """Whether it marks the claims of the dead, and removes those that were marked before."""
    after: Key = b""
    """The last claim that it has looked at."""
    marked: bool = False
    """Whether it has marked some."""
    over: bool = False


class Sweep:
    """The claims of one environment that are to go. Under the writer's turn."""

    def __init__(self, slots: Slots, claims: Claims) -> None:
        self._slots = slots
        self._claims = claims
        self._pass: Pass | None = None

    def go_on(self, transaction: Transaction) -> Pass | None:
        """Do a piece, if something is to be swept. What it returns is for `committed`, and not before the commit."""
        going = self._pass
        if going is None or going.until != self._slots.mourning:
            going = self._begun()
        if going is None:
            return None
        found = claimed_keys(transaction, going.after, MOST_SWEPT)
        if self._remove_what_is_over(transaction, found, buries=going.buries):
            going = going._replace(marked=True, until=self._mourn())
        over = len(found) < MOST_SWEPT
        return going._replace(after=b"" if over else found[-1][0], over=over)

    def _mourn(self) -> int:
        """Note until when the claims stay that are marked now: before the commit, so that no crash comes in between."""
        until = boot_ns() + int(MOURNING * 1e9)
        self._slots.mourn(until)
        return until

    def _begun(self) -> Pass | None:
        ended, until = self._slots.to_sweep(), self._slots.mourning
        under_way = 0 < until - boot_ns() <= MOURNING * 1e9  # later ones are of another boot
        if ended is None and (until == 0 or under_way):
            return None
        return Pass(self._slots.ended_last, until, buries=not under_way)

    def committed(self, done: Pass | None) -> None:
        """Note that a piece is written. A pass that was cut short is begun anew by whoever writes next."""
        if done is None or not done.over:
            self._pass = done
            return
        self._pass = None
        self._slots.swept(done.ended)
        if done.buries and not done.marked:
            self._slots.mourn(0)

    def _remove_what_is_over(
        self, transaction: Transaction, found: Sequence[tuple[Key, bytes]], *, buries: bool
    ) -> bool:
        """Remove what has ended. If it ``buries``, the dead's too, marked ones; whether others are marked now."""
        known: dict[Handle, State] = {}
        marked = False
        for key, raw in found:
            claimed = unpack_claim(raw)
            state = State.ENDED if claimed is None else self._claims.judge(raw, claimed.epoch, known)[0]
            if state is State.ENDED or (state is State.DEAD and buries and is_mourned(raw)):
                transaction.delete(CLAIM + key)
            elif state is State.DEAD and buries:
                transaction.put(CLAIM + key, mourned(raw))
                marked = True
        return marked
