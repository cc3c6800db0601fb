"""Codecs of the user's own: whose entries they read, and what becomes of one that breaks its promise."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batche import Cache, CodecError, cache_batch_variable
from batche.codecs import MsgpackCodec


class Json:
    """A user's codec of whole numbers: of one ``origin`` each is a format of its own, which the others read wrong."""

    def __init__(self, name: str = "json", origin: int = 0) -> None:
        self.name = name
        self._origin = origin

    def encode(self, value: Any, /) -> bytes:
        return json.dumps(value - self._origin).encode()

    def decode(self, data: bytes, /) -> Any:
        return json.loads(data) + self._origin


class Derived(MsgpackCodec):
    """A format of its own under the name of one of the library's."""

    def encode(self, value: Any, /) -> bytes:
        return b"x" + super().encode(value)


def numbered(store: Any, codec: Any, computed: list[int]) -> Any:
    """A function of one name and version, whatever its codec."""

    @cache_batch_variable("numbers", store=store, name="numbered", version="1", codec=codec)
    def number(numbers: list[int]) -> list[int]:
        computed.extend(numbers)
        return list(numbers)

    return number


# ---- whose entries it reads ----


def test_what_a_codec_of_another_name_has_stored_is_a_miss(tmp_path: Path) -> None:
    computed: list[int] = []
    assert numbered(tmp_path, Json(), computed)([1]) == [1]
    assert numbered(tmp_path, Json("json-2", 1000), computed)([1]) == [1]
    assert numbered(tmp_path, "auto", computed)([1]) == [1]
    assert numbered(tmp_path, Json(), computed)([1]) == [1]
    assert computed == [1, 1, 1]


def test_codecs_of_one_name_share_their_entries(tmp_path: Path) -> None:
    computed: list[int] = []
    for _ in range(2):
        assert numbered(tmp_path, Json(), computed)([1]) == [1]
    assert computed == [1]


def test_the_codecs_of_the_library_share_their_entries(tmp_path: Path) -> None:
    computed: list[int] = []
    for codec in ("auto", "msgpack", MsgpackCodec()):
        assert numbered(tmp_path, codec, computed)([1]) == [1]
    assert computed == [1]


def test_a_codec_derived_from_one_of_the_library_is_another_in_spite_of_its_name(tmp_path: Path) -> None:
    computed: list[int] = []
    for codec in ("msgpack", Derived()):
        assert numbered(tmp_path, codec, computed)([1]) == [1]
    assert computed == [1, 1]


def test_a_store_that_keeps_the_results_themselves_serves_them_whatever_the_codec() -> None:
    computed: list[int] = []
    results: dict[str, Any] = {}
    for codec in ("auto", Json()):
        assert numbered(results, codec, computed)([1]) == [1]
    assert computed == [1]


def test_a_cache_does_not_meet_what_a_codec_of_another_name_has_stored(tmp_path: Path) -> None:
    first, second = Cache[str, int](tmp_path, codec=Json()), Cache[str, int](tmp_path, codec=Json("json-2", 1000))
    first["a"] = 1
    assert "a" not in second
    second["b"] = 2
    assert (dict(first), dict(second)) == ({"a": 1}, {"b": 2})
    assert dict(Cache[str, int](tmp_path, codec=Json())) == {"a": 1}
    assert (len(first), len(second)) == (1, 1)


def test_a_codec_whose_name_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="codec="):
        cache_batch_variable("numbers", codec=Json(5))  # type: ignore[arg-type]  # what is tested


# ---- what becomes of one that breaks its promise ----


class Broken:
    """A codec of what two functions make of it."""

    name = "broken"

    def __init__(self, encode: Callable[[Any], Any], decode: Callable[[bytes], Any] = json.loads) -> None:
        self.encode = encode
        self.decode = decode


def _raise(_: object) -> Any:
    raise KeyError("k")


REFUSING = pytest.mark.parametrize(
    ("encode", "said"),
    [
        (json.dumps, r"codec 'broken': encode\(\) returned str, not bytes: encode the text, as in text\.encode\(\)"),
        (lambda _: None, r"codec 'broken': encode\(\) returned NoneType, not bytes: make its encode\(\) return bytes"),
        (_raise, "codec 'broken': cannot encode int: KeyError: 'k'"),
    ],
    ids=["text", "nothing", "an error"],
)


@REFUSING
@pytest.mark.parametrize("copy", [True, False])
def test_a_result_whose_record_is_no_bytes_is_returned_and_not_stored_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encode: Any, said: str, copy: bool
) -> None:
    make = cache_batch_variable("numbers", store=tmp_path, name="f", codec=Broken(encode), copy=copy, strict=True)
    double = make(lambda numbers: [2 * number for number in numbers])
    with caplog.at_level(logging.WARNING, "batche"):
        assert [double([1, 2, 1]), double([1])] == [[2, 4, 2], [2]]
    info = double.cache_info()
    assert (info.rejected, info.errors, info.currsize) == (3, 0, 0)
    (record,) = caplog.records
    assert re.search(said, record.getMessage())


@REFUSING
def test_a_cache_raises_a_codec_error_for_a_record_that_is_no_bytes(tmp_path: Path, encode: Any, said: str) -> None:
    cache = Cache[str, int](tmp_path, codec=Broken(encode))
    for store in (lambda: cache.update(a=1), lambda: cache.setdefault("a", 1)):
        with pytest.raises(CodecError, match=said) as caught:
            store()
        assert isinstance(caught.value.__cause__, KeyError) == (encode is _raise)
    assert len(cache) == 0


def test_a_cache_raises_a_codec_error_where_a_codec_cannot_read_what_it_wrote(tmp_path: Path) -> None:
    cache = Cache[str, int](tmp_path, codec=Broken(lambda value: json.dumps(value).encode(), _raise))
    cache["a"] = 1
    with pytest.raises(CodecError, match="codec 'broken': cannot decode: 'k'") as caught:
        cache["a"]
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_record_in_a_bytearray_is_bytes(tmp_path: Path) -> None:
    cache = Cache[str, int](tmp_path, codec=Broken(lambda value: bytearray(json.dumps(value).encode())))
    cache["a"] = 1
    assert cache["a"] == 1


def test_a_store_that_keeps_the_results_themselves_asks_no_codec() -> None:
    results: dict[str, Any] = {}
    assert numbered(results, Broken(_raise, _raise), [])([1]) == [1]
    assert len(results) == 1
