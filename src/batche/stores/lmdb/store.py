"""`LmdbStore`: entries and claims of all processes of a host, with exact LRU by count and by bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

from batche._capacity import limits, scarce
from batche._places import BegunAnewError, as_store_error, path_place
from batche._reports import logger
from batche._types import NAMESPACE_BYTES, CacheInfo, Call, Entry, Key, Owner, Stored
from batche.stores.base import Answer, attempt
from batche.stores.lmdb import reading, records, removing, scanning, totals
from batche.stores.lmdb.claims import Claims, Owners
from batche.stores.lmdb.eviction import Candidates
from batche.stores.lmdb.following import MOST_KEYS, Following
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.opening import MAP_BYTES
from batche.stores.lmdb.putting import Putting
from batche.stores.lmdb.records import Domain
from batche.stores.lmdb.source import Source, shared
from batche.stores.lmdb.transaction import Transaction
from batche.stores.lmdb.upkeep import Limits, Upkeep
from batche.stores.lmdb.workers import Handle, State
from batche.stores.lmdb.writing import Writing, namespace_of


class LmdbStore:
    """A store in a directory, shared by every process of the host that opens it.

    Args:
        path: the directory; made (0700) if it is not there.
        maxsize: most entries of all functions together, exact LRU; `None`: as was stated before, else no limit.
        max_bytes: most bytes, keys and index included (the file may reach 2.1 times that); an int or ``"512MiB"``.
            `None`: as was stated before, else by what is free. The limits stated last hold for every process.
        durable: commit with fsync, milliseconds a part, and keep everything across a system crash, if all
            that write to the store say so.

    Raises:
        StoreError: the directory cannot be used: no room, not ours, damaged, of another version.
        ValueError: a limit is not one.

    Without ``durable`` entries survive the death of any process. A crash of the operating system they survive if
    nothing was written since `sync`, since the last process that used the store ended by itself, or for 5 s in which
    a process that used it still lived; else the store starts empty, and one WARNING says so.
    """

    encoded: bool = True
    outlives: ClassVar[bool] = True
    """Its entries are still there when the program has ended."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        maxsize: float | SupportsIndex | None = None,
        max_bytes: SupportsIndex | str | None = None,
        durable: bool = False,
    ) -> None:
        stated = Limits(*limits(maxsize, max_bytes))
        place = path_place(path)
        self._source = shared(place, durable=durable, persists=True, map_size=_map_size(stated))
        self._configuration: dict[str, Any] | None = {
            "path": place,
            "maxsize": maxsize,
            "max_bytes": max_bytes,
            "durable": durable,
        }
        self._set_up(self._source.open_anyway(), stated, together=True)

    @classmethod
    def of_function(
        cls,
        place: Path | Callable[[], Path],
        directory: str,
        stated: Limits,
        *,
        persists: bool = False,
        **about: Any,
    ) -> LmdbStore:
        """The store of one function name in a place: its limits count each namespace by itself.

        ``place`` is a directory, or what finds it, and makes it again where it was removed. ``persists``: it outlives
        a boot of the system.
        """
        store = cls.__new__(cls)
        store._configuration = None
        find = place if callable(place) else lambda: place
        store._source = Source(find, directory, persists=persists, map_size=_map_size(stated), **about)
        store._set_up(store._source.open(), stated, together=False)
        return store

    def _set_up(self, opened: OpenEnvironment, stated: Limits, *, together: bool) -> None:
        self._opened = opened
        self._stated = stated
        self._claims = Claims(opened)
        self._upkeep = Upkeep(opened, self._claims, stated, together=together)
        self._together = together
        self._oldest: dict[bytes, scanning.Oldest] = {}
        self._told: set[bytes] = set()
        self._missed: reading.Missed | None = None  # by the last read of any thread
        self.wakeups = opened.wakeups

    def __reduce__(self) -> tuple[Any, ...]:
        if self._configuration is None:
            raise TypeError("the store of a place does not pickle; pickle the function")
        return _rebuild, (self._configuration,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._opened.place.path)!r})"

    # ---- what it is in ----

    def _look(self) -> None:
        """See whether the files are still there and fit for use; go over to others where they are not.

        Raises:
            BegunAnewError: this store is a new one from now on.
            StoreError: there is none for now.
        """
        anew = self._source.renewed(self._opened)
        if anew is not None:
            self._set_up(anew[0], self._stated, together=self._together)
            raise anew[1]

    def _glance(self) -> None:
        """Look, where that is due."""
        if time.monotonic() > self._opened.look_at:
            self._look()

    def _keep_up(self) -> None:
        """The same for what is not part of a call: that the store is a new one is only told."""
        try:
            self._look()
        except BegunAnewError as error:
            logger.warning("%s", error)

    # ---- reading ----

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        if not keys:
            return []
        if time.monotonic() > self._opened.look_at:
            (self._look if use else self._keep_up)()
        namespace = keys[0][:NAMESPACE_BYTES]
        if namespace not in self._upkeep.visited or namespace not in self._opened.lanes.own:  # as it asks itself
            self._upkeep.join_if_free(namespace)
        opened, slots = self._opened, self._opened.slots
        tick = slots.tick() if use else 0
        as_of, raws = opened.lmdb.read(reading.read_raw, keys[:MOST_KEYS], opened.lmdb)
        entries = reading.unpack(raws, as_of.epoch, slots, tick)
        while len(entries) < len(keys):
            done = len(entries)
            then, raws = opened.lmdb.read(reading.read_raw, keys[done : done + MOST_KEYS], opened.lmdb)
            entries += reading.unpack(raws, then.epoch, slots, tick + done if use else 0)
        if not all(entries):
            self._missed = reading.missed(as_of.transaction, keys, entries)
        return entries

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        self._glance()
        commits = self._opened.slots.commits
        if isinstance(before, Owners) and before.commits == commits and self._all_run(before.handles):
            return before
        owners: list[Owner | None] = []
        handles: set[Handle] = set()
        for part in _parts(keys):
            epoch, raws = self._opened.lmdb.read(reading.read_claims, part)
            owners += self._claims.owners(raws, epoch)
            handles.update(claimed.handle for raw in raws if raw and (claimed := records.unpack_claim(raw)))
        return Owners(owners, handles, commits)

    def _all_run(self, handles: set[Handle]) -> bool:
        return all(self._opened.workers.state(handle) is State.RUNNING for handle in handles)

    # ---- claiming ----

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        self._glance()
        self._claims.begin(call)
        following = Following(call, keys, limit, force=force)
        answers = self._upkeep.write(call.namespace, partial(self._claim, following), grow=following)
        self._count_takeovers(following)
        return answers

    def _claim(self, following: Following, writing: Writing) -> list[Answer]:
        """Claim keys in one transaction, each read again in it."""
        epoch = totals.read_epoch(writing.transaction, following.call.namespace)
        found = self._read_again(following, epoch, writing.transaction)
        answers, following.died = self._claims.win(writing.transaction, following.first(len(found)), found, epoch)
        return answers

    def _count_takeovers(self, following: Following) -> None:
        """Once the claims are committed."""
        if following.died:
            self._opened.lanes.add(following.call.namespace, {"takeovers": following.died})

    def _read_again(self, following: Following, epoch: int, transaction: Transaction) -> Sequence[Entry | None]:
        """The entries of the first keys that follow by now, as many as one transaction may read.

        Nothing is read where nothing was committed since all of them were missed.
        """
        keys, newer_than = following.keys, following.call.newer_than
        missed = self._missed
        if missed is not None and missed.still(keys, transaction):
            return [None] * len(keys)
        slots = self._opened.slots
        found = reading.unpack(reading.read_records(keys, transaction), epoch, slots, slots.tick())
        return [entry if entry and entry[1] > newer_than else None for entry in found] if newer_than else found

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        if call.handle is not None:
            self._claims.end(call, abandoned=abandoned)
        lanes = self._opened.lanes
        if counts and (not call.pid or lanes.are_own()):  # a call of nobody has just passed the gate, which looks too
            lanes.add(call.namespace, counts)

    # ---- storing ----

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
        self._glance()
        self._claims.begin(call)
        putting = Putting(self._claims, call, entries, drop, force=force)
        following = Following(call, claim, limit)
        upkeep = self._upkeep  # another thread may go over to other files meanwhile
        victims = upkeep.victims(call.namespace)
        answers: list[Answer] = []
        while not putting.done:
            victims.provide(min(len(entries), MOST_KEYS), exhausted=putting.needs_victims)
            with as_store_error(str(self._opened.path)):
                putting.scarce, putting.room = scarce(self._opened.path), upkeep.room()
            answers = upkeep.write(
                call.namespace,
                partial(self._put, putting, following, victims),
                undo=putting.undo,
                need=putting.need,
                room=putting.room,
                grow=putting,
            )
            if attempt and not putting.needs_victims:
                break
        self._count_takeovers(following)
        self._tell_default_limit(call.namespace, putting)
        return Stored(frozenset(putting.kept), frozenset(putting.too_large), answers, putting.rest)

    def _put(self, putting: Putting, following: Following, victims: Candidates, writing: Writing) -> list[Answer]:
        """One transaction of a put; the last one claims as well."""
        putting.store(writing, victims)
        return self._claim(following, writing) if putting.done and following.keys else []

    def _domain_word(self, namespace: bytes) -> int | None:
        """What the slots of a namespace are known by; `None` where those of all namespaces are."""
        return None if self._together else int.from_bytes(namespace, "big")

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
        self._keep_up()  # now: what is removed only from files that others have left would come back
        write = self._upkeep.write
        return sum(write(namespace_of(part[0]), partial(removing.delete, part)) for part in _parts(keys))

    def clear(self, namespace: bytes, /) -> int:
        self._keep_up()
        self._upkeep.join(namespace)
        return self._clear(namespace)

    def _clear(self, namespace: bytes) -> int:
        opened, removed = self._opened, 0
        last: bytes | None = b""
        handle = opened.workers.begin()
        try:
            clear = records.pack_claim(handle, (0, 0), os.getpid(), 0)
            self._upkeep.commit(namespace, partial(removing.begin_clear, opened, namespace, clear))
            while last is not None:
                number, last = self._upkeep.commit(namespace, partial(removing.clear_next, namespace, last, clear))
                removed += number
            return removed
        finally:
            opened.workers.end(handle)

    def forget(self, namespace: bytes) -> bool:
        """Remove all that is kept for a namespace, unless another living process counts in it; whether it is gone."""
        if not self._upkeep.leave(namespace):
            return False
        if self._read_domain(namespace) == Domain():
            return True
        self._clear(namespace)
        return self._upkeep.commit(namespace, partial(self._forget, namespace))

    def _forget(self, namespace: bytes, writing: Writing) -> bool:
        """Do it, unless a process has joined since: it would be left without the limits that it has stated."""
        if not self._upkeep.leave(namespace):
            return False
        removing.forget(self._opened, namespace, writing)
        return True

    # ---- in order of recency: `Scannable` ----

    def keys(self, namespace: bytes, /) -> Iterator[Key]:
        self._keep_up()
        opened = self._opened
        return iter(scanning.keys_by_use(opened.slots, self._domain_word(namespace), namespace, opened.lmdb.read))

    def take(self, keys: Sequence[Key], /) -> Sequence[Entry | None]:
        self._keep_up()
        write = self._upkeep.write
        return [entry for part in _parts(keys) for entry in write(namespace_of(part[0]), partial(scanning.take, part))]

    def take_oldest(self, namespace: bytes, /) -> tuple[Key, Entry] | None:
        if time.monotonic() > self._opened.look_at:
            self._keep_up()
        oldest = self._oldest.get(namespace)
        if oldest is None:
            oldest = self._oldest[namespace] = scanning.Oldest(
                self._opened.slots, self._domain_word(namespace), namespace
            )
        return oldest.take(partial(self._upkeep.write, namespace))

    # ---- telling ----

    def stats(self, namespace: bytes, /) -> CacheInfo:
        if time.monotonic() > self._opened.look_at:
            self._keep_up()
        self._upkeep.join_if_free(namespace)  # so that others see what it has counted until then
        domain = self._read_domain(namespace)
        counts = totals.count_all(self._opened, namespace)
        return CacheInfo(
            maxsize=None if domain.maxsize < 0 else domain.maxsize,
            currsize=domain.entries,
            evictions=domain.evictions,
            bytes=domain.bytes,
            max_bytes=None if domain.max_bytes < 0 else domain.max_bytes,
            **counts,
        )

    def _read_domain(self, namespace: bytes) -> Domain:
        return self._opened.lmdb.read(totals.read_domain, self._upkeep.domain(namespace))

    def sync(self) -> None:
        """Have everything stored so far survive a crash of the operating system.

        It waits for the disk, and holds other writers up for the last part of that. The next write, by any process,
        puts the store at risk again: until 5 s after the last one a crash of the system loses all of it, unless it
        is ``durable``. Reading does not.

        Raises:
            StoreError: the disk did not take it, or others were writing for 10 s.
        """
        self._keep_up()
        self._opened.make_mark()

    def close(self) -> None:
        """Close the files in this process, after a `sync` if there is a turn to write within a second.

        Entries stay; the next use opens the files again. A process that ends by itself needs no ``close``: the last
        one to do so has the entries survive a crash of the system too.
        """
        self._opened.close()


def _rebuild(configuration: dict[str, Any]) -> LmdbStore:
    return LmdbStore(**configuration)


def _map_size(stated: Limits) -> int:
    """Address space for a new environment: at least four times what may be stored in it."""
    return max(MAP_BYTES, 4 * (stated.max_bytes or 0))


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """``keys`` in parts that one transaction may hold."""
    for start in range(0, len(keys), MOST_KEYS):
        yield keys[start : start + MOST_KEYS]
