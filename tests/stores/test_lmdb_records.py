"""What is written, byte for byte: it comes back the same, and anything else is told from it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batche.stores.lmdb import records
from batche.stores.lmdb.workers import Handle

WORD = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 2**32 - 1)
MOMENT = st.integers(0, 2**63 - 1)


def one_record(slot: int, generation: int, stored: int, epoch: int, value: bytes) -> bytes:
    (raw,) = records.pack_records([slot], generation, stored, epoch, [value])
    return raw


@given(SMALL, WORD, MOMENT, SMALL, st.binary(max_size=300))
def test_an_entry_comes_back(slot: int, generation: int, stored: int, epoch: int, value: bytes) -> None:
    raw = one_record(slot, generation, stored, epoch, value)
    assert records.unpack_record(raw) == (slot, generation, stored, epoch, value)
    assert records.slot_of(raw) == slot


@given(st.binary(max_size=60), st.data())
def test_an_entry_with_a_bit_flipped_or_bytes_missing_is_none(value: bytes, data: st.DataObject) -> None:
    raw = one_record(3, 4, 5, 6, value)
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    assert records.unpack_record(bytes(flipped)) is None
    assert records.unpack_record(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None


def test_entries_of_one_step_have_generations_that_follow_one_another() -> None:
    raws = records.pack_records([7, 9], 100, 1, 2, [b"a", b"b"])
    assert [records.unpack_record(raw) for raw in raws] == [(7, 100, 1, 2, b"a"), (9, 101, 1, 2, b"b")]


@given(SMALL, SMALL, WORD, WORD, WORD, WORD, WORD, SMALL, SMALL, st.booleans())
def test_a_claim_comes_back(
    row: int, word: int, serial: int, one: int, two: int, began: int, tie: int, pid: int, epoch: int, took_over: bool
) -> None:
    handle = Handle(row, word, serial, (one, two))
    raw = records.pack_claim(handle, (began, tie), pid, epoch, took_over=took_over)
    assert records.unpack_claim(raw) == (handle, (began, tie), pid, epoch, took_over)
    assert records.unpack_claim(raw[:-1]) is None


@given(MOMENT, MOMENT, MOMENT, st.integers(-1, 2**62), st.integers(-1, 2**62), st.booleans())
def test_a_domain_comes_back(
    entries: int, size: int, evictions: int, maxsize: int, max_bytes: int, by_default: bool
) -> None:
    domain = records.Domain(entries, size, evictions, maxsize, max_bytes, by_default, entries, size)
    assert records.unpack_domain(records.pack_domain(domain)) == domain


def test_without_a_domain_there_is_no_limit() -> None:
    assert records.unpack_domain(None) == (0, 0, 0, -1, -1, True, 0, 0)


@pytest.mark.parametrize("value_bytes", [0, 8, 100, 700, 1000, 1400, 1900, 2500, 4096, 10_000, 100_000])
def test_an_entry_is_counted_for_at_least_the_pages_that_a_full_tree_gives_it(tmp_path: Path, value_bytes: int) -> None:
    """Keys come in order here, so pages are as full as they get: no entry takes up less than is counted by far."""
    number = 500
    environment = lmdb.open(str(tmp_path / "e"), map_size=1 << 30, sync=False, lib_version=0)
    with environment, environment.begin(write=True) as transaction:
        for index in range(number):
            raw = one_record(index, 1, 1, 1, bytes(value_bytes))
            transaction.put(records.ENTRY + index.to_bytes(28, "big"), raw, append=True)
        found = transaction.stat()
    pages = found["leaf_pages"] + found["overflow_pages"]
    taken, counted = pages * found["psize"] / number, records.size_of(value_bytes)
    assert 0.9 * taken <= counted <= 2 * taken + records.SLOT_BYTES


def test_sizes_grow_with_values() -> None:
    sizes = [records.size_of(value_bytes) for value_bytes in range(5000)]
    assert all(later >= earlier for earlier, later in pairwise(sizes))
    assert min(size - value_bytes for value_bytes, size in enumerate(sizes)) > 0
