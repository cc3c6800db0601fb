"""How things are written in LMDB: one byte says what a key is for, and each kind of record has a fixed head.

| key | record |
| --- | --- |
| ``e`` + key | an entry: slot, generation, time, epoch, the encoded result, and a checksum |
| ``c`` + key | a claim: the call that holds it |
| ``s`` + slot | the key whose entry has the slot |
| ``f`` + slot | nothing: the slot is free |
| ``d`` + domain | a domain: what its limits count |
| ``r`` + namespace | a clear that is under way: who makes it, and how far others have gone on with it |
| ``n`` + namespace | a namespace: its epoch, and the counts of processes that are gone |
| ``l`` + lane | the token of the process whose counts in that lane were folded |
| ``g`` | the environment: the next generation and the first slot never used |
| ``i`` | the environment's identity, which its other files carry as well |

Entries, domains, namespaces and ``g`` end with a checksum. An entry without it is as good as none; without the others
nobody could go on, so the environment counts as damaged. A claim that was changed names no living owner.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Final, NamedTuple
from zlib import crc32

from batche._types import KEY_BYTES
from batche.stores.lmdb.damage import UnreadableError
from batche.stores.lmdb.workers import Handle

ENTRY: Final = b"e"
CLAIM: Final = b"c"
SLOT: Final = b"s"
FREE: Final = b"f"
DOMAIN: Final = b"d"
NAMESPACE: Final = b"n"
CLEARING: Final = b"r"
LANE: Final = b"l"
GLOBAL: Final = b"g"
IDENTITY: Final = b"i"

_HEAD: Final = struct.Struct("<IQqI")
_CHECKSUM: Final = struct.Struct("<I")
unpack_head: Final = _HEAD.unpack_from
"""(slot, generation, stored, epoch) of an entry's bytes."""
HEAD_BYTES: Final = _HEAD.size
CHECKSUM_BYTES: Final = _CHECKSUM.size
OVERHEAD_BYTES: Final = HEAD_BYTES + CHECKSUM_BYTES
"""What an entry has beside its value."""
WHOLE: Final = crc32(_CHECKSUM.pack(crc32(b"")))
"""The checksum of any bytes that end with their own checksum, which is how a whole entry is told."""
_CLAIM: Final = struct.Struct("<IIQQQQQIIB")
CLAIM_BYTES: Final = _CLAIM.size
_CALL_PART: Final = struct.calcsize("<IIQQQQQI")
_DOMAIN: Final = struct.Struct("<QQQqqBQQ")
_GLOBAL: Final = struct.Struct("<QI")
_INDEX: Final = struct.Struct(">I")
_SLOT: Final = struct.Struct(">cI")

NODE_BYTES: Final = 10
"""What LMDB adds to each key and record in a page: the node's head and its pointer."""
PAGE_BYTES: Final = 4096
LARGEST_NODE: Final = 2030
"""Records that would make a larger node go to pages of their own."""
TWO_IN_A_PAGE: Final = 1360
FEW_IN_A_PAGE: Final = 1020
SOME_IN_A_PAGE: Final = 340
"""Of nodes over a third, a quarter or a twelfth of a page few fit in one, and in random order it is seldom full: files
grew to 2.4 times the bytes of entries of 1 KB (measured), so these are counted larger than they are."""
SLOT_BYTES: Final = 24 + NODE_BYTES + 1 + _INDEX.size + KEY_BYTES
"""The slot's words and the record that maps it to its key."""


class Record(NamedTuple):
    """An entry as it is written."""

    slot: int
    generation: int
    stored: int
    epoch: int
    value: bytes


def pack_records(
    slots: Sequence[int], generation: int, stored: int, epoch: int, values: Iterable[bytes]
) -> Iterator[bytes]:
    """The bytes of entries whose generations follow one another; a checksum of all that comes last.

    Each is made when it is asked for, so that they are not in memory together.
    """
    pack, checksum = _HEAD.pack, _CHECKSUM.pack
    generations = range(generation, generation + len(slots))
    for slot, number, value in zip(slots, generations, values, strict=True):
        body = pack(slot, number, stored, epoch) + value
        yield body + checksum(crc32(body))


def unpack_record(raw: bytes) -> Record | None:
    """What `pack_records` wrote; `None` where the bytes are anything else."""
    if len(raw) < OVERHEAD_BYTES or crc32(raw) != WHOLE:
        return None
    slot, generation, stored, epoch = unpack_head(raw)
    return Record(slot, generation, stored, epoch, raw[HEAD_BYTES:-CHECKSUM_BYTES])


@lru_cache(maxsize=4096)
def size_of(value_bytes: int) -> int:
    """The bytes an entry takes up, its key, slot and index included, for a result of ``value_bytes``."""
    record = OVERHEAD_BYTES + value_bytes
    node = NODE_BYTES + 1 + KEY_BYTES + record
    if node > LARGEST_NODE:
        pages = -(-(record + 16) // PAGE_BYTES)
        node = NODE_BYTES + 1 + KEY_BYTES + 8 + pages * PAGE_BYTES
    elif node > TWO_IN_A_PAGE:
        node = LARGEST_NODE
    elif node > FEW_IN_A_PAGE:
        node += (LARGEST_NODE - node) // 2
    elif node > SOME_IN_A_PAGE:
        node += node // 8
    return node + (node & 1) + SLOT_BYTES


class Claimed(NamedTuple):
    """A claim as it is written."""

    handle: Handle
    call: tuple[int, int]
    pid: int
    epoch: int
    took_over: bool


_TOOK_OVER, _MOURNED = 1, 2
"""Bits of a claim's last byte."""


def pack_claim(handle: Handle, call: tuple[int, int], pid: int, epoch: int, *, took_over: bool = False) -> bytes:
    """The bytes of a claim; the same for every key of one call, but for ``took_over``."""
    return _CLAIM.pack(handle.row, handle.word, handle.serial, *handle.token, *call, pid, epoch, _TOOK_OVER * took_over)


def unpack_claim(raw: bytes) -> Claimed | None:
    """What `pack_claim` wrote; `None` where the bytes are anything else."""
    if len(raw) != _CLAIM.size:
        return None
    row, word, serial, first, second, began, tie, pid, epoch, flags = _CLAIM.unpack(raw)
    return Claimed(Handle(row, word, serial, (first, second)), (began, tie), pid, epoch, bool(flags & _TOOK_OVER))


def mourned(raw: bytes) -> bytes:
    """A claim of the dead, marked to be removed a while later."""
    return raw[:-1] + bytes([raw[-1] | _MOURNED])


def is_mourned(raw: bytes) -> bool:
    return bool(raw[-1] & _MOURNED)


def is_same_call(one: bytes, other: bytes) -> bool:
    """Whether two claims are of one call, whatever their epochs."""
    return one[:_CALL_PART] == other[:_CALL_PART]


def is_same_epoch(one: bytes, other: bytes) -> bool:
    """Whether two claims are of one call and one epoch, whomever they took over from, marked or not."""
    return one[:-1] == other[:-1]


def seal(body: bytes) -> bytes:
    """``body`` and its checksum."""
    return body + _CHECKSUM.pack(crc32(body))


def unseal(raw: bytes, what: str) -> bytes:
    """What `seal` was given; `UnreadableError` where ``raw`` is anything else."""
    if crc32(raw) != WHOLE:
        raise UnreadableError(f"the record of {what} is damaged")
    return raw[:-CHECKSUM_BYTES]


class Domain(NamedTuple):
    """What limits count: a namespace, or a whole store. ``-1`` is no limit.

    ``by_default`` means that nobody stated a limit by bytes; ``maxsize_stated`` and ``max_bytes_stated`` are when each
    limit was last stated, in nanoseconds by wall clock.
    """

    entries: int = 0
    bytes: int = 0
    evictions: int = 0
    maxsize: int = -1
    max_bytes: int = -1
    by_default: bool = True
    maxsize_stated: int = 0
    max_bytes_stated: int = 0


def pack_domain(domain: Domain) -> bytes:
    return seal(_DOMAIN.pack(*domain))


def unpack_domain(raw: bytes | None) -> Domain:
    if raw is None:
        return Domain()
    domain = Domain(*_DOMAIN.unpack(unseal(raw, "limits")))
    return domain._replace(by_default=bool(domain.by_default))


def pack_global(generation: int, fresh: int) -> bytes:
    return seal(_GLOBAL.pack(generation, fresh))


def unpack_global(raw: bytes | None, fresh: int) -> tuple[int, int]:
    """The next generation and the first slot never used, which is ``fresh`` in a new environment."""
    if raw is None:
        return 1, fresh
    generation, fresh = _GLOBAL.unpack(unseal(raw, "slots"))
    return generation, fresh


def pack_index(index: int) -> bytes:
    return _INDEX.pack(index)


def unpack_index(raw: bytes) -> int:
    return int(_INDEX.unpack(raw)[0])


def pack_slot(slot: int) -> bytes:
    """The key under which the key of a slot's entry is written."""
    return _SLOT.pack(SLOT, slot)


def pack_slots(slots: Iterable[int]) -> Iterator[bytes]:
    """The same for many, without a call of Python's for each."""
    return map(_SLOT.pack, repeat(SLOT), slots)


def slot_of(raw: bytes) -> int | None:
    """The slot that an entry's bytes name, right or wrong; `None` where they are too few."""
    return int(unpack_head(raw)[0]) if len(raw) >= HEAD_BYTES else None
