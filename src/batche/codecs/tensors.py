"""torch tensors as a header and their raw memory.

Nothing here imports torch to write: a tensor exists only where torch is imported. Reading one imports it.
Limits: a tensor comes back contiguous, and alone: views of one storage do not share memory any more.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from functools import lru_cache
from math import prod
from typing import Any, Final

from batche.codecs.base import Refused
from batche.codecs.wire import packb, unpackb

_SIZE: Final = struct.Struct("<H")


def is_tensor(kind: type) -> bool:
    torch = sys.modules.get("torch")
    # A torch that is only half imported, by another thread, has no tensors yet.
    return torch is not None and kind is getattr(torch, "Tensor", None)


def is_any_tensor(kind: type) -> bool:
    """Subclasses too, such as ``Parameter``."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(kind, getattr(torch, "Tensor", ()))


def check(tensor: Any) -> None:
    """Refuses a tensor that is more than its numbers, and says how to make it one that is not."""
    if tensor.requires_grad:
        raise Refused("a tensor that requires grad would lose its graph: return tensor.detach().cpu()")
    if tensor.device.type != "cpu":
        raise Refused(f"a tensor lies on the device {str(tensor.device)!r}: return tensor.detach().cpu()")
    if tensor.is_quantized:
        raise Refused("a tensor is quantized: return tensor.dequantize()")
    if tensor.layout is not sys.modules["torch"].strided or tensor.is_nested:
        raise Refused(f"a tensor has the layout {tensor.layout}: return tensor.to_dense()")


def pack(tensor: Any) -> bytes:
    """The tensor's own elements, not the storage that it is a view of."""
    check(tensor)
    if vars(tensor) or any(getattr(tensor, "names", ())):  # torch 2.13 has no named dimensions any more
        raise Refused("a tensor has named dimensions or attributes: return tensor.rename(None).clone()")
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    memory = bytearray(plain.numel() * plain.element_size())
    if memory:
        # Not numpy(): it does not know bfloat16, and torch works without numpy.
        ctypes.memmove(ctypes.addressof(ctypes.c_char.from_buffer(memory)), plain.data_ptr(), len(memory))
    return b"".join((_header(str(plain.dtype), tuple(plain.shape)), memory))


def unpack(data: bytes, offset: int = 0) -> Any:
    """A new tensor; the shape it claims is compared with the bytes there are before any is made."""
    start = offset + _SIZE.size
    body = start + _SIZE.unpack_from(data, offset)[0]
    empty, dtype, shape, nbytes = _layout(data[start:body])
    if len(data) - body != nbytes:
        raise ValueError("a tensor's shape does not fit its bytes")
    tensor = empty(shape, dtype=dtype)
    if nbytes:
        ctypes.memmove(tensor.data_ptr(), data[body:], nbytes)
    return tensor


def reduce(tensor: Any) -> Any:
    """How a pickle holds a tensor: as above if it is exactly one, else as its class says, without more storage."""
    check(tensor)
    if is_tensor(type(tensor)):
        return unpack, (pack(tensor),)
    alone = tensor.clone()
    if type(alone) is type(tensor) and alone.untyped_storage().nbytes() < tensor.untyped_storage().nbytes():
        return alone.__reduce_ex__(5)
    return NotImplemented


@lru_cache(256)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    header = packb((dtype.removeprefix("torch."), shape))
    return _SIZE.pack(len(header)) + header


@lru_cache(256)
def _layout(header: bytes) -> tuple[Any, Any, tuple[int, ...], int]:
    import torch

    name, shape = unpackb(header)
    dtype: Any = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError("no such torch dtype")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("a shape is made of lengths")
    return torch.empty, dtype, tuple(shape), prod(shape) * dtype.itemsize
