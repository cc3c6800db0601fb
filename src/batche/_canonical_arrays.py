"""The canonical encoding of numpy scalars and arrays and of torch tensors.

An array is its dtype, shape and content in C order, however it lies in memory; a byte order other than
the machine's is another dtype, and the encoding of native arrays is the same on every machine. NaNs are
all one here too. Neither library is imported: who has one of their objects has imported it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from ._framing import Opened, Opener, Unkeyable, as_given, framed, framed_text, size

_RAW_KINDS: Final = frozenset("biufcmMSUV")
_SWAP: Final = sys.byteorder == "big"
_X87_MANTISSA: Final = 63
_X87_BYTES: Final = 10  # the rest of the 12 or 16 that one takes in memory is never written

_TORCH_FLOATS: Final = frozenset({"float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn"})
_TORCH_COMPLEX: Final = frozenset({"complex32", "complex64", "complex128"})
# What has no NaN, or only one bit pattern for it.
_TORCH_PLAIN: Final = frozenset(
    {"bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"}
    | {"float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu"}
)


def array_opener(cls: type) -> Opener | None:
    """Return how to open instances of ``cls``, or `None` if it is no array or scalar type."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if cls is getattr(numpy, "ndarray", None):
        return _open_array
    if cls is getattr(torch, "Tensor", None):
        return _open_tensor
    generic = getattr(numpy, "generic", None)
    return _open_scalar if generic is not None and issubclass(cls, generic) else None


# --- numpy ---


def _open_scalar(value: Any) -> Opened:
    cls = type(value)
    if value.dtype.type is not cls:
        raise Unkeyable(cls, f"a subclass of {value.dtype.type.__name__}")
    header = b"y" + framed_text(cls.__name__)
    # An array of these would drop the NULs at their end.
    if value.dtype.kind == "U":
        return header + framed_text(value), (), as_given
    if value.dtype.kind == "S":
        return header + framed(b"".join((value,))), (), as_given
    return header, (sys.modules["numpy"].asarray(value),), as_given


def _open_array(value: Any) -> Opened:
    dtype = value.dtype
    if dtype.names is not None:
        return _open_records(value)
    if dtype.kind in "OT":
        return _open_elements(value)
    if dtype.kind not in _RAW_KINDS or dtype.type.__module__ != "numpy":
        raise Unkeyable(type(value), f"its dtype {dtype.name} is not one of numpy's own")
    return b"a" + framed_text(_dtype_name(dtype)) + _shape(value) + framed(_array_bytes(value)), (), as_given


def _open_elements(value: Any) -> Opened:
    """Open an array of objects or of strings of any length: its buffer holds addresses, not content."""
    missing = (value.dtype.na_object,) if hasattr(value.dtype, "na_object") else ()
    header = b"a" + framed_text(value.dtype.kind) + _shape(value) + size(len(missing))
    return header, (*missing, *value.ravel().tolist()), as_given


def _open_records(value: Any) -> Opened:
    """Open a structured array as its columns: the bytes between the fields are not content."""
    dtype = value.dtype
    fields = [(name, *dtype.fields[name]) for name in dtype.names]
    layout = b"".join(framed_text(name) + size(offset) + size(len(title)) for name, _, offset, *title in fields)
    titles = [title for _, _, _, *rest in fields for title in rest]
    header = b"a" + framed_text("fields") + _shape(value) + size(dtype.itemsize) + framed(layout)
    return header, (*titles, *(value[name] for name in dtype.names)), as_given


def _shape(value: Any) -> bytes:
    return framed(b"".join(map(size, value.shape)))


def _dtype_name(dtype: Any) -> str:
    name = str((dtype.newbyteorder("S") if _SWAP else dtype).str)
    if not _is_extended(dtype):
        return name
    # How many bits such a number has is the machine's, and its dtype does not say.
    return f"{name}:{sys.modules['numpy'].finfo(dtype).nmant}"


def _is_extended(dtype: Any) -> bool:
    """Whether numbers of ``dtype`` are (pairs of) long doubles that are more than doubles."""
    return bool(dtype.char in "gG" and dtype.itemsize > (8 if dtype.kind == "f" else 16))


def _array_bytes(value: Any) -> bytes:
    if value.dtype.kind in "fc":
        value = _plain_floats(value)
    return bytes((value.byteswap() if _SWAP else value).tobytes())


def _plain_floats(value: Any) -> Any:
    """Return the real numbers of ``value`` in one row, with one bit pattern for NaN and none to spare."""
    numpy = sys.modules["numpy"]
    row = numpy.ascontiguousarray(value).reshape(-1)
    row = row.view(row.real.dtype)
    nan = numpy.isnan(row)
    if nan.any():
        row = numpy.where(nan, row.dtype.type(numpy.nan), row).astype(row.dtype)
    return _without_padding(row) if _is_extended(row.dtype) else row


def _without_padding(row: Any) -> Any:
    numpy = sys.modules["numpy"]
    row = row.astype(row.dtype.newbyteorder("="))
    if numpy.finfo(row.dtype).nmant == _X87_MANTISSA:
        row.view(numpy.uint8).reshape(-1, row.itemsize)[:, _X87_BYTES:] = 0
    return row


# --- torch ---


def _open_tensor(value: Any) -> Opened:
    torch = sys.modules["torch"]
    name = str(value.dtype).removeprefix("torch.")
    if value.device.type != "cpu":
        raise Unkeyable(type(value), f"it is on device {value.device}, not in main memory: pass x.cpu()")
    if value.layout is not torch.strided or name not in _TORCH_PLAIN | _TORCH_FLOATS | _TORCH_COMPLEX:
        raise Unkeyable(type(value), f"its layout is {value.layout}, its dtype {value.dtype}")
    try:
        content = _tensor_bytes(value.detach(), name)
    except RuntimeError as error:  # inside vmap and the like a tensor has no content of its own
        raise Unkeyable(type(value), "its content cannot be read here") from error
    graph = " that requires grad" if value.requires_grad else ""  # so will a result
    return b"h" + framed_text(name + graph) + _shape(value) + framed(content), (), as_given


def _tensor_bytes(value: Any, name: str) -> bytes:
    torch = sys.modules["torch"]
    row = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
    if name in _TORCH_COMPLEX:
        row = torch.view_as_real(row).reshape(-1)
    numbers = row.view(torch.uint8).reshape(len(row), row.element_size())
    if name not in _TORCH_PLAIN and (nan := row.isnan()).any():
        numbers = numbers.masked_fill(nan.unsqueeze(1), 0xFF)
    return _memory(numbers.flip(1) if _SWAP else numbers)


def _memory(numbers: Any) -> bytes:
    # torch gives its bytes away only through numpy, which need not be installed.
    import ctypes  # nobody without tensors should pay for it

    return ctypes.string_at(numbers.data_ptr(), numbers.numel()) if numbers.numel() else b""
