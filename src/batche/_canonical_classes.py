"""How the instances of a user's classes are taken apart, and what of the class itself counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from ._framing import Opened, Opener, Unkeyable, as_given, framed, framed_text
from ._names import qualified_name
from ._namespace import class_digest


def class_header(tag: bytes, cls: type, names: Iterable[str] = ()) -> bytes:
    """What the encodings of a class's instances begin with.

    Of classes that are made inside functions several may have one name: there what it defines counts as well.
    """
    local = framed(class_digest(cls)) if "<locals>" in cls.__qualname__ else b""
    return tag + framed_text(qualified_name(cls)) + b"".join(map(framed_text, names)) + b";" + local


def dataclass(cls: type) -> Opener:
    """All fields, in order."""
    names = [field.name for field in dataclasses.fields(cls)]
    header = class_header(b"d", cls, names)

    def opened(value: object) -> Opened:
        try:
            return header, [getattr(value, name) for name in names], as_given
        except AttributeError as error:
            raise Unkeyable(type(value), f"its field {error.name!r} is not set") from error

    return opened


def named_tuple(cls: type) -> Opener:
    """All fields, in order; nothing else may be in it."""
    names: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]  # looked up above
    header = class_header(b"n", cls, names)

    def opened(value: Any) -> Opened:
        parts = list(tuple.__iter__(value))
        if len(parts) != len(names) or getattr(value, "__dict__", None):
            raise Unkeyable(type(value), "a NamedTuple with more to it than its fields")
        return header, parts, as_given

    return opened
