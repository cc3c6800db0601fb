"""A codec that the user gives, held to what `Codec` promises: bytes, or an error that says what to do."""

from __future__ import annotations

from typing import Any

from batche.codecs.base import Codec
from batche.codecs.builtin import decode_error, encode_error, is_builtin
from batche.errors import CodecError


class GivenCodec:
    """A user's codec that raises nothing but `CodecError`, and gives nothing but bytes.

    Wrapped once, when a store is bound, so that the library's own codecs are called without a detour.
    """

    __slots__ = ("_decode", "_encode", "name")

    def __init__(self, codec: Codec) -> None:
        self.name = codec.name
        self._encode = codec.encode
        self._decode = codec.decode

    def encode(self, value: Any, /) -> bytes:
        """The record of ``value``, as the codec writes it."""
        try:
            data: Any = self._encode(value)
        except CodecError:
            raise
        except Exception as error:  # a user's codec may raise anything
            raise encode_error(self.name, value, error) from error
        if isinstance(data, bytes):
            return data
        if isinstance(data, bytearray | memoryview):
            return bytes(data)
        raise CodecError(self.name, _not_bytes(data))

    def decode(self, data: bytes, /) -> Any:
        """The value of a record, as the codec reads it."""
        try:
            return self._decode(data)
        except CodecError:
            raise
        except Exception as error:  # a user's codec may raise anything
            raise decode_error(self.name, error) from error


def held(codec: Codec) -> Codec:
    """``codec`` itself where it is one of the library's, else held to its promises."""
    return codec if is_builtin(codec) else GivenCodec(codec)


def _not_bytes(data: Any) -> str:
    remedy = "encode the text, as in text.encode()" if isinstance(data, str) else "make its encode() return bytes"
    return f"encode() returned {type(data).__qualname__}, not bytes: {remedy}"
