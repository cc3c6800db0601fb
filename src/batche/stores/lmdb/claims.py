"""Claims as LMDB holds them: who wins, and who is still alive.

A claim holds while its owner's lock, token and word do (see `workers`). A claim that is over may stay written
down; it is overwritten by whoever claims the key next, and swept by the next writer (see `sweeping`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from batche._boot import random_word
from batche._types import MINE, Call, CallId, Entry, Key, Owner
from batche.stores.base import Answer
from batche.stores.lmdb.following import Following
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.records import CLAIM, Claimed, is_same_call, is_same_epoch, pack_claim, unpack_claim
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.workers import Handle, State


class Owners(list["Owner | None"]):
    """An answer of `LmdbStore.owners`, with what tells whether it still stands."""

    def __init__(self, owners: Sequence[Owner | None], handles: set[Handle], commits: int) -> None:
        super().__init__(owners)
        self.handles = handles
        self.commits = commits


class Right(NamedTuple):
    """What claims a call may store under: its own, written as ``mine``, that of a call whose heir it is, or all.

    One of an earlier epoch is its own too, but a clear has voided it.
    """

    mine: bytes
    heir_of: Mapping[Key, CallId]
    all: bool = False

    def covers(self, key: Key, raw: bytes | None) -> bool:
        """Whether a result may be stored in place of the claim ``raw``; of no claim only where it may be of any."""
        if self.all or raw is None or raw == self.mine:
            return self.all or raw is not None
        return is_same_epoch(raw, self.mine) or (key in self.heir_of and self._inherits(key, raw))

    def _inherits(self, key: Key, raw: bytes) -> bool:
        claimed, own = unpack_claim(raw), unpack_claim(self.mine)
        return bool(claimed and own and claimed.call == self.heir_of[key] and claimed.epoch == own.epoch)

    def is_own(self, raw: bytes) -> bool:
        """Whether the claim ``raw`` is this call's, whatever it is worth."""
        return is_same_call(raw, self.mine)


class Claims:
    """The claims of one environment."""

    def __init__(self, opened: OpenEnvironment) -> None:
        self._workers = opened.workers
        self._slots = opened.slots

    def begin(self, call: Call) -> None:
        """Write ``call`` down among the running ones, once; again where another table has taken the place of theirs."""
        if call.handle is None or call.handle.token != self._workers.token:
            call.handle = self._workers.begin()

    def end(self, call: Call, *, abandoned: bool) -> None:
        """End ``call``: one 8-byte store ends every claim it still holds."""
        handle = call.handle
        if handle is not None:
            self._workers.end(handle, abandoned=abandoned)
            call.handle = None  # only now: whatever interrupts this, it can be done again
            if call.holds:
                self._slots.ended(random_word())

    def bytes_of(self, call: Call, epoch: int, *, took_over: bool = False) -> bytes:
        """A claim of ``call``, as it is written; the last byte says whether it took over, and is marked by a sweep."""
        return pack_claim(call.handle, call.id, os.getpid(), epoch, took_over=took_over)

    def judge(self, raw: bytes | None, epoch: int, known: dict[Handle, State]) -> tuple[State, Claimed | None]:
        """What a written claim is worth. ``known`` remembers owners that were looked at already."""
        claimed = unpack_claim(raw) if raw is not None else None
        if claimed is None or claimed.epoch != epoch:
            return State.ENDED, claimed
        state = known.get(claimed.handle)
        if state is None:
            state = known[claimed.handle] = self._workers.state(claimed.handle)
        return state, claimed

    def win(
        self, transaction: Transaction, following: Following, found: Sequence[Entry | None], epoch: int
    ) -> tuple[list[Answer], int]:
        """Claim those keys that were not found; the answers, and how many were taken over from the dead."""
        mine, limit = self.bytes_of(following.call, epoch), following.limit
        free = [key for key, entry in zip(following.keys, found, strict=True) if entry is None]
        if not following.force and (limit is None or len(free) <= limit):
            claims = [(CLAIM + key, mine) for key in free]
            _, added = transaction.cursor().putmulti(claims, overwrite=False)
            if added == len(free):
                return [MINE if entry is None else entry for entry in found], 0
        return self._win_each(transaction, following, found, epoch)

    def _win_each(
        self, transaction: Transaction, following: Following, found: Sequence[Entry | None], epoch: int
    ) -> tuple[list[Answer], int]:
        """The same one by one, where some are taken or only so many are wanted."""
        known: dict[Handle, State] = {}
        answers: list[Answer] = []
        won = died = 0
        for key, entry in zip(following.keys, found, strict=True):
            if following.limit is not None and won >= following.limit:
                break
            answer, state = (entry, None) if entry else self._win_one(transaction, following, key, epoch, known)
            answers.append(answer)
            won += answer is MINE
            died += state is State.DEAD
        return answers, died

    def _win_one(
        self, transaction: Transaction, following: Following, key: Key, epoch: int, known: dict[Handle, State]
    ) -> tuple[Answer, State]:
        """Claim one key; the answer, and what became of the claim that was there."""
        mine, raw = self.bytes_of(following.call, epoch), transaction.get(CLAIM + key)
        if raw == mine:
            return MINE, State.ENDED
        state, claimed = self.judge(raw, epoch, known)
        if state is State.RUNNING and claimed is not None and not following.force:
            return owner_of(claimed), state
        transaction.put(CLAIM + key, self.bytes_of(following.call, epoch, took_over=state is State.DEAD))
        return MINE, state

    def owners(self, raws: Sequence[bytes | None], epoch: int) -> list[Owner | None]:
        """Who holds each of the written claims."""
        known: dict[Handle, State] = {}
        return [self._owner(*self.judge(raw, epoch, known)) for raw in raws]

    def _owner(self, state: State, claimed: Claimed | None) -> Owner | None:
        if claimed is None or state is State.ENDED:
            return None
        return owner_of(claimed, alive=state is State.RUNNING)

    def suspect(self) -> None:
        """Have the next writer sweep: somebody died."""
        self._slots.ended(random_word())


def owner_of(claimed: Claimed, *, alive: bool = True) -> Owner:
    """The owner that a claim names."""
    return Owner(claimed.call, claimed.pid, alive, claimed.took_over)
