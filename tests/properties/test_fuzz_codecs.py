"""Bytes that no codec wrote: a decoder gives a value or a `CodecError`, soon, in little memory, and runs nothing."""

from __future__ import annotations

import importlib.util
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batche import cache_batch_variable
from batche._types import Key
from batche.codecs import codec
from batche.codecs.base import ARRAY, MARKED, PICKLE, TENSOR
from batche.errors import CodecError
from batche.stores.lmdb import LmdbStore, records
from batche.stores.lmdb.records import ENTRY
from batche.stores.lmdb.upkeep import Limits

TIMES: Final = 100
"""Bytes of memory for each byte of a record: an empty dict is 64 for one, and a reference to it 8."""
ASIDE: Final = 64 << 10
"""What an error, its traceback and a header that is remembered take, whatever the record."""
MOST_LEVELS: Final = 1024
MOST_CLAIMED: Final = 10_240
"""msgpack makes room for as many elements as a list claims, up to these and to the bytes there are, at each level."""
EXTENSIONS: Final = range(-128, 128)
TAGS: Final = (b"", MARKED, ARRAY, TENSOR, PICKLE, b"\xc1", b"\xc1Z")

msgpack_codec: Final = codec("msgpack")


@pytest.fixture(scope="module", autouse=True)
def _all_is_imported() -> Iterator[None]:
    """What a decoder imports is not memory of the record, nor what looking for what is not there takes (70 KB)."""
    for value in (np.arange(3), np.float32(1), np.str_("a"), Decimal(1), {1: (2, {3})}):
        msgpack_codec.decode(msgpack_codec.encode(value))
    decoded(msgpack.packb(msgpack.ExtType(36, b"zEurope/Berlin")))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("torch", "tzdata"):
            if importlib.util.find_spec(name) is None:
                patch.setitem(sys.modules, name, None)  # no search
        yield


def decoded(data: bytes) -> Any:
    """The value, or the `CodecError`; anything else is raised."""
    try:
        return msgpack_codec.decode(data)
    except CodecError as error:
        return error


def memory_of(act: Callable[[], object]) -> int:
    """The most bytes that were in use at one time while ``act`` ran, beyond those before."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def header(text: str, claimed: int) -> bytes:
    return b"".join(
        (
            {"array": b"\xdd", "map": b"\xdf", "str": b"\xdb", "bin": b"\xc6", "ext": b"\xc9"}[text],
            struct.pack(">I", claimed),
            b"\x10" if text == "ext" else b"",
        )
    )


def array(spec: Any, shape: Any, fortran: Any = False, body: bytes = b"") -> bytes:
    """A record of an array that claims what it likes."""
    head: bytes = msgpack.packb((spec, shape, fortran))
    return ARRAY + struct.pack("<H", len(head)) + head + body


# ---- anything at all ----

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary()
)
extensions = st.builds(
    msgpack.ExtType, st.sampled_from([*range(7), *range(16, 24), *range(32, 39), *range(48, 53), 127]), st.binary()
)
trees = st.recursive(
    scalars | extensions,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(scalars | extensions, inner, max_size=4),
    max_leaves=20,
)
specs = st.recursive(
    st.sampled_from(["<f8", "|S0", "|S2147483647", "|O", "<M8[s]", "<U9", "|V7", "x", ""]) | scalars,
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=10,
)
headers = st.builds(header, st.sampled_from(["array", "map", "str", "bin", "ext"]), st.integers(0, 2**32 - 1))
records_of_any_kind = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda tree: bytes(msgpack.packb(tree, unicode_errors="surrogatepass")), trees),
    st.builds(b"".join, st.lists(headers | st.binary(max_size=9), max_size=40)),
    st.builds(
        array, specs, st.lists(st.integers(-3, 2**64 - 1), max_size=4) | scalars, scalars, st.binary(max_size=40)
    ),
)


def changed(record: bytes, changes: list[tuple[int, int]], end: int | None) -> bytes:
    """A record with some bytes set, and perhaps cut."""
    data = bytearray(record)
    for place, byte in changes if data else ():
        data[place % len(data)] = byte
    return bytes(data[:end])


hostile = st.builds(
    changed,
    st.builds(lambda tag, record: tag + record, st.sampled_from(TAGS), records_of_any_kind),
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=4),
    st.none() | st.integers(0, 300),
)


@given(hostile)
@example(b"")
@example(b"\xc1")
@example(MARKED + bytes(msgpack.packb([msgpack.ExtType(4, b""), "1e999999999"])))
@example(MARKED + bytes(msgpack.packb([msgpack.ExtType(4, b""), msgpack.ExtType(19, b"1E+999999999")])))
@example(array([["<f8", [1]]] * 300, [1]))
def test_any_bytes_are_a_value_or_a_codec_error(data: bytes) -> None:
    room = TIMES * len(data) + 8 * min(len(data), MOST_LEVELS) * min(len(data), MOST_CLAIMED)
    assert memory_of(lambda: decoded(data)) <= room + ASIDE


@given(hostile)
def test_what_a_decoder_takes_in_other_codecs_is_theirs_alone(data: bytes) -> None:
    """ "auto" reads what "msgpack" reads, and "pickle" nothing but pickles, of which none is among these."""
    with pytest.raises(CodecError):
        codec("pickle").decode(data.removeprefix(PICKLE))
    if data[:2] != PICKLE:
        try:
            found: object = type(codec("auto").decode(data))
        except CodecError:
            found = CodecError
        assert found is type(decoded(data))


# ---- claims ----


@pytest.mark.parametrize("kind", ["array", "map", "str", "bin", "ext"])
@pytest.mark.parametrize("claimed", [2**32 - 1, 2**31, 2**24, 100_000])
@pytest.mark.parametrize("tag", [b"", MARKED])
def test_a_header_that_claims_more_than_there_is_takes_no_memory(kind: str, claimed: int, tag: bytes) -> None:
    data = tag + header(kind, claimed) + b"\1" * 50
    assert isinstance(decoded(data), CodecError)
    assert memory_of(lambda: decoded(data)) <= TIMES * len(data) + ASIDE


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("<f8", [2**40]),
        ("<f8", [2**20, 2**20, 2**20]),
        ("<f8", [2**62, 2**62, 0]),
        ("<f8", [-1]),
        ("<f8", [0, 2**62]),
        ("|S2147483647", [1]),
        ("|S2147483647", [0]),
        (["<f8", [2**30]], [4]),
        (["<f8", [2**20]], [0]),
        ([["a"], ["<f8"], [0], [None], 2**31 - 8, False], [1]),
        ([["a"], ["<f8"], [2**31], [None], 8, False], [1]),
        ("|O", [1]),
    ],
)
def test_an_array_that_claims_a_huge_shape_takes_no_memory(spec: Any, shape: Any) -> None:
    data = array(spec, shape, body=bytes(64))
    nested = bytes(msgpack.packb([msgpack.ExtType(48, data[2:]), msgpack.ExtType(49, data[2:])]))
    for record in (data, nested, data[:-64]):
        assert memory_of(lambda record=record: decoded(record)) <= TIMES * len(record) + ASIDE  # type: ignore[misc]  # bound now
    assert isinstance(decoded(data), CodecError)


def test_lists_in_lists_that_each_claim_all_there_is_take_what_msgpack_makes_room_for() -> None:
    """The bound for hostile records of any size: 84 MB beside `TIMES` their length."""
    for length in (1_000, 100_000):
        data = (header("array", length - 5) * MOST_LEVELS)[:length].ljust(length, b"\1")
        room = 8 * MOST_LEVELS * min(length, MOST_CLAIMED)
        assert memory_of(lambda data=data: decoded(data)) <= room + TIMES * length + ASIDE  # type: ignore[misc]  # bound now
        assert isinstance(decoded(data), CodecError)


def test_decoding_hostile_bytes_again_and_again_keeps_nothing() -> None:
    data = b"\x91" * 900 + b"\x92\xa5hello"
    decoded(data)

    def again() -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            decoded(data)
        return tracemalloc.get_traced_memory()[0] - before

    kept: list[int] = []
    memory_of(lambda: kept.append(again()))
    assert kept[0] < ASIDE


# ---- pickles ----

exploded: list[str] = []


def explode() -> str:
    exploded.append("!")
    return "exploded"


class Bomb:
    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return explode, ()


BOMB: Final = pickle.dumps(Bomb())


@pytest.fixture(autouse=True)
def _unexploded() -> Iterator[None]:
    exploded.clear()
    yield
    exploded.clear()


def bombs() -> Iterator[bytes]:
    """A pickle that does something, everywhere in a record where bytes may be."""
    yield from (BOMB, PICKLE + BOMB)
    for tag in TAGS:
        yield tag + BOMB
        yield tag + struct.pack("<H", len(BOMB)) + BOMB
        for code in EXTENSIONS:
            leaf = msgpack.ExtType(code, BOMB) if code >= 0 else None
            raw = b"\xc7" + bytes([len(BOMB)]) + struct.pack("b", code) + BOMB
            for record in (raw, b"\x91" + raw, b"\x81" + raw + b"\1", b"\x81\1" + raw):
                yield tag + record
            if leaf is not None:
                yield tag + msgpack.packb([leaf, PICKLE + BOMB, {"a": leaf}])
    for inner in (["|O", [1]], [["a"], ["|O"], [0], [None], 8, False], "|O8"):
        yield array(inner, [1], body=BOMB)


def test_msgpack_never_unpickles() -> None:
    assert codec("pickle").decode(PICKLE + BOMB) == "exploded"
    assert exploded.pop() == "!"
    for record in bombs():
        decoded(record)
        assert not exploded, record
    assert isinstance(decoded(PICKLE + BOMB), CodecError)


def test_pickles_are_read_by_auto_only_where_they_were_written_as_such() -> None:
    for record in bombs():
        if record[:2] != PICKLE:
            with suppress(CodecError):
                codec("auto").decode(record)
            assert not exploded, record


def plant(store: LmdbStore) -> int:
    """Put a bomb in the place of each result in a store, as somebody with access to it would; how many."""

    def body(transaction: Any) -> int:
        entries: list[tuple[Key, bytes]] = [(k, v) for k, v in transaction.cursor() if k[:1] == ENTRY]
        for name, raw in entries:
            record = records.unpack_record(raw)
            assert record is not None
            (bomb,) = records.pack_records(
                [record.slot], record.generation, record.stored, record.epoch, [PICKLE + BOMB]
            )
            transaction.put(name, bomb)
        return len(entries)

    planted: int = store._opened.lmdb.write(body, after=lambda _: None)
    return planted


def doubling(store: Any, spec: str) -> Callable[[list[int]], list[Any]]:
    @cache_batch_variable("items", store=store, name="fuzzed", version="1", codec=spec)
    def double(items: list[int]) -> list[Any]:
        return [2 * item for item in items]

    return double


def test_a_function_of_codec_msgpack_computes_rather_than_load_a_pickle(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    double = doubling(store, "msgpack")
    assert double([1, 2]) == [2, 4]
    assert plant(store) == 2
    assert double([1, 2, 3]) == [2, 4, 6]
    assert not exploded
    assert plant(store) == 3
    assert doubling(store, "auto")([1]) == ["exploded"]


def test_nothing_is_unpickled_from_a_directory_that_others_can_write(tmp_path: Path) -> None:
    place = tmp_path / "p"
    assert doubling(place, "auto")([1]) == [2]
    (environment,) = (path for path in place.iterdir() if path.is_dir())
    assert plant(LmdbStore.of_function(place, environment.name, Limits())) == 1
    assert doubling(place, "auto")([1]) == ["exploded"]
    exploded.clear()
    for mode in (0o777, 0o770, 0o707, 0o720):
        place.chmod(mode)
        assert doubling(place, "auto")([1]) == [2]
        assert not exploded
    place.chmod(0o700)
