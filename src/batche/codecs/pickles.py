"""Anything else, as a pickle that is known to load."""

from __future__ import annotations

import pickle
import sys
from io import BytesIO
from typing import Any, Final

from batche.codecs import arrays, tensors
from batche.codecs.base import PICKLE, TAG_BYTES, Refused

_PROTOCOL: Final = 5
_REMEDY: Final = "return plain data to cache it"


def pack(value: Any) -> bytes:
    """The record of a value; `Refused` if it does not pickle, or does not come back as what it was.

    It is loaded once to see that it does. Limit: that compares the type; a class whose pickle leaves out
    part of its state keeps its word to nobody, and is not found out.
    """
    record = BytesIO()
    record.write(PICKLE)
    try:
        _Pickler(record, _PROTOCOL).dump(value)
        back = unpack(record.getvalue())
    except Refused:
        raise
    except RecursionError as error:
        raise Refused(f"nested too deeply to pickle; {_REMEDY}") from error
    except Exception as error:
        raise Refused(f"{_name(value)} does not pickle ({error}); {_REMEDY}") from error
    if type(back) is not type(value):
        raise Refused(f"{_name(value)} comes back from pickle as {_name(back)}; {_REMEDY}")
    return record.getvalue()


def unpack(data: bytes) -> Any:
    """The value of a record. Runs what the bytes say: only for bytes that this user wrote."""
    return _Unpickler(BytesIO(memoryview(data)[TAG_BYTES:])).load()


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


class _Pickler(pickle.Pickler):
    """Refuses, wherever it is in the value, what pickle writes but does not bring back."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is object:
            raise Refused(f"a bare object() is its identity, which another process does not have; {_REMEDY}")
        if tensors.is_any_tensor(kind):
            return tensors.reduce(obj)
        if arrays.is_array(kind) or arrays.is_scalar(kind) or arrays.is_text(kind):
            return arrays.reduce(obj)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Finds the program's own classes under whichever name `multiprocessing` gave its main module."""

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "__mp_main__" and module not in sys.modules:
            module = "__main__"
        return super().find_class(module, name)
