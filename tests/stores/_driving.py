"""What tests of stores share: keys, calls as the engine makes them, and a full recount of an LMDB store."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from batche._types import Key
from batche.stores.lmdb import LmdbStore, records, slots
from batche.stores.lmdb.records import CLAIM, DOMAIN, ENTRY, FREE, GLOBAL, OVERHEAD_BYTES, SLOT
from batche.testing._driving import NAMESPACE, OTHER, by_use, claim, contents, key, keys, new_call, use, value

__all__ = [
    "NAMESPACE",
    "OTHER",
    "Model",
    "Server",
    "by_use",
    "claim",
    "claims_of",
    "contents",
    "key",
    "keys",
    "new_call",
    "new_place",
    "random_steps",
    "recount",
    "server",
    "take_model_step",
    "take_step",
    "use",
    "value",
    "wait_until",
]


class Model:
    """What a store with an exact LRU holds, as an ordered dict does it."""

    def __init__(self, maxsize: int | None) -> None:
        self.maxsize = maxsize
        self.held: OrderedDict[int, None] = OrderedDict()
        self.evicted = 0

    def use(self, numbers: Sequence[int]) -> list[int]:
        order = by_use(numbers)
        missed = [number for number in order if number not in self.held]
        for number in order:
            if number in self.held:
                self.held.move_to_end(number)
        for number in missed if self.maxsize != 0 else ():
            self.held[number] = None
        if missed:
            self._evict()
        return missed

    def delete(self, numbers: Sequence[int]) -> int:
        there = [number for number in dict.fromkeys(numbers) if number in self.held]
        for number in there:
            del self.held[number]
        return len(there)

    def clear(self) -> None:
        self.held.clear()

    def _evict(self) -> None:
        while self.maxsize is not None and len(self.held) > self.maxsize:
            self.held.popitem(last=False)
            self.evicted += 1


def random_steps(random: Random, maxsize: int, number: int) -> Iterator[tuple[str, list[int]]]:
    """What callers may do to a store of about ``maxsize`` entries: mostly batches with duplicates and re-reads."""
    universe = 2 * maxsize + 5
    for _ in range(number):
        kind = random.choices(["use", "large", "one", "delete", "clear", "relimit"], [60, 4, 30, 5, 0.3, 1])[0]
        longest = {"use": max(3, maxsize // 3), "large": 2 * maxsize + 3, "delete": 4}.get(kind, 1)
        batch = [random.randrange(universe) for _ in range(random.randrange(longest + 1))]
        if kind == "one":
            batch = [random.randrange(universe)]
        if kind == "relimit":
            batch = [random.choice([maxsize, maxsize, max(1, maxsize // 2), maxsize + 3, 0])]
        yield kind if kind in {"delete", "clear", "relimit"} else "use", batch


def take_step(store: LmdbStore, kind: str, batch: list[int]) -> object:
    """Do it to a store; what it came to."""
    match kind:
        case "use":
            return use(store, batch)
        case "delete":
            return store.delete(keys(dict.fromkeys(batch))) if batch else 0
        case "clear":
            store.clear(NAMESPACE)
        case _:
            LmdbStore(store._opened.place.path, maxsize=batch[0]).read([key(10**6)])  # its first use states the limit
    return None


def take_model_step(model: Model, kind: str, batch: list[int]) -> object:
    match kind:
        case "use":
            return model.use(batch)
        case "delete":
            return model.delete(batch)
        case "clear":
            model.clear()
        case _:
            model.maxsize = batch[0]
    return None


def new_place(directory: Path) -> Path:
    """A directory for a place."""
    path = directory / "p"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def recount(store: LmdbStore) -> Counter[bytes]:
    """Check that entries, slots, free slots and what the limits count agree; returns the entries of each domain."""
    opened = store._opened
    everything: list[tuple[bytes, bytes]] = opened.lmdb.read(lambda transaction: [*transaction.cursor()])
    kinds: dict[bytes, dict[bytes, bytes]] = {}
    for name, raw in everything:
        kinds.setdefault(name[:1], {})[name[1:]] = raw
    entries, sizes, used = Counter[bytes](), Counter[bytes](), dict[int, bytes]()
    words = opened.slots.refresh()
    for name, raw in kinds.get(ENTRY, {}).items():
        record = records.unpack_record(raw)
        assert record is not None, name
        assert record.slot not in used, f"slot {record.slot} is shared by {name!r} and {used[record.slot]!r}"
        used[record.slot] = name
        assert kinds[SLOT][records.pack_index(record.slot)] == name
        assert words[record.slot] < slots.FREE
        assert words[record.slot + slots.GENERATION] == record.generation
        domain = store._upkeep.domain(name[:8])
        assert words[record.slot + slots.DOMAIN] == int.from_bytes(domain, "big")
        entries[domain] += 1
        sizes[domain] += records.size_of(len(raw) - OVERHEAD_BYTES)
    free = {records.unpack_index(name) for name in kinds.get(FREE, {})}
    assert not free & set(used), "a slot is both free and in use"
    assert all(words[slot] == slots.FREE for slot in free)
    _, fresh = records.unpack_global(kinds.get(GLOBAL, {}).get(b""), opened.slots.first)
    allotted = {slot for chunk, _, _ in opened.slots.chunks() for slot in chunk if slot < fresh}
    assert allotted == free | set(used), f"slots leaked: {sorted(allotted - free - set(used))[:9]}"
    for name, raw in kinds.get(DOMAIN, {}).items():
        counted = records.unpack_domain(raw)
        assert (counted.entries, counted.bytes) == (entries[name], sizes[name])
    return entries


def claims_of(store: LmdbStore) -> list[Key]:
    """The keys whose claims are written down, over or not."""
    everything: list[tuple[bytes, bytes]] = store._opened.lmdb.read(lambda transaction: [*transaction.cursor()])
    return [name[1:] for name, _ in everything if name[:1] == CLAIM]


def wait_until(happened: Callable[[], object], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        os.sched_yield()


class Server:
    """Another process that makes the calls it is told to make."""

    def __init__(self, process: Any, connection: Connection) -> None:
        self.process = process
        self.connection = connection

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.connection.send((function, arguments))

    def finish(self) -> Any:
        if not self.connection.poll(40):
            raise TimeoutError("the other process does not answer")
        answer = self.connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function(what make() returned, *arguments)`` there."""
        self.start(function, *arguments)
        return self.finish()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(40)


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    made = make(*arguments)
    while True:
        try:
            function, parameters = connection.recv()
        except EOFError:
            os._exit(0)
        try:
            connection.send(function(made, *parameters))
        except Exception as error:
            connection.send(error)


@contextmanager
def server(make: Callable[..., Any], *arguments: Any, way: str = "spawn") -> Iterator[Server]:
    """A process that has called ``make(*arguments)``, and does with the result as it is told."""
    context: Any = multiprocessing.get_context(way)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, arguments))
    process.start()
    theirs.close()
    try:
        yield Server(process, ours)
    finally:
        ours.close()
        process.kill()
        process.join(40)
        process.close()
