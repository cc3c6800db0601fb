"""A namespace's epoch and the counts of processes that are gone, and how both add up with those that live."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from batche.stores.base import COUNTED
from batche.stores.lmdb.counts import Lane
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.records import DOMAIN, LANE, NAMESPACE, Domain, pack_index, seal, unpack_domain, unseal
from batche.stores.lmdb.transaction import Transaction

_TOTALS: Final = struct.Struct(f"<I{len(COUNTED)}q")
_TOKEN: Final = struct.Struct("<QQ")
EPOCH: Final = struct.Struct("<I")


class Totals(NamedTuple):
    """What is written down for a namespace. The counts may be negative: a clear sets them against the living."""

    epoch: int = 0
    counts: tuple[int, ...] = (0,) * len(COUNTED)


def read_totals(transaction: Transaction, namespace: bytes) -> Totals:
    raw = transaction.get(NAMESPACE + namespace)
    if raw is None:
        return Totals()
    epoch, *counts = _TOTALS.unpack(unseal(raw, "counts"))
    return Totals(epoch, tuple(counts))


def read_epoch(transaction: Transaction, namespace: bytes) -> int:
    raw = transaction.get(NAMESPACE + namespace)
    epoch: int = EPOCH.unpack_from(unseal(raw, "counts"))[0] if raw is not None else 0
    return epoch


def read_domain(domain: bytes, transaction: Transaction) -> Domain:
    return unpack_domain(transaction.get(DOMAIN + domain))


def has_domain(transaction: Transaction, domain: bytes) -> bool:
    """Whether limits were ever stated for ``domain``, as the first to join does, and it was not forgotten since."""
    return transaction.get(DOMAIN + domain) is not None


def write_totals(transaction: Transaction, namespace: bytes, totals: Totals) -> None:
    transaction.put(NAMESPACE + namespace, seal(_TOTALS.pack(totals.epoch, *totals.counts)))


def added(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The sums of two rows of counts."""
    return tuple(one + other for one, other in zip(first, second, strict=True))


def is_folded(transaction: Transaction, lane: Lane) -> bool:
    """Whether the totals hold what ``lane`` counted already."""
    return transaction.get(LANE + pack_index(lane.index)) == _TOKEN.pack(*lane.token)


def fold(transaction: Transaction, lane: Lane) -> None:
    """Add a lane to the totals and mark that this was done, once."""
    if not is_folded(transaction, lane):
        totals = read_totals(transaction, lane.namespace)
        write_totals(transaction, lane.namespace, totals._replace(counts=added(totals.counts, lane.counts)))
        transaction.put(LANE + pack_index(lane.index), _TOKEN.pack(*lane.token))


def living_counts(transaction: Transaction, opened: OpenEnvironment, namespace: bytes) -> tuple[int, ...]:
    """The sum of the lanes of ``namespace`` that are not in its totals."""
    total = (0,) * len(COUNTED)
    for lane in opened.lanes.of(namespace):
        if not is_folded(transaction, lane):
            total = added(total, lane.counts)
    return total


def count_all(opened: OpenEnvironment, namespace: bytes) -> dict[str, int]:
    """The counts of a namespace over all processes, each counted once.

    Lanes are read first and the totals second, without the lanes that are in them by then. A lane that was
    freed in between may have been used again, and counts that this process keeps may have come into a lane, so then all
    is read anew.
    """
    while True:
        kept, lanes = opened.lanes.kept(namespace), opened.lanes.of(namespace)
        total = opened.lmdb.read(_sum, namespace, lanes)
        if opened.lanes.hold(lanes) and opened.lanes.kept(namespace) == kept:
            return dict(zip(COUNTED, added(total, kept), strict=True))


def _sum(namespace: bytes, lanes: Sequence[Lane], transaction: Transaction) -> tuple[int, ...]:
    total = read_totals(transaction, namespace).counts
    for lane in lanes:
        if not is_folded(transaction, lane):
            total = added(total, lane.counts)
    return total
