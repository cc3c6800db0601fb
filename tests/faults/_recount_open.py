"""A full recount of an LMDB store: what is written record by record, against what the store says of itself.

Unlike the recount of `tests.stores._driving` it holds after a writer was killed at any instruction. What a crash
may leave behind is told apart from what it may not: a tick or a generation of the slot table may be ahead of its
record, which costs recency and near hits; a record, a count or a slot may never be lost.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from batche.stores.lmdb import LmdbStore, records, slots
from batche.stores.lmdb.records import CLAIM, DOMAIN, ENTRY, FREE, GLOBAL, OVERHEAD_BYTES, SLOT

Records = dict[bytes, dict[bytes, bytes]]


@dataclass
class Recount:
    """What was found. ``wrong`` says what does not add up."""

    entries: int = 0
    bytes: int = 0
    claims: int = 0
    free_slots: int = 0
    wrong: list[str] = field(default_factory=list)


def recount(store: LmdbStore) -> Recount:
    """Read everything that is written in the environment of ``store``, in one transaction, and add it up.

    Nobody may write meanwhile: the slot table is compared as well, which belongs to no snapshot.
    """
    found = Recount()
    kinds = _records(store)
    used = _entries(store, kinds, found)
    _slots(store, kinds, used, found)
    found.claims = len(kinds.get(CLAIM, {}))
    return found


def _records(store: LmdbStore) -> Records:
    everything: list[tuple[bytes, bytes]] = store._opened.lmdb.read(lambda transaction: [*transaction.cursor()])
    kinds: Records = {}
    for name, raw in everything:
        kinds.setdefault(name[:1], {})[name[1:]] = raw
    return kinds


def _entries(store: LmdbStore, kinds: Records, found: Recount) -> dict[int, bytes]:
    """Which key has which slot; entries and bytes of each domain are compared with what its record says."""
    entries, sizes, used = Counter[bytes](), Counter[bytes](), dict[int, bytes]()
    for name, raw in kinds.get(ENTRY, {}).items():
        record = records.unpack_record(raw)
        if record is None:
            found.wrong.append(f"the entry of {name.hex()} is not whole")
            continue
        if record.slot in used:
            found.wrong.append(f"slot {record.slot} belongs to two entries")
        used[record.slot] = name
        domain = store._upkeep.domain(name[:8])
        entries[domain] += 1
        sizes[domain] += records.size_of(len(raw) - OVERHEAD_BYTES)
    for name in {*kinds.get(DOMAIN, {}), *entries}:
        counted = records.unpack_domain(kinds.get(DOMAIN, {}).get(name))
        if (counted.entries, counted.bytes) != (entries[name], sizes[name]):
            found.wrong.append(f"{counted} where there are {entries[name]} entries of {sizes[name]} bytes")
    found.entries, found.bytes = entries.total(), sizes.total()
    return used


def _slots(store: LmdbStore, kinds: Records, used: dict[int, bytes], found: Recount) -> None:
    """Each slot ever handed out is an entry's, which can be evicted by it, or free; none is both or neither."""
    words = store._opened.slots.refresh()
    for slot, name in used.items():
        if kinds[SLOT].get(records.pack_index(slot)) != name:
            found.wrong.append(f"slot {slot} does not lead to its entry")
        if not 0 < words[slot] < slots.FREE:
            found.wrong.append(f"the entry of slot {slot} can never be evicted: its tick is {words[slot]}")
        if words[slot + slots.DOMAIN] != int.from_bytes(store._upkeep.domain(name[:8]), "big"):
            found.wrong.append(f"the entry of slot {slot} is found under another domain")
    free = {records.unpack_index(name) for name in kinds.get(FREE, {})}
    _, fresh = records.unpack_global(kinds.get(GLOBAL, {}).get(b""), store._opened.slots.first)
    allotted = {slot for chunk, _, _ in store._opened.slots.chunks() for slot in chunk if slot < fresh}
    if free & used.keys():
        found.wrong.append(f"{len(free & used.keys())} slots are free and in use")
    if allotted != free | used.keys():
        found.wrong.append(f"{len(allotted - free - used.keys())} slots are neither free nor in use")
    found.free_slots = len(free)


def readers(store: LmdbStore) -> set[int]:
    """The processes that have a place in LMDB's table of readers; the heading of its listing has no number."""
    rows = store._opened.lmdb._handle().readers().splitlines()
    return {int(row.split()[0]) for row in rows if row.split() and row.split()[0].isdigit()}


def lock_holders(place: Path) -> set[int]:
    """The processes that hold a lock on any file of a place."""
    files = {(os.stat(path).st_dev, os.stat(path).st_ino) for path in place.rglob("*")}
    holders = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.replace("-> ", "").split()
        major, minor, inode = fields[5].split(":")
        if (os.makedev(int(major, 16), int(minor, 16)), int(inode)) in files:
            holders.add(int(fields[4]))
    return holders
