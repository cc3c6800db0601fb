"""numpy arrays and scalars as a header and their raw memory.

Nothing here imports numpy to write: a value of numpy's exists only where numpy is imported. Reading one
imports it, since the value cannot be without it.
"""

from __future__ import annotations

import re
import struct
import sys
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from batche.codecs.base import Refused
from batche.codecs.wire import packb, unpackb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIZE: Final = struct.Struct("<H")
_SIMPLE: Final = re.compile(r"[<>|][?biufcmMSUVqQ]\d*(\[\w+\])?")
_BUFFERS: Final = "biufc"
"""Kinds of dtypes whose arrays give away their memory as it is."""
_LAYOUTS: Final = 256
"""How many headers are remembered: a program uses few dtypes and shapes, but may use very many of them once."""


class _Layout(NamedTuple):
    """What the header of a record says."""

    header: bytes
    ndarray: type[Any]
    shape: tuple[int, ...]
    dtype: Any
    order: str
    nbytes: int


class _Header(NamedTuple):
    """The header that arrays of one layout are written with."""

    dtype: Any
    shape: tuple[int, ...]
    fortran: bool
    header: bytes
    is_buffer: bool


# Those of the last array: one batch's are mostly alike, and to compare costs less than to look up. Threads change them
# in one step. A dtype with fields is not remembered: whoever has the array may rename its fields, in place.
_written = _Header(None, (), False, b"", False)
_read = _Layout(b"none", object, (), None, "C", -1)  # no header begins so


def is_array(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is numpy.ndarray


def is_any_array(kind: type) -> bool:
    """Subclasses too, such as masked arrays."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray)


def is_scalar(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.generic) and not is_text(kind)


def is_text(kind: type) -> bool:
    """The str and bytes of numpy: as elements of an array they would lose the zeros at their end."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and (kind is numpy.str_ or kind is numpy.bytes_)


def pack(array: NDArray[Any], tag: bytes = b"") -> bytes:
    """``tag`` and the array's own elements, whatever memory it is a view of; C or Fortran order is kept."""
    global _written
    flags = array.flags
    dtype, shape, fortran = array.dtype, array.shape, flags.fnc
    last = _written
    if dtype is last.dtype and shape == last.shape and fortran is last.fortran:
        header = last.header
        if last.is_buffer and flags.c_contiguous:
            return b"".join((tag, header, array))  # type: ignore[arg-type]  # a buffer; one copy less
    else:
        header = _header_of(dtype, shape, fortran)
        if dtype.names is None:
            _written = _Header(dtype, shape, fortran, header, dtype.kind in _BUFFERS)
    return b"".join((tag, header, array.tobytes("F") if fortran else array.tobytes()))


def pack_scalar(value: np.generic) -> bytes:
    dtype = value.dtype
    if type(value) is not dtype.type:
        raise Refused(f"{type(value).__name__} is a subclass of a numpy scalar")
    return _header_of(dtype, (), False) + value.tobytes()


def unpack(data: bytes, offset: int = 0) -> NDArray[Any]:
    """A new writable array; the shape it claims is compared with the bytes there are before any is made."""
    global _read
    last = _read
    if not data.startswith(last.header, offset):
        size = _SIZE.size + _SIZE.unpack_from(data, offset)[0]
        header = data[offset : offset + size]
        if len(header) != size:
            raise ValueError("an array's header is cut short")
        known = _layout(header)
        last = known or _parsed(header)
        _read = known or _read
    _, ndarray, shape, dtype, order, nbytes = last
    body = len(data) - nbytes
    if body != offset + len(last.header):
        raise ValueError("an array's shape does not fit its bytes")
    copy: NDArray[Any] = ndarray(shape, dtype, data, body, None, order).copy(order)
    return copy


def pack_text(value: str | bytes) -> bytes:
    return b"S" + value if isinstance(value, bytes) else b"U" + value.encode("utf-8", "surrogatepass")


def unpack_text(data: bytes) -> np.str_ | np.bytes_:
    import numpy as np

    return np.bytes_(data[1:]) if data[:1] == b"S" else np.str_(data[1:].decode("utf-8", "surrogatepass"))


def reduce(value: Any) -> Any:
    """How a pickle holds an array or a scalar: as above, where that can be; numpy's own may change the dtype."""
    try:
        if is_array(type(value)):
            return unpack, (pack(value),)
        return (unpack_text, (pack_text(value),)) if is_text(type(value)) else (unpack_scalar, (pack_scalar(value),))
    except Refused:
        return NotImplemented


def unpack_scalar(data: bytes) -> Any:
    return unpack(data)[()]


def _header_of(dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> bytes:
    if dtype.metadata is not None:
        raise Refused("a numpy dtype with metadata")
    if dtype.names is not None:
        # Not remembered: structured dtypes that differ in alignment may compare equal.
        return _header.__wrapped__(dtype, dtype.char, shape, fortran)
    return _header(dtype, dtype.char, shape, fortran)


@lru_cache(_LAYOUTS)
def _header(dtype: np.dtype[Any], _char: str, shape: tuple[int, ...], fortran: bool) -> bytes:
    # `_char` is in the signature to remember apart what compares equal: long and long long.
    header = packb((_checked_spec(dtype), shape, fortran))
    if len(header) > 0xFFFF:
        raise Refused("a numpy dtype with too many fields")
    return _SIZE.pack(len(header)) + header


def _checked_spec(dtype: np.dtype[Any]) -> Any:
    """A description of a dtype, tried: what it gives back is the same dtype, or it is refused."""
    try:
        spec = _spec(dtype)
        back = _dtype(spec)
    except (TypeError, ValueError) as error:
        raise Refused(f"numpy dtype {dtype}: {error}") from error
    same = back == dtype and back.char == dtype.char and back.type is dtype.type
    if not same or back.isalignedstruct != dtype.isalignedstruct:
        raise Refused(f"numpy dtype {dtype} has no plain description")
    return spec


def _spec(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_spec(base), shape]
    if dtype.fields is not None and dtype.names is not None:
        by_name: Any = dtype.fields
        fields = [by_name[name] for name in dtype.names]
        titles = [field[2] if len(field) > 2 else None for field in fields]
        formats = [_spec(field[0]) for field in fields]
        offsets = [field[1] for field in fields]
        return [dtype.names, formats, offsets, titles, dtype.itemsize, dtype.isalignedstruct]
    return dtype.str[0] + dtype.char if dtype.char in "qQ" else dtype.str


def _dtype(spec: Any) -> np.dtype[Any]:
    import numpy as np

    if isinstance(spec, str):
        if not _SIMPLE.fullmatch(spec):
            raise ValueError("not a dtype of plain elements")
        dtype = np.dtype(spec)
    elif len(spec) == 2:
        dtype = np.dtype((_dtype(spec[0]), tuple(spec[1])))
    else:
        names, formats, offsets, titles, itemsize, aligned = spec
        fields: Any = {"names": names, "formats": [_dtype(part) for part in formats]}
        fields |= {"offsets": offsets, "titles": titles, "itemsize": itemsize}
        dtype = np.dtype(fields, align=aligned)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError("elements of no size, or Python objects")
    return dtype


@lru_cache(_LAYOUTS)
def _layout(header: bytes) -> _Layout | None:
    """What a header says; `None` where its dtype has fields."""
    layout = _parsed(header)
    return layout if layout.dtype.names is None else None


def _parsed(header: bytes) -> _Layout:
    import numpy as np

    spec, shape, fortran = unpackb(header[_SIZE.size :])
    dtype = _dtype(spec)
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("a shape is made of lengths")
    return _Layout(header, np.ndarray, tuple(shape), dtype, "F" if fortran else "C", prod(shape) * dtype.itemsize)
