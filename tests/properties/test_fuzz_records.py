"""What is read from a store, a variable or a command line, and was written by nobody who knows how."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batche import _places, cache_batch_variable, cli
from batche.codecs import codec
from batche.errors import CodecError
from batche.stores.lmdb import LmdbStore, records
from batche.stores.lmdb.records import ENTRY

BYTES = st.binary(max_size=400)
ASIDE: Final = 16 << 10


def sealed(value: bytes, slot: int = 0) -> bytes:
    """An entry that is whole, whatever is in it."""
    (raw,) = records.pack_records([slot], 1, 2, 0, [value])
    return raw


@given(BYTES | st.builds(sealed, BYTES))
@example(b"")
@example(sealed(b"")[:-1])
def test_any_bytes_are_a_record_or_none(raw: bytes) -> None:
    tracemalloc.start()
    try:
        record = records.unpack_record(raw)
        claimed = records.unpack_claim(raw)
        slot = records.slot_of(raw)
        assert tracemalloc.get_traced_memory()[1] <= 4 * len(raw) + ASIDE
    finally:
        tracemalloc.stop()
    if record is not None:
        (packed,) = records.pack_records([record.slot], record.generation, record.stored, record.epoch, [record.value])
        assert packed == raw
        assert slot == record.slot
    if claimed is not None:
        packed = records.pack_claim(claimed.handle, claimed.call, claimed.pid, claimed.epoch)
        assert records.is_same_epoch(packed, raw)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmdbStore]:
    opened = LmdbStore(tmp_path_factory.mktemp("fuzz") / "s")
    yield opened
    opened.close()


def cached(store: LmdbStore, spec: str) -> Any:
    @cache_batch_variable("items", store=store, name="fuzzed", version="1", codec=spec)
    def double(items: list[int]) -> list[int]:
        return [2 * item for item in items]

    return double


@given(st.lists(st.tuples(st.booleans(), BYTES), min_size=1, max_size=4), st.sampled_from(["msgpack", "auto"]))
@example([(True, b""), (True, b"\xc1"), (True, b"\xdd\xff\xff\xff\xff"), (False, b"")], "msgpack")
@example([(True, b"\xc1P"), (True, b"\xc1A\xff\xff"), (True, b"\xc1L\xd4\x01\x00")], "auto")
def test_a_function_whose_entries_are_garbage_computes_them_again(
    store: LmdbStore, garbage: list[tuple[bool, bytes]], spec: str
) -> None:
    """Garbage with a right checksum, which its codec may read as something, counts if it is what no codec reads."""
    double = cached(store, spec)
    double.cache_clear()
    items = list(range(len(garbage)))
    right = [2 * item for item in items]
    assert double(items) == right
    unreadable = replace_entries(store, garbage, spec)
    answers = double(items)
    assert len(answers) == len(items)
    assert unreadable <= sum(answer in right for answer in answers)
    if unreadable == len(items):
        assert answers == right
        assert double.cache_info().misses == 2 * len(items)


def replace_entries(store: LmdbStore, garbage: list[tuple[bool, bytes]], spec: str) -> int:
    """Put garbage in the place of all entries; how many of it no codec reads."""

    def body(transaction: Any) -> int:
        unreadable = 0
        entries = [(name, raw) for name, raw in transaction.cursor() if name[:1] == ENTRY]
        for (name, raw), (whole, value) in zip(entries, garbage, strict=True):
            transaction.put(name, sealed(value, records.slot_of(raw) or 0) if whole else value)
            unreadable += not whole or not _reads(spec, value)
        return unreadable

    unreadable: int = store._opened.lmdb.write(body, after=lambda _: None)
    return unreadable


def _reads(spec: str, value: bytes) -> bool:
    try:
        codec(spec).decode(value)
    except CodecError:
        return False
    return True


TEXTS = st.text(max_size=40) | st.builds("".join, st.lists(st.sampled_from(["shm", "redis", ":", "/", "~", "a", "\0"])))


@given(TEXTS)
@example("shm://" + "a" * 101)
@example("shm://../x")
@example("~nobody-of-this-name/x")
@example("\ud800")
def test_any_text_names_a_place_or_is_a_value_error(text: str) -> None:
    try:
        spec = _places.resolve(None, {"BATCHE_STORE": text})
    except ValueError:
        return
    assert spec.kind in {"runtime", "path", "shm", "off"}
    assert (spec.kind == "runtime") is (text == "")
    if spec.kind == "shm":
        assert "/" not in spec.where
        assert not spec.where.startswith(".")
    if spec.kind == "path":
        assert Path(spec.where).is_absolute()


ARGUMENTS = st.sampled_from(["demo", "--json", "--quick", "--workers", "1", "0", "-1", "9" * 5000, "--version"])


@given(st.lists(ARGUMENTS | st.text(max_size=8), max_size=6))
@example(["demo", "--workers", "9" * 5000])
@example(["demo", "--workers", "\ud800"])
def test_a_command_line_is_understood_or_ends_with_2(arguments: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code, workers = parsed(arguments)
    assert code in (None, 2) or any(text.startswith("-") for text in arguments), said.getvalue()
    assert workers >= 1


def parsed(arguments: list[str]) -> tuple[object, int]:
    """The exit code, `None` for none, and the number of workers."""
    try:
        return None, cli._parser().parse_args(arguments).workers
    except SystemExit as ended:
        return ended.code, 1
