"""Anything else, as a pickle that is known to load."""

from __future__ import annotations

import pickle
from importlib import import_module
from io import BytesIO
from types import FunctionType
from typing import Any, Final

from batche._names import is_of_program, module_named, program_name
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
    return pickle.loads(memoryview(data)[TAG_BYTES:])


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


class _Pickler(pickle.Pickler):
    """Refuses, wherever it is in the value, what pickle writes but does not bring back."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if isinstance(obj, type | FunctionType) and is_of_program(obj.__module__) and obj is _found(obj):
            return _of_program, (program_name(), obj.__qualname__)
        if kind is object:
            raise Refused(f"a bare object() is its identity, which another process does not have; {_REMEDY}")
        if tensors.is_any_tensor(kind):
            return tensors.reduce(obj)
        if arrays.is_array(kind) or arrays.is_scalar(kind) or arrays.is_text(kind):
            return arrays.reduce(obj)
        return NotImplemented


def _of_program(program: str, qualname: str) -> Any:
    """What a program defines in its main module, whose name in `sys.modules` another program's has as well."""
    found: Any = module_named(program)
    if found is None:
        if is_of_program(program):
            raise ImportError(f"{program} of another program, which has no name")
        found = import_module(program)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _found(obj: Any) -> Any:
    """What is found in the place of a class or function of this program, if anything is."""
    try:
        return _of_program(program_name(), obj.__qualname__)
    except (AttributeError, ImportError):
        return None
