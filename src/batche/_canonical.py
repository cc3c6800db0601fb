"""One canonical encoding of plain data: the same bytes for the same type and content, in every process.

Two values have one encoding exactly when type and content agree down to the leaves. The order of dicts
and sets does not count. All NaN of one type are one (a `~decimal.Decimal` NaN whatever its sign, payload
or signalling); ``0.0`` and ``-0.0`` are two. Nothing here calls ``hash()``, ``==``, ``repr`` or pickle of
a value, nor depends on the machine's byte order or on Python's version (but for classes made inside functions).

Limits: a value may be nested `MAX_DEPTH` deep, however deep the caller's own stack is. A class counts by
its name, and one made inside a function by what it defines as well. Exact types only: an instance of a subclass is
keyed by `__batche_key__`, or not at all.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import struct
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from inspect import getattr_static
from itertools import chain, repeat
from math import isnan, nan
from operator import is_
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from ._canonical_arrays import array_opener
from ._canonical_classes import class_header, dataclass, named_tuple
from ._framing import Arrange, Opened, Opener, Unkeyable, as_given, encoded_text, framed, framed_text, size
from .errors import A_CLASS

MAX_DEPTH: Final = 1000

_int64: Final = struct.Struct("<cq").pack
_sized: Final = struct.Struct("<cQ").pack
_float64: Final = struct.Struct("<d").pack
_duration: Final = struct.Struct("<qII").pack
_date: Final = struct.Struct("<HBB").pack
_clock: Final = struct.Struct("<BBBIB").pack
_DONE: Final = object()


def canonical(value: object) -> bytes:
    """Return the canonical bytes of ``value``, or raise `Unkeyable`.

    What ``__batche_key__`` raises passes through unchanged.
    """
    leaf = _LEAVES.get(type(value))
    if leaf is not None:
        return leaf(value)
    frame = _Frame(value)
    part = frame.next_nested()
    return frame.close() if part is _DONE else _walk(frame, part)


# --- nested values: taken apart with a stack of our own, because Python's is the caller's ---


class _Frame:
    """A value being encoded: the parts that are left and the encodings of those that are done."""

    __slots__ = ("arrange", "done", "header", "pending", "value")

    def __init__(self, value: object) -> None:
        cls = type(value)
        self.value = value
        self.header, parts, self.arrange = (_OPENERS.get(cls) or _opener_of(cls))(value)
        self.pending: Iterator[object] = iter(parts)
        self.done: list[bytes] = []

    def next_nested(self) -> object:
        """Encode parts up to the first that is itself nested and return that one, or `_DONE`."""
        for part in self.pending:
            leaf = _LEAVES.get(type(part))
            if leaf is None:
                return part
            self.done.append(leaf(part))
        return _DONE

    def close(self) -> bytes:
        return self.header + size(len(self.done)) + b"".join(self.arrange(self.done))


def _walk(frame: _Frame, part: object) -> bytes:
    """Encode ``frame``, whose first nested part is ``part``."""
    path: list[_Frame] = []
    entered: set[int] = set()
    while True:
        if part is not _DONE:
            path.append(frame)
            entered.add(id(frame.value))
            _check_depth(part, path, entered)
            frame = _Frame(part)
        else:
            encoded = frame.close()
            if not path:
                return encoded
            frame = path.pop()
            entered.discard(id(frame.value))
            frame.done.append(encoded)
        part = frame.next_nested()


def _check_depth(part: object, path: list[_Frame], entered: set[int]) -> None:
    if id(part) in entered:
        raise Unkeyable(type(part), "it contains itself")
    if len(path) >= MAX_DEPTH:
        raise Unkeyable(type(path[0].value), f"it is nested more than {MAX_DEPTH} levels deep")


# --- leaves ---


def _none(_: None) -> bytes:
    return b"N"


def _bool(value: bool) -> bytes:
    return b"T" if value else b"F"


def canonical_int64(value: int) -> bytes:
    """Return the canonical bytes of an integer of 64 bits, or raise `struct.error`."""
    return _int64(b"i", value)


def _int(value: int) -> bytes:
    try:
        return canonical_int64(value)
    except struct.error:
        return b"I" + framed(value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _float_bits(value: float) -> bytes:
    return _float64(value) if value == value else b"\xff" * 8  # noqa: PLR0124 - only a NaN differs from itself


def _float(value: float) -> bytes:
    return b"f" + _float_bits(value)


def _complex(value: complex) -> bytes:
    return b"c" + _float_bits(value.real) + _float_bits(value.imag)


def _str(value: str) -> bytes:
    content = encoded_text(value)
    return _sized(b"s", len(content)) + content


def _bytes(value: bytes) -> bytes:
    return _sized(b"b", len(value)) + value


def _timedelta_fields(value: dt.timedelta) -> bytes:
    return _duration(value.days, value.seconds, value.microseconds)


def _timedelta(value: dt.timedelta) -> bytes:
    return b"G" + _timedelta_fields(value)


def _date_fields(value: dt.date) -> bytes:
    return _date(value.year, value.month, value.day)


def _plain_date(value: dt.date) -> bytes:
    return b"D" + _date_fields(value)


def _clock_fields(value: dt.datetime | dt.time) -> bytes:
    """Return hour to microsecond, fold and offset; the zone itself only where it gives no offset."""
    fields = _clock(value.hour, value.minute, value.second, value.microsecond, value.fold)
    if value.tzinfo is None:
        return fields + b"-"
    offset = value.utcoffset()
    if offset is not None:
        return fields + b"+" + _timedelta_fields(offset)
    if type(value.tzinfo) is not ZoneInfo:
        raise Unkeyable(type(value.tzinfo), "a time zone that gives no offset")
    return fields + b"?" + _zone(value.tzinfo)


def _time(value: dt.time) -> bytes:
    return b"H" + _clock_fields(value)


def _datetime(value: dt.datetime) -> bytes:
    return b"M" + _date_fields(value) + _clock_fields(value)


def _timezone(value: dt.timezone) -> bytes:
    # The arguments it was made with: `tzname()` cannot tell a name that was given from a made-up one.
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]  # pickle's protocol, not in typeshed
    return b"O" + _timedelta_fields(offset) + (b"+" + framed_text(name[0]) if name else b"-")


def _zone(value: ZoneInfo) -> bytes:
    if value.key is None:
        raise Unkeyable(ZoneInfo, "it was made from a file, without a key")
    return b"Z" + framed_text(value.key)


def _decimal(value: Decimal) -> bytes:
    if value.is_nan():
        return b"Xn"
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, str):  # "F", an infinity
        return b"X+" if sign == 0 else b"X-"
    return b"Xd" + _bool(bool(sign)) + _int(exponent) + framed(bytes(digits))


def _fraction(value: Fraction) -> bytes:
    return b"Q" + _int(value.numerator) + _int(value.denominator)


def _uuid(value: UUID) -> bytes:
    return b"U" + value.bytes


def _path(value: PurePosixPath | PureWindowsPath) -> bytes:
    return b"P" + framed_text(type(value).__name__) + framed_text(str(value))


_LEAVES: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: _bytes,
    dt.timedelta: _timedelta,
    dt.date: _plain_date,
    dt.time: _time,
    dt.datetime: _datetime,
    dt.timezone: _timezone,
    ZoneInfo: _zone,
    Decimal: _decimal,
    Fraction: _fraction,
    UUID: _uuid,
    PurePosixPath: _path,
    PosixPath: _path,
    PureWindowsPath: _path,
    WindowsPath: _path,
}


# --- containers ---


def _pairs(parts: list[bytes]) -> Iterable[bytes]:
    """Arrange the alternating keys and values of a dict, whose order does not count."""
    return chain.from_iterable(sorted(zip(parts[::2], parts[1::2], strict=True)))


def _container(tag: bytes, arrange: Arrange) -> Opener:
    # The copy is made in one step: another thread may change the original meanwhile.
    return lambda value: (tag, list(value), arrange)  # type: ignore[call-overload]  # a container, by its table


def _open_dict(value: Any) -> Opened:
    return b"m", chain.from_iterable(list(value.items())), _pairs


def _sequence(tag: bytes) -> Opener:
    def opened(value: Any) -> Opened:
        parts = list(value)
        packed = _packed(parts) if parts and type(parts[0]) in _PACKED else b""
        return (b"v" + tag + framed(packed), (), as_given) if packed else (tag, parts, as_given)

    return opened


_PACKED: Final[dict[type, str]] = {float: "d", int: "q"}


def _packed(numbers: list[Any]) -> bytes:
    """Return a vector of floats or a list of token numbers as one row of bytes, or none if it is neither."""
    cls = type(numbers[0])
    if not all(map(is_, map(type, numbers), repeat(cls))):
        return b""
    if cls is float and isnan(sum(numbers)):  # also where infinities cancel out, which does no harm
        numbers = [nan if isnan(number) else number for number in numbers]
    letter = _PACKED[cls]
    try:
        return letter.encode() + struct.pack(f"<{len(numbers)}{letter}", *numbers)
    except struct.error:  # an integer of more than 64 bits
        return b""


_OPENERS: Final[dict[type, Opener]] = {
    tuple: _sequence(b"t"),
    list: _sequence(b"l"),
    set: _container(b"e", sorted),
    frozenset: _container(b"r", sorted),
    dict: _open_dict,
}


# --- classes of the user: their opener is made once, and does not refer to the class, to end with it ---

_CLASSES: Final[WeakKeyDictionary[type, Opener]] = WeakKeyDictionary()


def _opener_of(cls: type) -> Opener:
    opener = _CLASSES.get(cls)
    if opener is None:
        opener = _CLASSES[cls] = _make_opener(cls)
    return opener


def _make_opener(cls: type) -> Opener:
    if getattr(cls, "__batche_key__", None) is not None:
        return _key_method(cls)
    if issubclass(cls, type):
        return _open_class
    if issubclass(cls, Enum):
        return _enum(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return named_tuple(cls)
    opener = array_opener(cls)
    if opener is not None:
        return opener
    _refuse_subclass(cls)
    if "__dataclass_fields__" in cls.__dict__:
        return dataclass(cls)
    raise Unkeyable(cls)


def _refuse_subclass(cls: type) -> None:
    for base in (*_LEAVES, *_OPENERS):
        if issubclass(cls, base):
            raise Unkeyable(cls, f"a subclass of {base.__name__}")
    if dataclasses.is_dataclass(cls) and "__dataclass_fields__" not in cls.__dict__:
        raise Unkeyable(cls, "a subclass of a dataclass that is not decorated itself")


def _key_method(cls: type) -> Opener:
    header = class_header(b"k", cls)
    return lambda value: (header, (value.__batche_key__(),), as_given)  # type: ignore[attr-defined]  # looked up above


def _open_class(value: Any) -> Opened:
    """A class itself, by its own class method: what it means is in its attributes, and not in its name."""
    if not isinstance(getattr_static(value, "__batche_key__", None), classmethod):
        raise Unkeyable(type(value), A_CLASS)
    return class_header(b"K", value), (value.__batche_key__(),), as_given


def _enum(cls: type[Enum]) -> Opener:
    named, unnamed = class_header(b"E", cls), class_header(b"V", cls)

    def opened(value: Any) -> Opened:
        name = value._name_
        if type(value).__members__.get(name) is value:
            return named, (name, _content(value._value_)), as_given
        return unnamed, (value._value_,), as_given  # a combination of flags

    return opened


def _content(value: object) -> bytes:
    """The canonical bytes of a member's value; none where it has none, and the name alone counts."""
    try:
        return canonical(value)
    except (Unkeyable, RecursionError):
        return b""
