"""What a codec is, and how a record says which format it is in.

A record of plain data is bare msgpack, so that reading one costs nothing more. Every other format begins with
``0xC1``, the one byte that msgpack never uses, and a second byte that names the format. No bytes therefore
read as a pickle unless they were written as one.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, runtime_checkable

ESCAPE: Final = 0xC1
MARKED: Final = b"\xc1L"
"""msgpack in which a list may stand for a tuple or a set: see `batche.codecs.plain`."""
ARRAY: Final = b"\xc1A"
TENSOR: Final = b"\xc1T"
PICKLE: Final = b"\xc1P"
TAG_BYTES: Final = 2


@runtime_checkable
class Codec(Protocol):
    """Values to bytes and back.

    ``decode(encode(value))`` is a value of the same type and content, down to the leaves, that shares no
    memory with the first or with another decoding. A value for which that cannot be is a
    [`CodecError`][batche.CodecError] from ``encode``; bytes that ``encode`` did not write are one from
    ``decode``. Both methods are called from any thread, and must not keep state between calls.

    Another format needs another name: entries are found again by codecs of one name, and are taken to be in one format.
    """

    @property
    def name(self) -> str:
        """What errors call it, and a part of the keys: what a codec of another name has stored is a miss."""
        ...

    def encode(self, value: Any, /) -> bytes:
        """The record of ``value``."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """The value of a record."""
        ...


class Refused(Exception):
    """A format has no place for a value; the message says why, and the remedy. Never leaves this package."""
