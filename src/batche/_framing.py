"""What the canonical encoders have in common: how bytes are framed and how a value is opened.

Every encoding says its type and its length before its content, so no encoding is the beginning of
another, and encodings in a row can be taken apart in one way only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

Arrange: TypeAlias = Callable[[list[bytes]], Iterable[bytes]]
"""Puts the encoded parts of a value in their canonical order."""

Opened: TypeAlias = tuple[bytes, Iterable[object], Arrange]
"""A value taken apart: the bytes of its type, its parts, and the order that their encodings get."""

Opener: TypeAlias = Callable[[object], Opened]

size: Final = struct.Struct("<Q").pack


class Unkeyable(Exception):
    """A value, or a part of it, has no canonical encoding."""

    def __init__(self, cls: type, problem: str = "") -> None:
        super().__init__(cls, problem)
        self.type_name = full_name(cls)
        self.problem = problem


def full_name(cls: type) -> str:
    """Return the name of a type as an error message shows it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def framed(content: bytes) -> bytes:
    """Return ``content`` behind its length."""
    return size(len(content)) + content


def encoded_text(text: str) -> bytes:
    """Return ``text`` as UTF-8; lone surrogates, which have none, get bytes of their own."""
    try:
        return text.encode()  # three times as fast
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def framed_text(text: str) -> bytes:
    """Return ``text`` as UTF-8 behind its length."""
    return framed(encoded_text(text))


def as_given(parts: list[bytes]) -> Iterable[bytes]:
    """Arrange parts whose order counts."""
    return parts
