"""Values of the standard library that msgpack has no type for, as extension types.

Only exact types are written: a subclass would come back as its base. Payloads are flat, none holds msgpack
again, so hostile bytes cannot nest through here.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final
from uuid import UUID, SafeUUID

from batche._names import module_name, module_named
from batche.codecs import arrays, tensors
from batche.codecs.base import Refused
from batche.codecs.wire import ExtType

BYTEARRAY, INT, COMPLEX, DECIMAL, UUID_, PATH, ENUM = range(16, 23)
DATETIME, DATE, TIME, TIMEDELTA, TIMEZONE = range(32, 37)
ARRAY, SCALAR, TEXT, TENSOR = range(48, 52)

_COMPLEX: Final = struct.Struct("<dd")
_DATE: Final = struct.Struct("<HBB")
_TIME: Final = struct.Struct("<BBBIB")
_DELTA: Final = struct.Struct("<iii")
_PATHS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in (PurePosixPath, PureWindowsPath, type(Path()))}
_SAFE: Final = (SafeUUID.safe, SafeUUID.unsafe, SafeUUID.unknown)


def _encode_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _encode_int(value: int) -> ExtType:
    return ExtType(INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _decode_int(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _encode_complex(value: complex) -> ExtType:
    return ExtType(COMPLEX, _COMPLEX.pack(value.real, value.imag))


def _decode_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _encode_uuid(value: UUID) -> ExtType:
    return ExtType(UUID_, value.bytes + bytes([_SAFE.index(value.is_safe)]))


def _decode_uuid(data: bytes) -> UUID:
    return UUID(bytes=data[:-1], is_safe=_SAFE[data[-1]])


def _encode_path(value: os.PathLike[str]) -> ExtType:
    return ExtType(PATH, _encode_text(f"{type(value).__name__}\0{value}"))


def _decode_path(data: bytes) -> Any:
    kind, _, text = _decode_text(data).partition("\0")
    return _PATHS[kind](text)


def _encode_delta(value: timedelta) -> bytes:
    return _DELTA.pack(value.days, value.seconds, value.microseconds)


def _decode_delta(data: bytes) -> timedelta:
    return timedelta(*_DELTA.unpack(data))


def _encode_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _decode_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _encode_time(value: time | datetime) -> bytes:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return fields + _encode_zone(value.tzinfo)


def _decode_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, _decode_zone(data[_TIME.size :]), fold=fold)


def _encode_datetime(value: datetime) -> bytes:
    return _encode_date(value) + _encode_time(value)


def _decode_datetime(data: bytes) -> datetime:
    return datetime.combine(_decode_date(data[: _DATE.size]), _decode_time(data[_DATE.size :]))


def _encode_zone(zone: tzinfo | None) -> bytes:
    """A zone of the standard library; the first byte says which.

    A zone that was not made by its key alone (``ZoneInfo.no_cache``, ``from_file``) is refused: the one found
    again by key would be another object, and zones compare by identity.
    """
    if zone is None:
        return b""
    if type(zone) is timezone:
        return _encode_offset(zone)
    if _is_zoneinfo(type(zone)):
        kind: Any = type(zone)
        key = getattr(zone, "key", None)
        if key is not None and kind(key) is zone:
            return b"z" + _encode_text(key)
    raise Refused(f"the time zone {zone!r} is not one of the standard library's")


def _is_zoneinfo(kind: type[Any]) -> bool:
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and kind is zoneinfo.ZoneInfo


def _encode_offset(zone: timezone) -> bytes:
    offset, name = zone.utcoffset(None), zone.tzname(None)
    if name == timezone(offset).tzname(None):
        return b"o" + _encode_delta(offset)
    return b"n" + _encode_delta(offset) + _encode_text(name)


def _decode_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    kind, rest = data[:1], data[1:]
    if kind == b"o":
        return timezone(_decode_delta(rest))
    if kind == b"n":
        return timezone(_decode_delta(rest[: _DELTA.size]), _decode_text(rest[_DELTA.size :]))
    if kind == b"z":
        from zoneinfo import ZoneInfo  # only values that hold a zone pay for its import

        return ZoneInfo(_decode_text(rest))
    raise ValueError("no such kind of time zone")


def _encode_enum(member: Enum) -> ExtType:
    """A member by its class's import path and its name.

    Members without a name of their own (``Flag.A | Flag.B``) and classes not found at their path are refused.
    """
    kind = type(member)
    path = f"{module_name(kind.__module__)}\0{kind.__qualname__}\0{member.name}"
    try:
        if _decode_enum(_encode_text(path)) is member:
            return ExtType(ENUM, _encode_text(path))
    except (LookupError, ValueError):
        pass
    raise Refused(f"the enum member {member!r} is not found again as {path.replace(chr(0), '.')}")


def _decode_enum(data: bytes) -> Enum:
    """The member at a path, looked up in what is imported already.

    Importing here would let bytes from a store choose which code runs. So an entry whose enum this process
    has not imported cannot be read, and is computed again; the module of the function that returns the enum
    has normally imported it.
    """
    module, path, name = _decode_text(data).split("\0")
    found: Any = module_named(module)
    if found is None:
        raise LookupError(f"{module} is not imported")
    for part in path.split("."):
        # vars(), not getattr(): a module's __getattr__ may import, a descriptor may run anything.
        found = vars(found)[part]
        if not isinstance(found, type):
            raise ValueError(f"{path} is not a class")
    if not issubclass(found, Enum):
        raise ValueError(f"{path} is not an enum")
    member: Enum = found.__members__[name]
    return member


def _tagged(code: int, encode: Callable[[Any], bytes]) -> Callable[[Any], ExtType]:
    return lambda value: ExtType(code, encode(value))


_ENCODERS: Final[dict[type, Callable[[Any], ExtType]]] = {
    bytearray: _tagged(BYTEARRAY, bytes),
    int: _encode_int,
    complex: _encode_complex,
    Decimal: _tagged(DECIMAL, lambda value: str(value).encode()),
    UUID: _encode_uuid,
    datetime: _tagged(DATETIME, _encode_datetime),
    date: _tagged(DATE, _encode_date),
    time: _tagged(TIME, _encode_time),
    timedelta: _tagged(TIMEDELTA, _encode_delta),
    timezone: _tagged(TIMEZONE, _encode_zone),
    **dict.fromkeys(_PATHS.values(), _encode_path),
}
_FAMILIES: Final[tuple[tuple[Callable[[type], bool], Callable[[Any], ExtType]], ...]] = (
    (lambda kind: issubclass(kind, Enum), _encode_enum),
    (arrays.is_array, _tagged(ARRAY, arrays.pack)),
    (arrays.is_scalar, _tagged(SCALAR, arrays.pack_scalar)),
    (arrays.is_text, _tagged(TEXT, arrays.pack_text)),
    (tensors.is_tensor, _tagged(TENSOR, tensors.pack)),
    (_is_zoneinfo, _tagged(TIMEZONE, _encode_zone)),
)
"""Types that are known only by asking: classes of users, and of modules that may not be imported."""
_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    BYTEARRAY: bytearray,
    INT: _decode_int,
    COMPLEX: _decode_complex,
    DECIMAL: lambda data: Decimal(data.decode("ascii")),
    UUID_: _decode_uuid,
    PATH: _decode_path,
    ENUM: _decode_enum,
    DATETIME: _decode_datetime,
    DATE: _decode_date,
    TIME: _decode_time,
    TIMEDELTA: _decode_delta,
    TIMEZONE: _decode_zone,
    ARRAY: arrays.unpack,
    SCALAR: arrays.unpack_scalar,
    TEXT: arrays.unpack_text,
    TENSOR: tensors.unpack,
}


def encoder(kind: type) -> Callable[[Any], ExtType] | None:
    """What writes values of exactly this type, if anything does."""
    found = _ENCODERS.get(kind)
    if found is not None:
        return found
    return next((encode for belongs, encode in _FAMILIES if belongs(kind)), None)


def decode(code: int, data: bytes) -> Any:
    """The value of one extension; any exception means that the bytes are not ours."""
    return _DECODERS[code](data)
