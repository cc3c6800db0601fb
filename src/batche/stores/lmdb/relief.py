"""Making room in an environment whose file system, or whose map, is full.

A removal needs room too: LMDB writes changed pages beside the old ones, and uses the pages that a transaction freed
only two transactions later. So some pages are kept for removals, entries are evicted in small steps, with a last one
that changes nearly nothing, and where not even that can be written, a file that was kept for this case is given up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Final

from batche._capacity import free_room
from batche._places import entered
from batche._trouble import FULL, StoreFullError
from batche.stores.lmdb.environment import Environment
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.words import allocate, open_file
from batche.stores.lmdb.writing import Writing

BALLAST_BYTES: Final = 256 << 10
"""Room for the pages of some twenty removals."""
_PLENTY: Final = 4 * BALLAST_BYTES
"""Free bytes of a file system at which a ballast that was given up is made again: not the last that there are."""
SHORT: Final = 2 * BALLAST_BYTES
"""Bytes that a store keeps for transactions that remove: with less, it evicts more than it stores."""
_AMPLE: Final = 256 << 20
"""Free bytes with which nobody needs to know exactly."""
_FIRST_STEP: Final = 8
_LARGEST_STEP: Final = 64
_MOST_HUNTS: Final = 3
"""Scans in a row that may find no victim."""

Commit = Callable[[Callable[[Writing], None]], object]
"""Runs a function in a write transaction."""


class Reserve:
    """What one environment has for removals: empty pages of its file, and the ballast, a file that nobody maps."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.store = str(environment.path)

    def room(self) -> int | None:
        """The bytes that may be written, in pages that are empty and by which the file may grow; `None`: ample.

        Some of the pages may be of use only two transactions later.
        """
        free, left = free_room(self._environment.path), self._environment.map_bytes_left()
        least = left if free is None else min(free, left)
        return None if least >= _AMPLE else least + self._environment.empty_bytes()

    def room_at_most(self) -> int | None:
        """The same with the ballast given up."""
        room = self.room()
        return None if room is None else room + _ballast_bytes(self._environment.path)

    def take(self) -> None:
        """Have the ballast, where there is room for it several times over."""
        take_ballast(self._environment.path)

    def give_up(self) -> bool:
        """Make the room of the ballast free; whether it had any."""
        with suppress(OSError):
            if _ballast_bytes(self._environment.path):
                with entered(self._environment.path) as inside:
                    _give_up_ballast(self._environment.path, inside)
                return True
        return False


def take_ballast(directory: Path, inside: int | None = None) -> None:
    """Make the ballast of the environment in ``directory``, where there is room for it several times over."""
    with suppress(OSError):
        free = free_room(directory)
        if _ballast_bytes(directory) < BALLAST_BYTES and (free is None or free >= _PLENTY):
            with entered(directory) if inside is None else nullcontext(inside) as descriptor:
                allocate(_ballast(directory), BALLAST_BYTES, inside=descriptor)


def _give_up_ballast(directory: Path, inside: int) -> None:
    descriptor = open_file(_ballast(directory), os.O_WRONLY, inside)
    try:
        os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _ballast(directory: Path) -> Path:
    return directory / "ballast"


def _ballast_bytes(directory: Path) -> int:
    try:
        return os.stat(_ballast(directory), follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


class _Clearing:
    """An eviction in steps of a few entries, each in a transaction of its own."""

    def __init__(self, victims: Candidates, need: int, room: int | None) -> None:
        self._victims = victims
        self._need = need
        self._room = room
        self._step = _FIRST_STEP
        self._hunts = 0
        self._goal: int | None = None
        self._now = 0
        self._reached = False
        self.evicted = 0
        self.in_vain = False

    def evict(self, writing: Writing) -> None:
        """Evict a few entries, the least recently used first."""
        if self._goal is None:
            self._goal = writing.bytes - self._need - min(3 * self._need, BALLAST_BYTES)
            self.in_vain = self._room is not None and self._room + writing.bytes < self._need
        if self.in_vain:
            return
        before = writing.entries
        victims = islice(iter(self._victims.pop, None), self._step)
        self._reached = writing.make_room(0, 0, self._goal, lambda: next(victims, None))
        self._now = before - writing.entries

    def is_over(self) -> bool:
        """After a step was committed: whether it was the last one. The next one is larger."""
        self.evicted += self._now
        self._step = min(2 * self._step, _LARGEST_STEP)
        self._hunts = 0 if self._now else self._hunts + 1
        if not len(self._victims):
            self._victims.refill()
        return self._reached or self.in_vain or self._hunts >= _MOST_HUNTS

    def shrink(self) -> bool:
        """After a step that could not be written: whether it can be made smaller."""
        smaller = self._step > 1
        self._step = 1
        return smaller


def make_room(commit: Commit, victims: Candidates, reserve: Reserve, need: int) -> None:
    """Evict the least recently used ``need`` bytes and some, and have their room ready for the next transaction.

    Raises:
        StoreFullError: not even a removal can be written, or it would not be enough to remove all there is.
    """
    clearing = _Clearing(victims, need, reserve.room_at_most())
    over = False
    while not over:
        try:
            commit(clearing.evict)
            over = clearing.is_over()
        except StoreFullError:
            if not clearing.shrink() and not reserve.give_up():
                raise
    if clearing.in_vain:
        raise StoreFullError(reserve.store, FULL)
    if not clearing.evicted:
        reserve.give_up()
    _settle(commit, reserve)


def _settle(commit: Commit, reserve: Reserve) -> None:
    """One more transaction: the next may then use the pages that the one before it freed."""
    try:
        commit(Writing.touch)
    except StoreFullError:
        if not reserve.give_up():
            raise
        commit(Writing.touch)
