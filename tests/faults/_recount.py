"""A count of all that is in an environment, made by walking its records, to be compared with what the store says of it.

It opens the environment by itself, so it is for a process that has it not open: an actor of its own, say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from batche._types import KEY_BYTES, NAMESPACE_BYTES
from batche.stores.lmdb import records
from batche.stores.lmdb.slots import DOMAIN, FREE, Slots

_TOGETHER = bytes(NAMESPACE_BYTES)
"""The domain of a store whose limits count all namespaces as one."""


@dataclass
class Recount:
    """What is in one environment. ``faults`` says, in words, all that contradicts something else."""

    entries: Counter[bytes] = field(default_factory=Counter)
    """By domain."""
    bytes: Counter[bytes] = field(default_factory=Counter)
    """By domain, as `records.size_of` counts them."""
    claims: int = 0
    free_slots: int = 0
    readers: int = 0
    """Reader slots in use, dead processes' ones not among them."""
    faults: list[str] = field(default_factory=list)


def recount(environment: Path) -> Recount:
    """Walk all records of the environment in the directory ``environment``."""
    env = lmdb.open(str(environment), map_size=1 << 30, create=False, max_readers=1022, lib_version=0)
    try:
        env.reader_check()
        counted = Recount(readers=len(env.readers().splitlines()) - 1 if "pid" in env.readers() else 0)
        with env.begin() as transaction:
            found = dict(transaction.cursor())
    finally:
        env.close()
    _count_entries(found, counted)
    _compare_domains(found, counted)
    _check_slots(found, Slots(environment), counted)
    counted.claims = sum(key.startswith(records.CLAIM) for key in found)
    return counted


def recount_place(place: Path) -> list[str]:
    """The faults of every environment of a place."""
    environments = sorted(path.parent for path in place.glob("*/format"))
    return [f"{path.name}: {fault}" for path in environments for fault in recount(path).faults]


def _records(found: dict[bytes, bytes], kind: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((key[len(kind) :], value) for key, value in found.items() if key.startswith(kind))


def _domain_of(found: dict[bytes, bytes], key: bytes) -> bytes:
    return _TOGETHER if records.DOMAIN + _TOGETHER in found else key[:NAMESPACE_BYTES]


def _count_entries(found: dict[bytes, bytes], counted: Recount) -> None:
    slots: dict[int, bytes] = {}
    generation, _ = records.unpack_global(found.get(records.GLOBAL), 0)
    for key, raw in _records(found, records.ENTRY):
        record = records.unpack_record(raw)
        if record is None or len(key) != KEY_BYTES:
            counted.faults.append(f"the entry {key.hex()} is not whole")
            continue
        domain = _domain_of(found, key)
        counted.entries[domain] += 1
        counted.bytes[domain] += records.size_of(len(record.value))
        if slots.setdefault(record.slot, key) != key:
            counted.faults.append(f"two entries have slot {record.slot}")
        if found.get(records.pack_slot(record.slot)) != key:
            counted.faults.append(f"slot {record.slot} does not lead to its entry {key.hex()}")
        if records.FREE + records.pack_index(record.slot) in found:
            counted.faults.append(f"slot {record.slot} is free and has an entry")
        if record.generation >= generation:
            counted.faults.append(f"the entry {key.hex()} is of a generation that was never given")


def _compare_domains(found: dict[bytes, bytes], counted: Recount) -> None:
    written = {key: records.unpack_domain(raw) for key, raw in _records(found, records.DOMAIN)}
    for key in written.keys() | counted.entries.keys():
        domain = written.get(key, records.Domain())
        if (domain.entries, domain.bytes) != (counted.entries[key], counted.bytes[key]):
            counted.faults.append(
                f"domain {key.hex()} says {domain.entries} entries of {domain.bytes} bytes, "
                f"and has {counted.entries[key]} of {counted.bytes[key]}"
            )


def _check_slots(found: dict[bytes, bytes], slots: Slots, counted: Recount) -> None:
    """Each entry has a tick and its domain in the table, and each slot below the first fresh one is used or free."""
    words = slots.refresh()
    used = set()
    for key, raw in _records(found, records.ENTRY):
        slot = records.slot_of(raw)
        if slot is None or slot + DOMAIN >= len(words):
            counted.faults.append(f"the entry {key.hex()} has no slot in the table")
            continue
        used.add(slot)
        if not 0 < words[slot] < FREE:
            counted.faults.append(f"slot {slot} has an entry and the tick {words[slot]}")
        if words[slot + DOMAIN] != int.from_bytes(_domain_of(found, key), "big") and not _is_of_all(found):
            counted.faults.append(f"slot {slot} is of another domain than its entry")
    free = {records.unpack_index(key) for key, _ in _records(found, records.FREE)}
    counted.free_slots = len(free)
    _, fresh = records.unpack_global(found.get(records.GLOBAL), slots.first)
    given = [slot for words_of_chunk, _, _ in slots.chunks() for slot in words_of_chunk if slot < fresh]
    lost = len(set(given) - used - free)
    if lost:
        counted.faults.append(f"{lost} slots are neither free nor of an entry")


def _is_of_all(found: dict[bytes, bytes]) -> bool:
    return records.DOMAIN + _TOGETHER in found


def ghosts(environment: Path) -> int:
    """Slots whose tick says that they have an entry, and which have none: left by transactions that were not committed.

    Only a process that died inside a transaction may leave some; whoever evicts next passes them over.
    """
    env = lmdb.open(str(environment), map_size=1 << 30, create=False, max_readers=1022, lib_version=0)
    try:
        with env.begin() as transaction:
            found = dict(transaction.cursor())
    finally:
        env.close()
    used = {records.slot_of(raw) for _, raw in _records(found, records.ENTRY)}
    return sum(0 < tick < FREE and slot not in used for _, slot, tick in _ticks(Slots(environment)))


def _ticks(slots: Slots) -> Iterator[tuple[int, int, int]]:
    return ((0, slot, tick) for chunk, ticks, _ in slots.chunks() for slot, tick in zip(chunk, ticks, strict=True))
