"""The three codecs that come with the library."""

from __future__ import annotations

from typing import Any, Final

from batche.codecs import arrays, leaves, pickles, plain, tensors
from batche.codecs.base import ARRAY, ESCAPE, MARKED, PICKLE, TAG_BYTES, TENSOR, Codec, Refused
from batche.codecs.wire import unpackb
from batche.errors import CodecError

_leaf: Final = leaves.decode
_pack: Final = plain.pack


class MsgpackCodec:
    """Plain data, numpy arrays and torch tensors. Never unpickles anything, whatever the bytes say.

    Plain data is None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
    range, Decimal, Fraction, UUID, Path, the datetime family and enum members: exactly these types, not their
    subclasses. Limits: a container that is in a value twice comes back as two equal ones; an array that is
    neither in C nor in Fortran order, and every tensor, comes back contiguous; an enum is found only in a
    module that is already imported. Reading an array imports numpy, and reading a tensor torch.
    """

    __slots__ = ()
    name: str = "msgpack"

    def encode(self, value: Any, /) -> bytes:
        """The record of ``value``; `CodecError` if it would not come back the same."""
        try:
            return _pack(value, True)
        except Exception as error:
            raise encode_error(self.name, value, error) from error

    def decode(self, data: bytes, /) -> Any:
        """The value of a record, sharing memory with nothing; `CodecError` for any other bytes."""
        try:
            if data[0] != ESCAPE:
                # Not a function of its own: this line is what a hit costs.
                return unpackb(data, ext_hook=_leaf, strict_map_key=False, unicode_errors="surrogatepass")
            return _decode_tagged(data[:TAG_BYTES], data)
        except Exception as error:
            raise decode_error(self.name, error) from error


class PickleCodec:
    """Whatever pickles (protocol 5) and loads again as the type it was.

    Loading a pickle runs what it says: only for stores that nobody else can write. Refused wherever they are
    in a value: tensors that require grad or lie on a device, and ``object()``. Reads only pickles.
    """

    __slots__ = ()
    name: str = "pickle"

    def encode(self, value: Any, /) -> bytes:
        """The record of ``value``; `CodecError` if it would not come back the same."""
        try:
            return pickles.pack(value)
        except Exception as error:
            raise encode_error(self.name, value, error) from error

    def decode(self, data: bytes, /) -> Any:
        """The value of a record; `CodecError` for any other bytes."""
        try:
            if data[:TAG_BYTES] != PICKLE:
                raise Refused("not a pickle")
            return pickles.unpack(data)
        except Exception as error:
            raise decode_error(self.name, error) from error


class AutoCodec:
    """Plain data, arrays and tensors as [`MsgpackCodec`][], the rest as [`PickleCodec`][]; reads both.

    A value in which a mutable container is found twice, or in itself, is pickled, so that it comes back so.
    """

    __slots__ = ()
    name: str = "auto"

    def encode(self, value: Any, /) -> bytes:
        """The record of ``value``; `CodecError` if it would not come back the same."""
        try:
            return _pack(value, False)
        except Exception:
            pass  # Whatever is not plain, pickle has the last word on.
        try:
            return pickles.pack(value)
        except Exception as error:
            raise encode_error(self.name, value, error) from error

    def decode(self, data: bytes, /) -> Any:
        """The value of a record, sharing memory with nothing; `CodecError` for any other bytes."""
        try:
            if data[0] != ESCAPE:
                # Not a function of its own: this line is what a hit costs.
                return unpackb(data, ext_hook=_leaf, strict_map_key=False, unicode_errors="surrogatepass")
            tag = data[:TAG_BYTES]
            return pickles.unpack(data) if tag == PICKLE else _decode_tagged(tag, data)
        except Exception as error:
            raise decode_error(self.name, error) from error


_CODECS: Final[dict[str, Codec]] = {"auto": AutoCodec(), "msgpack": MsgpackCodec(), "pickle": PickleCodec()}
_KINDS: Final = frozenset(map(type, _CODECS.values()))


def codec(spec: str | Codec) -> Codec:
    """The codec that ``codec=`` means: one of the names, or an object that is one.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(spec, str) and spec in _CODECS:
        return _CODECS[spec]
    if isinstance(spec, Codec) and not isinstance(spec, type | str) and isinstance(spec.name, str):
        return spec
    choices = ", ".join(map(repr, _CODECS))
    raise ValueError(f"codec={spec!r}: expected {choices}, or an object with name, encode(value) and decode(data)")


def is_builtin(given: Codec) -> bool:
    """Whether a codec is one of the library's, which tell each other's formats apart; one derived from them is not."""
    return type(given) in _KINDS


def format_name(given: Codec) -> bytes:
    """What a codec's format is called in keys: nothing for the library's, whose entries are shared."""
    return b"" if is_builtin(given) else b"codec " + given.name.encode("utf-8", "surrogatepass")


def _decode_tagged(tag: bytes, data: bytes) -> Any:
    if tag == ARRAY:
        return arrays.unpack(data, TAG_BYTES)
    if tag == MARKED:
        return plain.unpack_marked(data)
    if tag == TENSOR:
        return tensors.unpack(data, TAG_BYTES)
    raise Refused("a pickle, which this codec never loads" if tag == PICKLE else "an unknown format")


def encode_error(name: str, value: Any, error: Exception) -> CodecError:
    """What the codec of this name says of a value with which ``error`` came up."""
    if isinstance(error, Refused):
        return CodecError(name, str(error))
    return CodecError(name, f"cannot encode {type(value).__qualname__}: {type(error).__name__}: {error}")


def decode_error(name: str, error: Exception) -> CodecError:
    """What the codec of this name says of bytes with which ``error`` came up."""
    return CodecError(name, f"cannot decode: {str(error) or type(error).__name__}")
