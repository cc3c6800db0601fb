"""How far the file may grow: near the most that it may have, and beside readers that stand still.

LMDB uses the pages that a transaction freed again two transactions later, and not while somebody reads what was there
before. One who stands still inside a read (stopped, frozen, without a turn on a processor) keeps from use whatever is
freed meanwhile, so that writers would add page after page. So where the file is about as large as it may be, the free
pages of use are counted before a transaction that stores. If there are few it stores little. If there are next to none,
and a reader keeps others, it waits a little for that reader, and then does without the store until that one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from batche.errors import StoreError
from batche.stores.base import StoreBusyError, attempt
from batche.stores.lmdb import pages
from batche.stores.lmdb.environment import LITTLE_PATIENCE, Environment
from batche.stores.lmdb.records import DOMAIN, PAGE_BYTES, unpack_domain
from batche.stores.lmdb.transaction import Transaction

if TYPE_CHECKING:
    import lmdb

FEW: Final = 40
"""Pages that a transaction may need which stores next to nothing."""
_FEWER_A_KEY: Final = 16
"""A claim needs one page in so many."""
_A_KEY: Final = 5
"""Pages that a key which is stored needs at the most: of its entry, slot and claim, and of an entry that goes."""
_TIMES: Final = 2.1
_LITTLE: Final = 2 << 20
"""Bytes by which the file of a small store may be larger than its entries."""
_GLANCE: Final = 0.0005
_FRESH: Final = 1.0
"""Seconds for which the limits of the other functions in a file are taken to be the same."""

T = TypeVar("T")


def most_bytes(limit: int) -> int:
    """The bytes that a file may have whose entries may take ``limit`` bytes."""
    return max(int(_TIMES * limit), limit + _LITTLE)


def pages_to_store(keys: int, size: int) -> int:
    """The pages that a transaction needs, at the most, to store ``size`` bytes under so many keys."""
    return FEW + _A_KEY * keys + size // PAGE_BYTES


def keys_in(pages: int) -> int:
    """How many keys may be stored in ``pages``."""
    return (pages - FEW) // _A_KEY


def pages_to_claim(keys: int) -> int:
    """The same to claim so many keys."""
    return FEW + keys // _FEWER_A_KEY


class Grow(Protocol):
    """What is to be stored in one transaction."""

    @property
    def pages(self) -> int:
        """The pages that it needs, at the most."""
        ...

    def may_take(self, pages: int | None) -> None:
        """Learn how many it may take; `None`: as many as it needs."""
        ...


class PinnedError(StoreBusyError):
    """A reader keeps the pages that are needed; it may go on at any moment."""


class Reader(NamedTuple):
    """Who reads what as of which transaction."""

    transaction: int
    pid: int


class Growth:
    """The file of one environment, as its writers in this process make it grow."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._awaited: tuple[Reader | None, float] = None, 0.0
        self._limits = 0, float("-inf")

    def pages_for(self, need: int, limit: int) -> int | None:
        """The pages that the next transaction may take if it would take ``need``; `None`: all of them.

        ``limit`` is that of its domain. The caller has the writer's turn.

        Raises:
            PinnedError: a reader keeps them for the moment.
            StoreError: it has done so for a while.
        """
        last, used = self._environment.ask(_last)
        left = most_bytes(limit) // PAGE_BYTES - used
        if left < need:
            left = most_bytes(max(limit, self._limit_of_all())) // PAGE_BYTES - used
        allowed = None if left >= need else self._counted(last, left)
        self._awaited = None, 0.0
        return allowed

    def _limit_of_all(self) -> int:
        """The sum of the limits of all that is in the file."""
        limit, until = self._limits
        if time.monotonic() > until:
            limit = self._environment.read(_sum_of_limits)
            self._limits = limit, time.monotonic() + _FRESH
        return limit

    def _counted(self, last: int, left: int) -> int | None:
        """The same by counting what is free, where that can be told."""
        free = pages.free(self._environment.path / "data.mdb", self._environment.file)
        if free is None:
            return None
        reader = self._oldest_reader(last)
        if reader is not None and left + _freed_before(reader.transaction, free) < FEW:
            self._environment.check_readers()
            reader = self._oldest_reader(last)
        usable = left + _freed_before(reader.transaction if reader else last, free)
        if reader is not None and usable < min(FEW, left + _freed_before(last, free)):
            raise self._held_up(reader)
        return usable

    def _oldest_reader(self, last: int) -> Reader | None:
        """Who reads what is older than transaction ``last``."""
        reader = min(self._environment.ask(_readers), default=None)
        return reader if reader is not None and reader.transaction < last else None

    def _held_up(self, reader: Reader) -> StoreError:
        """What to say of ``reader``: at first that it may go on at any moment, and after a while that it does not."""
        now, (awaited, until) = time.monotonic(), self._awaited
        if awaited is None or (awaited != reader and now > until + _FRESH):
            until = now + LITTLE_PATIENCE
        self._awaited = reader, until
        return (PinnedError if now < until else StoreError)(
            str(self._environment.path),
            f"is as large as it may be, and process {reader.pid} stands still inside a read (stopped or frozen), which "
            f"keeps its free pages from use: have it go on (kill -CONT {reader.pid}), or end it",
        )


def patiently(write: Callable[[], T]) -> T:
    """Have something written once no reader is in the way any more; `StoreError` where one stays."""
    while True:
        try:
            return write()
        except PinnedError:
            if attempt:
                raise
        time.sleep(_GLANCE)


def _last(env: lmdb.Environment) -> tuple[int, int]:
    """The number of the last commit, and of pages as of it."""
    info = env.info()
    return info["last_txnid"], info["last_pgno"] + 1


def _readers(env: lmdb.Environment) -> list[Reader]:
    rows = (line.split() for line in env.readers().splitlines())  # of a heading, and pid, thread and transaction
    return [Reader(int(row[2]), int(row[0])) for row in rows if row[2].isdecimal()]


def _freed_before(transaction: int, free: Sequence[tuple[int, int]]) -> int:
    return sum(number for freed, number in free if freed < transaction)


def _sum_of_limits(transaction: Transaction) -> int:
    cursor = transaction.cursor()
    there, limit = cursor.set_range(DOMAIN), 0
    while there and cursor.key().startswith(DOMAIN):
        limit += max(0, unpack_domain(cursor.value()).max_bytes)
        there = cursor.next()
    return limit
