"""What a `Cache` keeps under a key: the key itself, so that it can be told again, and the value."""

from __future__ import annotations

import struct
from typing import Any, Final

from batche.codecs import AutoCodec, Codec, MsgpackCodec, PickleCodec

_LENGTH: Final = struct.Struct("<I")


class Pairs:
    """Keys and values as bytes.

    Keys are encoded by the codec too where it is one of the library's, else by ``"msgpack"``: a user's codec may
    take nothing but values of one kind.
    """

    def __init__(self, codec: Codec) -> None:
        self._values = codec
        self._keys = codec if isinstance(codec, AutoCodec | MsgpackCodec | PickleCodec) else MsgpackCodec()

    def encode(self, key: object, value: object) -> bytes:
        """The record of a pair; what the codec refuses is its error."""
        written = self._keys.encode(key)
        return _LENGTH.pack(len(written)) + written + self._values.encode(value)

    def key(self, record: bytes) -> Any:
        return self._keys.decode(record[_LENGTH.size : self._end(record)])

    def value(self, record: bytes) -> Any:
        return self._values.decode(record[self._end(record) :])

    def _end(self, record: bytes) -> int:
        length: int = _LENGTH.unpack_from(record)[0]
        return _LENGTH.size + length


class Objects:
    """Keys and values as they are, copied by ``codec``, for a store that keeps objects."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def encode(self, key: object, value: object) -> Any:
        return self._codec.encode(key), self._codec.encode(value)

    def key(self, record: tuple[Any, Any]) -> Any:
        return self._codec.decode(record[0])

    def value(self, record: tuple[Any, Any]) -> Any:
        return self._codec.decode(record[1])
