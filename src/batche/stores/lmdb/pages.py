"""LMDB's file looked at as a file: before LMDB maps it, whether it is one, and all there; and which pages are free.

Layout: LMDB 0.9, ``MDB_page``, ``MDB_meta`` and ``MDB_node`` in mdb.c, on a 64-bit platform. The first two pages are
heads, of which the one with the larger transaction number holds; each names the roots of two trees, of free pages and
of records. Limit: of the trees only what is said below is read, and LMDB has no checksums for the rest.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from batche.stores.lmdb.descriptors import File, file_at

_PAGE: Final = struct.Struct("=QHHHH")
_OVERFLOW: Final = struct.Struct("=QHHI")
_META: Final = struct.Struct("=IIQQ")
_TREE: Final = struct.Struct("=IHHQQQQQ")
_LAST: Final = struct.Struct("=QQ")
_NODE: Final = struct.Struct("=HHHH")
_WORD: Final = struct.Struct("=Q")
_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_BRANCH, _LEAF, _HEAD = 0x01, 0x02, 0x08
_ELSEWHERE: Final = 0x01
"""The flag of a node whose data are in pages of their own."""
_NONE: Final = (1 << 64) - 1
"""The root of an empty tree."""
_HEADS: Final = 8192
"""Bytes that hold both heads, where pages are of the usual size."""
_LOOKS: Final = 32
"""Looks at a file that others write while it is looked at."""
_LONGEST: Final = 1 << 24
"""Bytes of a record of free pages that are read: LMDB splits longer ones."""
_DEEPEST: Final = 32
"""Levels that a tree may have (``CURSOR_STACK``)."""


class Head(NamedTuple):
    """One of the two heads."""

    transaction: int
    last: int
    free: int
    records: int


def check(directory: int, name: str) -> str | None:
    """What is wrong with the file ``name`` in ``directory``: with its heads, its roots or its length.

    A file that lacks a page may be whole still: LMDB counts pages that it freed before it ever wrote them. So it counts
    as cut short only if a page that it lacks is not among the free ones.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        for _ in range(_LOOKS):
            before = os.pread(descriptor, _HEADS, 0)
            problem = _problem(descriptor)
            if problem is None or os.pread(descriptor, _HEADS, 0) == before:
                return f"{name} {problem}" if problem else None
        return None  # others write without a pause: so they at least can read it
    finally:
        os.close(descriptor)


def free(path: Path, file: File | None) -> list[tuple[int, int]] | None:
    """How many pages of ``file`` are free, by the transaction that freed them; `None` where that cannot be told.

    Nobody may write meanwhile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        tree = _tree(descriptor) if file_at(descriptor) == file else ""
        return None if isinstance(tree, str) else tree.free()
    except (OSError, struct.error, _PageError):
        return None
    finally:
        os.close(descriptor)


def _problem(descriptor: int) -> str | None:
    try:
        tree = _tree(descriptor)
        return tree if isinstance(tree, str) else tree.problem()
    except (struct.error, _PageError) as error:
        return f"is damaged or cut short ({error})"


def _tree(descriptor: int) -> _Tree | str:
    """The pages as of the last commit, or what is wrong with the heads."""
    size = _TREE.unpack(os.pread(descriptor, _TREE.size, _PAGE.size + _META.size))[0]
    if not 512 <= size <= 1 << 16 or size & (size - 1):
        return "is damaged (its first head)"
    heads = [_head(descriptor, number * size) for number in (0, 1)]
    if None in heads:
        return "is damaged (a head), or of another version of LMDB"
    return _Tree(descriptor, size, max(head for head in heads if head is not None))


def _head(descriptor: int, at: int) -> Head | None:
    flags = _PAGE.unpack(os.pread(descriptor, _PAGE.size, at))[2]
    at += _PAGE.size
    magic, version, _, _ = _META.unpack(os.pread(descriptor, _META.size, at))
    if not flags & _HEAD or magic != _MAGIC or version != _VERSION:
        return None
    at += _META.size
    free, records = (_TREE.unpack(os.pread(descriptor, _TREE.size, at + tree * _TREE.size))[-1] for tree in (0, 1))
    last, transaction = _LAST.unpack(os.pread(descriptor, _LAST.size, at + 2 * _TREE.size))
    return Head(transaction, last, free, records)


class _PageError(Exception):
    """A page is not what it must be. A writer may be reusing it: after two commits it may hold anything."""


class _Freed(NamedTuple):
    """A record of pages that a transaction freed."""

    transaction: int
    data: bytes
    elsewhere: bool
    """Whether the data only say in which pages of their own they are."""


class _Tree:
    """The pages of the file as of one head."""

    def __init__(self, descriptor: int, size: int, head: Head) -> None:
        self._descriptor = descriptor
        self._size = size
        self._head = head

    def problem(self) -> str | None:
        head = self._head
        for root in (head.free, head.records):
            if root != _NONE:
                self._page(root)
        size = os.fstat(self._descriptor).st_size  # after the head: the file only grows
        lacking = set(range(size // self._size, head.last + 1)) if size < (head.last + 1) * self._size else set()
        if lacking:
            for record in self._free(head.free, 0):
                lacking.difference_update(self._numbers(record))
        return f"is cut short ({size} of {(head.last + 1) * self._size} bytes)" if lacking else None

    def free(self) -> list[tuple[int, int]]:
        """How many pages are free, by the transaction that freed them."""
        return [(record.transaction, self._number(record)) for record in self._free(self._head.free, 0)]

    def _page(self, number: int) -> bytes:
        """The bytes of page ``number`` of a tree."""
        page = os.pread(self._descriptor, self._size, number * self._size) if number <= self._head.last else b""
        if len(page) < self._size:
            raise _PageError(f"page {number} is missing")
        named, _, flags, lower, upper = _PAGE.unpack_from(page)
        if named != number or not flags & (_BRANCH | _LEAF) or not _PAGE.size <= lower <= upper <= self._size:
            raise _PageError(f"page {number} is not a tree's")
        return page

    def _free(self, number: int, depth: int) -> Iterator[_Freed]:
        """The records of free pages in the tree whose root is page ``number``."""
        if number == _NONE:
            return
        if depth > _DEEPEST:
            raise _PageError("a tree without an end")
        page = self._page(number)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        for (at,) in struct.iter_unpack("=H", page[_PAGE.size : lower - lower % 2]):
            low, high, more, key = _NODE.unpack_from(page, at)
            if flags & _BRANCH:
                yield from self._free(low | high << 16 | more << 32, depth + 1)
            else:
                start, (transaction,) = at + _NODE.size + key, _WORD.unpack_from(page, at + _NODE.size)
                yield _Freed(transaction, page[start : start + (low | high << 16)], bool(more & _ELSEWHERE))

    def _number(self, record: _Freed) -> int:
        """How many pages are in a record."""
        at = self._elsewhere(record)
        data = record.data if at is None else os.pread(self._descriptor, _WORD.size, at + _OVERFLOW.size)
        return int(_WORD.unpack_from(data)[0])

    def _numbers(self, record: _Freed) -> list[int]:
        """The numbers of the pages in a record; first in it is how many."""
        at, data = self._elsewhere(record), record.data
        if at is not None:
            pages = _OVERFLOW.unpack(os.pread(self._descriptor, _OVERFLOW.size, at))[-1]
            data = os.pread(self._descriptor, min(pages * self._size, _LONGEST), at)[_OVERFLOW.size :]
        words = memoryview(data[: len(data) - len(data) % 8]).cast("Q").tolist()
        return words[1 : 1 + words[0]] if words else []

    def _elsewhere(self, record: _Freed) -> int | None:
        """Where the pages of its own begin that a record is in."""
        return _WORD.unpack_from(record.data)[0] * self._size if record.elsewhere else None
