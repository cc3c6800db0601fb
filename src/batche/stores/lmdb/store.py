"""`LmdbStore`: entries and claims of all processes of a host, with exact LRU by count and by bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar
from zlib import crc32

from batche._capacity import default_max_bytes, limits, scarce
from batche._places import path_place
from batche._process import boot_identity
from batche._reports import logger
from batche._types import MINE, NAMESPACE_BYTES, CacheInfo, Call, Entry, Key, Owner, Stored
from batche.stores.base import Answer
from batche.stores.lmdb import records, totals
from batche.stores.lmdb.claims import Claims
from batche.stores.lmdb.counts import Lane
from batche.stores.lmdb.environment import PATIENCE, StoreBusyError, Transaction
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.place import OpenEnvironment, open_place
from batche.stores.lmdb.putting import MOST_BYTES, MOST_KEYS, Putting
from batche.stores.lmdb.records import CHECKED, CLAIM, DOMAIN, ENTRY, HEAD_BYTES, Domain, unpack_head, unpack_record
from batche.stores.lmdb.workers import Handle, State
from batche.stores.lmdb.writing import Writing, keys_of, namespace_of

_PIECE: Final = 64
_ROUND: Final = 1.0
"""Seconds between two looks for processes that died."""
_ALL: Final = bytes(NAMESPACE_BYTES)
"""The domain of a store whose limits count all namespaces together."""
_new_entry: Final = partial(tuple.__new__, Entry)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoration or a store's maker states; `None`: nothing stated."""

    maxsize: int | None = None
    max_bytes: int | None = None

    def applied_to(self, domain: Domain, fallback: int) -> Domain:
        """``domain`` with what is stated here; ``fallback`` bytes where nobody ever stated a limit."""
        if self.maxsize is not None:
            domain = domain._replace(maxsize=self.maxsize)
        if self.max_bytes is not None:
            return domain._replace(max_bytes=self.max_bytes, by_default=False)
        return domain if domain.max_bytes >= 0 else domain._replace(max_bytes=fallback, by_default=True)


class Owners(list["Owner | None"]):
    """An answer of `LmdbStore.owners`, with what tells whether it still stands."""

    def __init__(self, owners: Sequence[Owner | None], handles: set[Handle], commits: int) -> None:
        super().__init__(owners)
        self.handles = handles
        self.commits = commits


class LmdbStore:
    """A store in a directory, shared by every process of the host that opens it.

    Args:
        path: the directory; made (0700) if it is not there.
        maxsize: most entries of all functions together, exact LRU; `None`: no limit by count.
        max_bytes: most bytes, keys and index included; an int or ``"512MiB"``. `None`: by what is free.
        durable: commit with fsync, milliseconds a part, and keep everything across a system crash.

    Raises:
        StoreError: the directory cannot be used: no room, not ours, damaged, of another version.
        ValueError: a limit is not one.

    Without ``durable`` entries survive the death of any process, but not a crash of the operating system.
    """

    encoded: ClassVar[bool] = True
    outlives: ClassVar[bool] = True
    """Its entries are still there when the program has ended."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        maxsize: int | None = None,
        max_bytes: int | str | None = None,
        durable: bool = False,
    ) -> None:
        stated = Limits(*limits(maxsize, max_bytes))
        opened = open_place(path_place(path)).environment("store", durable=durable)
        self._set_up(opened, stated, together=True)
        self._configuration = {"path": path, "maxsize": maxsize, "max_bytes": max_bytes, "durable": durable}

    @classmethod
    def of_function(cls, place: Path, directory: str, stated: Limits, **about: Any) -> LmdbStore:
        """The store of one function name in a place: its limits count each namespace by itself."""
        store = cls.__new__(cls)
        store._set_up(open_place(place).environment(directory, **about), stated, together=False)
        store._configuration = None
        return store

    def _set_up(self, opened: OpenEnvironment, stated: Limits, *, together: bool) -> None:
        self._opened = opened
        self.wakeups = opened.wakeups
        self._stated = stated
        self._together = together
        self._claims = Claims(opened)
        self._candidates: dict[bytes, Candidates] = {}
        self._joined: set[bytes] = set()
        self._told: set[bytes] = set()
        self._join_again = 0.0
        self._looked = time.monotonic()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._configuration is None:
            raise TypeError("the store of a place does not pickle; pickle the function")
        return _rebuild, (self._configuration,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._opened.path.parent)!r})"

    # ---- reading ----

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        if keys:
            self._join_if_free(namespace_of(keys[0]))
        tick = self._opened.slots.tick() if use else 0
        entries: list[Entry | None] = []
        while len(entries) < len(keys):
            done = len(entries)
            part = keys[done : done + MOST_KEYS] if len(keys) > MOST_KEYS or done else keys
            epoch, raws = self._opened.lmdb.read(partial(_read_part, part))
            entries += self._unpack(raws, epoch, tick + done if use else 0)
        return entries

    def _unpack(self, raws: Sequence[bytes | None], epoch: int, tick: int) -> list[Entry | None]:
        """The entries in ``raws``; each that is there is noted as used, at ``tick`` and its place."""
        slots = self._opened.slots
        words, known = slots.words, len(slots.words)
        entries: list[Entry | None] = []
        append = entries.append
        for moment, raw in enumerate(raws, tick):
            if raw is None or len(raw) < HEAD_BYTES:
                append(None)
                continue
            checksum, slot, _, stored, written = unpack_head(raw)
            if written != epoch or crc32(raw[CHECKED:]) != checksum:
                append(None)
                continue
            if slot >= known:
                words = slots.refresh()
                known = len(words)
            if tick and words[slot] < moment:
                words[slot] = moment
            append(_new_entry((raw[HEAD_BYTES:], stored)))
        return entries

    def _join_if_free(self, namespace: bytes) -> None:
        """Join before the first hit, unless a writer has been at it for long: a hit waits for nobody."""
        if namespace in self._joined and self._opened.lanes.has(namespace):
            return
        if time.monotonic() < self._join_again:
            return
        try:
            self._join(namespace, patience=_ROUND / 4)
        except StoreBusyError:
            self._join_again = time.monotonic() + _ROUND

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        commits = self._opened.slots.commits
        if isinstance(before, Owners) and before.commits == commits and self._all_run(before.handles):
            return before
        owners: list[Owner | None] = []
        handles: set[Handle] = set()
        for part in _parts(keys):
            epoch, raws = self._opened.lmdb.read(partial(_read_claims, part))
            owners += self._claims.owners(raws, epoch)
            handles.update(claimed.handle for raw in raws if raw and (claimed := records.unpack_claim(raw)))
        return Owners(owners, handles, commits)

    def _all_run(self, handles: set[Handle]) -> bool:
        return all(self._opened.workers.state(handle) is State.RUNNING for handle in handles)

    # ---- claiming ----

    def claim(self, call: Call, keys: Sequence[Key], /, limit: int | None = None) -> Sequence[Answer]:
        answers: list[Answer] = []
        won = 0
        self._claims.begin(call)
        for part in _parts(keys):
            room = None if limit is None else limit - won
            fresh = self._write(call.namespace, lambda writing, part=part, room=room: self._claim(writing, call, part, room))
            answers += fresh
            won += fresh.count(MINE)
            if len(fresh) < len(part):
                break
        return answers

    def _claim(self, writing: Writing, call: Call, keys: Sequence[Key], limit: int | None) -> list[Answer]:
        transaction, epoch = writing.transaction, totals.read_epoch(writing.transaction, call.namespace)
        known: dict[Handle, State] = {}
        tick = self._opened.slots.tick()
        answers: list[Answer] = []
        taken_over = won = 0
        for moment, key in enumerate(keys, tick):
            if limit is not None and won >= limit:
                break
            raw = transaction.get(ENTRY + key)
            entry = self._unpack([raw], epoch, moment)[0] if raw is not None else None
            if entry is not None:
                answers.append(entry)
                continue
            answer = self._claims.win(transaction, call, key, epoch, known)
            if isinstance(answer, Owner):
                answers.append(answer)
                continue
            answers.append(MINE)
            won += 1
            taken_over += answer[1]
        if taken_over:
            self._opened.lanes.add(call.namespace, {"takeovers": taken_over})
            self._claims.suspect()
        return answers

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        self._claims.end(call, abandoned=abandoned)
        if counts:
            self._opened.lanes.add(call.namespace, counts)

    # ---- storing ----

    def put(
        self,
        call: Call,
        entries: Sequence[tuple[Key, Any]],
        /,
        drop: Sequence[Key] = (),
        claim: Sequence[Key] = (),
        limit: int | None = None,
    ) -> Stored:
        putting = Putting(self._opened, self._claims, call, entries)
        victims = self._victims(call.namespace)
        first, rest = claim[:MOST_KEYS], claim[MOST_KEYS:]
        answers: list[Answer] = []
        while not putting.done:
            scarce_now = scarce(self._opened.path)
            fresh = self._write(
                call.namespace,
                lambda writing, now=scarce_now: self._put(writing, putting, victims, drop, first, limit, scarce_now=now),
            )
            answers += fresh
            if putting.needs_victims:
                victims.refill()
                putting.no_victims = not len(victims)
        self._tell_default_limit(call.namespace, putting)
        if rest and len(answers) == len(first):
            answers += self.claim(call, rest, None if limit is None else limit - answers.count(MINE))
        return Stored(frozenset(putting.kept), frozenset(putting.too_large), answers)

    def _put(
        self,
        writing: Writing,
        putting: Putting,
        victims: Candidates,
        drop: Sequence[Key],
        claim: Sequence[Key],
        limit: int | None,
        *,
        scarce_now: bool,
    ) -> list[Answer]:
        """One transaction of a put; the last one drops and claims as well."""
        putting.store(writing, victims, scarce=scarce_now)
        if not putting.done:
            return []
        putting.drop(writing, drop)
        return self._claim(writing, putting.call, claim, limit) if claim else []

    def _victims(self, namespace: bytes) -> Candidates:
        domain = self._domain(namespace)
        if domain not in self._candidates:
            word = None if self._together else int.from_bytes(domain, "big")
            self._candidates[domain] = Candidates(self._opened.slots, word)
        return self._candidates[domain]

    def _tell_default_limit(self, namespace: bytes, putting: Putting) -> None:
        if putting.evicted_by_default and namespace not in self._told:
            self._told.add(namespace)
            logger.warning(
                "%s reached its default limit of %d bytes and evicts the least recently used entries; "
                "set max_bytes= (or maxsize=) to choose the limit",
                self._opened.path,
                putting.most_bytes,
            )

    # ---- removing ----

    def delete(self, keys: Sequence[Key], /) -> int:
        removed = 0
        for part in _parts(keys):
            removed += self._write(namespace_of(part[0]), partial(_delete, part))
        return removed

    def clear(self, namespace: bytes, /) -> int:
        self._join(namespace)
        return self._clear_pieces(namespace)

    def _clear_pieces(self, namespace: bytes) -> int:
        self._commit(namespace, partial(_raise_epoch, self._opened, namespace), PATIENCE)
        removed = 0
        last: bytes | None = b""
        while last is not None:
            number, last = self._commit(namespace, partial(_clear_piece, namespace, last), PATIENCE)
            removed += number
        return removed

    def forget(self, namespace: bytes) -> None:
        """Remove all that is kept for a namespace, unless another living process counts in it."""
        self._opened.lanes.drop(namespace)
        self._joined.discard(namespace)
        if not any(lane.namespace == namespace for lane in self._opened.lanes.all()):
            self._clear_pieces(namespace)
            self._commit(namespace, partial(_forget, namespace), PATIENCE)

    # ---- telling ----

    def stats(self, namespace: bytes, /) -> CacheInfo:
        counts = totals.count_all(self._opened, namespace)
        domain = self._read_domain(namespace)
        return CacheInfo(
            maxsize=None if domain.maxsize < 0 else domain.maxsize,
            currsize=domain.entries,
            evictions=domain.evictions,
            bytes=domain.bytes,
            max_bytes=None if domain.max_bytes < 0 else domain.max_bytes,
            **counts,
        )

    def _read_domain(self, namespace: bytes) -> Domain:
        key = DOMAIN + self._domain(namespace)
        return records.unpack_domain(self._opened.lmdb.read(lambda transaction: transaction.get(key)))

    def sync(self) -> None:
        """Have the operating system write everything stored so far to the disk.

        Raises:
            StoreError: it could not.
        """
        self._opened.lmdb.sync()

    def close(self) -> None:
        """Close the files in this process. Entries stay; the next use opens the files again."""
        self._opened.lmdb.close()

    # ---- the frame of a write ----

    def _domain(self, namespace: bytes) -> bytes:
        return _ALL if self._together else namespace

    def _write(self, namespace: bytes, body: Callable[[Writing], T], *, patience: float = PATIENCE) -> T:
        """Run ``body`` in a write transaction, with the housekeeping that every writer does."""
        self._join(namespace)
        return self._commit(namespace, body, patience)

    def _commit(self, namespace: bytes, body: Callable[[Writing], T], patience: float) -> T:
        slots, domain = self._opened.slots, self._domain(namespace)

        def inside(transaction: Transaction) -> tuple[T, list[int]]:
            writing = Writing(transaction, slots, domain)
            self._claims.sweep(transaction)
            result = body(writing)
            return result, writing.finish()

        def after(done: tuple[T, list[int]]) -> None:
            for slot in done[1]:
                slots.free(slot)
            slots.committed()

        return self._opened.lmdb.write(inside, after=after, patience=patience)[0]

    def _join(self, namespace: bytes, patience: float = PATIENCE) -> None:
        """Before the first use of a namespace: state its limits, and have a lane to count in."""
        if namespace in self._joined and self._opened.lanes.has(namespace):
            if time.monotonic() - self._looked > _ROUND:
                self._bury()
            return
        self._looked = time.monotonic()
        fallback = default_max_bytes(self._opened.path)
        row, token, boot = self._opened.workers.row(), self._opened.workers.token, boot_identity()
        dead = self._dead_lanes()

        def body(writing: Writing) -> None:
            self._opened.slots.set_clock(boot)
            for lane in dead:
                totals.fold(writing.transaction, lane)
            self._opened.lanes.take(namespace, token, row)
            writing.limits = self._stated.applied_to(writing.limits, fallback)

        self._commit(namespace, body, patience)
        self._free_lanes(dead)
        self._joined.add(namespace)

    def _dead_lanes(self) -> list[Lane]:
        alive = self._opened.workers.alive
        return [lane for lane in self._opened.lanes.all() if not alive(lane.row, lane.token)]

    def _bury(self) -> None:
        """Now and then: fold the counts of processes that died, and have their claims swept."""
        self._looked = time.monotonic()
        dead = self._dead_lanes()
        if dead:
            self._commit(dead[0].namespace, partial(_fold_all, dead), PATIENCE)
            self._free_lanes(dead)

    def _free_lanes(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            self._opened.lanes.free(lane)
        if lanes:
            self._claims.suspect()


def _rebuild(configuration: dict[str, Any]) -> LmdbStore:
    return LmdbStore(**configuration)


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """``keys`` in parts that one transaction may hold."""
    for start in range(0, len(keys), MOST_KEYS):
        yield keys[start : start + MOST_KEYS]


def _read_part(keys: Sequence[Key], transaction: Transaction) -> tuple[int, list[bytes | None]]:
    """The records of the first of ``keys``: all of them, or as many as one transaction may hold."""
    epoch, get = totals.read_epoch(transaction, namespace_of(keys[0])), transaction.get
    raws: list[bytes | None] = []
    room = MOST_BYTES
    for start in range(0, len(keys), _PIECE):
        piece = [get(ENTRY + key) for key in keys[start : start + _PIECE]]
        raws += piece
        room -= sum(map(len, filter(None, piece)))
        if room < 0:
            break
    return epoch, raws


def _read_claims(keys: Sequence[Key], transaction: Transaction) -> tuple[int, list[bytes | None]]:
    return totals.read_epoch(transaction, namespace_of(keys[0])), [transaction.get(CLAIM + key) for key in keys]


def _delete(keys: Sequence[Key], writing: Writing) -> int:
    for key in keys:
        writing.transaction.delete(CLAIM + key)
    return sum(writing.remove(key) for key in keys)


def _raise_epoch(opened: OpenEnvironment, namespace: bytes, writing: Writing) -> None:
    """From here on no entry or claim of ``namespace`` counts; its counts begin at zero."""
    before = totals.read_totals(writing.transaction, namespace)
    living = totals.living_counts(writing.transaction, opened, namespace)
    totals.write_totals(
        writing.transaction, namespace, totals.Totals(before.epoch + 1, tuple(-number for number in living))
    )
    writing.evictions = 0


def _clear_piece(namespace: bytes, last: bytes, writing: Writing) -> tuple[int, bytes | None]:
    """Remove entries and claims of earlier epochs past key ``last``; the number, and where to go on."""
    epoch = totals.read_epoch(writing.transaction, namespace)
    claimed = keys_of(writing.transaction, CLAIM, namespace, last, MOST_KEYS)
    for key in claimed:
        claim = records.unpack_claim(writing.transaction.get(CLAIM + key) or b"")
        if claim is None or claim.epoch != epoch:
            writing.transaction.delete(CLAIM + key)
    keys = keys_of(writing.transaction, ENTRY, namespace, last, MOST_KEYS)
    removed = sum(writing.remove(key) for key in keys if _is_older(writing.transaction, key, epoch))
    return removed, keys[-1] if len(keys) == MOST_KEYS else None


def _is_older(transaction: Transaction, key: Key, epoch: int) -> bool:
    record = unpack_record(transaction.get(ENTRY + key) or b"")
    return record is None or record.epoch != epoch


def _forget(namespace: bytes, writing: Writing) -> None:
    writing.forget()
    writing.transaction.delete(records.NAMESPACE + namespace)


def _fold_all(lanes: Sequence[Lane], writing: Writing) -> None:
    for lane in lanes:
        totals.fold(writing.transaction, lane)
