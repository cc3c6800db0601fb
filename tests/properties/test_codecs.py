"""Codecs against generated values and hostile bytes."""

from __future__ import annotations

import contextlib
import tracemalloc
import zoneinfo
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]  # has none
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batche.codecs import AutoCodec, Codec, MsgpackCodec, PickleCodec
from batche.codecs.base import ARRAY, MARKED, PICKLE, TENSOR
from batche.errors import CodecError
from tests._equality import same

TEXT = st.text(st.characters(exclude_categories=()))
ZONES = st.sampled_from([None, zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("UTC")]) | st.timezones()
HASHABLE = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | st.floats() | st.complex_numbers()
    | TEXT | st.binary() | st.decimals().filter(lambda number: not number.is_snan()) | st.fractions() | st.dates()
    | st.times(timezones=ZONES)
    | st.datetimes(timezones=ZONES) | st.timedeltas() | st.uuids() | TEXT.map(PurePosixPath)
)  # fmt: skip
KEYS = st.recursive(HASHABLE, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4), max_leaves=5)
DTYPES = st.one_of(
    hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.byte_string_dtypes(), hnp.array_dtypes(max_size=3)
)
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
LEAVES = KEYS | st.binary().map(bytearray) | ARRAYS
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS)
    ),
    max_leaves=20,
)
CODECS = pytest.mark.parametrize("made", [AutoCodec(), MsgpackCodec(), PickleCodec()], ids=lambda made: made.name)


@CODECS
@given(value=VALUES)
def test_any_value_comes_back_the_same(made: Codec, value: Any) -> None:
    assert same(made.decode(made.encode(value)), value)


@given(value=VALUES)
def test_plain_values_are_never_pickled_by_auto_unless_parts_are_shared(value: Any) -> None:
    data = AutoCodec().encode([value])
    assert data == MsgpackCodec().encode([value]) or data.startswith(PICKLE)


def _read(data: bytes) -> None:
    """Any value will do; any exception but `CodecError` will not. Nor will memory beyond some times the bytes."""
    tracemalloc.start()
    try:
        for made in (MsgpackCodec(), AutoCodec()):
            with contextlib.suppress(CodecError):
                made.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000 + 9_000 * len(data)


UNPICKLED = st.sampled_from([b"", MARKED, ARRAY, TENSOR, b"\xc1", b"\xc1\0"])


@given(tag=UNPICKLED, data=st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(tag: bytes, data: bytes) -> None:
    if not (tag + data).startswith(PICKLE):
        _read(tag + data)


@given(value=VALUES, edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1), cut=st.integers(0))
def test_mutated_records_raise_nothing_else(value: Any, edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(MsgpackCodec().encode(value))
    for place, byte in edits:
        data[place % len(data)] = byte
    del data[len(data) - cut % 4 :]
    if not data.startswith(PICKLE):
        _read(bytes(data))


@given(code=st.integers(0, 127), payload=st.binary(max_size=60), inner=st.binary(max_size=10))
def test_arbitrary_extensions_raise_nothing_else(code: int, payload: bytes, inner: bytes) -> None:
    nested = msgpack.packb([msgpack.ExtType(code, payload), msgpack.ExtType(code, msgpack.packb([inner]))])
    for data in (nested, MARKED + nested, msgpack.packb(msgpack.ExtType(code, payload + nested))):
        _read(data)


SPECS = st.recursive(
    TEXT | st.sampled_from(["<f4", "|V9", "<U0", "|O", "<M8[ns]", "<f4,<f4", "|S999999999"]),
    lambda inner: st.tuples(inner, st.lists(st.integers(0, 2**40), max_size=3))
    | st.tuples(st.just(["a"]), st.lists(inner, min_size=1, max_size=1), st.just([0]), st.just([None]),
                st.integers(0, 2**40), st.booleans()),
    max_leaves=4,
)  # fmt: skip


@given(spec=SPECS, shape=st.lists(st.integers(-1, 2**63 - 1), max_size=4), fortran=st.booleans())
def test_arrays_that_claim_more_than_there_is(spec: Any, shape: list[int], fortran: bool) -> None:
    packed = msgpack.packb([spec, shape, fortran], unicode_errors="surrogatepass")
    _read(ARRAY + len(packed).to_bytes(2, "little") + packed + b"x" * 24)


def _towers() -> list[Callable[[int], bytes]]:
    mark = msgpack.packb(msgpack.ExtType(1, b""))
    return [
        lambda depth: b"\x91" * depth + b"\xc0",
        lambda depth: MARKED + (b"\x92" + mark) * depth + b"\xc0",
        lambda depth: b"\x81\xc0" * depth + b"\xc0",
        lambda depth: b"\xdd\x00\x00\x40\x00" * depth + b"\xc0" * 0x4000,
        lambda depth: MARKED + mark * depth,
        lambda depth: MARKED + b"\x92" + mark + mark,
    ]


@pytest.mark.parametrize("tower", range(6))
@pytest.mark.parametrize("depth", [1, 100, 900, 1100, 20_000])
def test_towers_of_containers_raise_nothing_else(tower: int, depth: int) -> None:
    _read(_towers()[tower](depth))


def test_a_mark_out_of_place_is_refused() -> None:
    mark = msgpack.packb(msgpack.ExtType(1, b""))
    for data in (mark, b"\x92\x01" + mark, b"\x92" + mark + mark, b"\x81" + mark + b"\x01"):
        with pytest.raises(CodecError):
            MsgpackCodec().decode(MARKED + data)
        with pytest.raises(CodecError):
            MsgpackCodec().decode(data)


@given(data=st.binary(max_size=100))
def test_hostile_pickles_raise_nothing_else(data: bytes) -> None:
    """Random opcodes; names in them cannot reach anything, being random too."""
    for made in (PickleCodec(), AutoCodec()):
        with contextlib.suppress(CodecError):
            made.decode(PICKLE + data)


@given(
    dtype=DTYPES, shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), order=st.sampled_from("CF")
)
def test_arrays_keep_their_memory_order(dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> None:
    array = np.zeros(shape, dtype, order)
    back = MsgpackCodec().decode(MsgpackCodec().encode(array))
    assert same(back, array)
    assert back.flags.writeable
    assert back.flags.owndata
