"""Keys: what identifies an item's entry in a store.

A key is the function's namespace and a digest of the item in its scope. Two items have one key exactly
when their `canonical` encodings agree. 160 bits of digest: among 10^12 items the chance that any two
share a key by accident is below 10^-24.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import repeat, starmap
from operator import is_
from typing import Any, Final

from ._canonical import canonical, canonical_int64
from ._framing import Unkeyable, encoded_text, framed, framed_text
from ._types import DIGEST_BYTES, Key
from .errors import UnkeyableError

__all__ = ["Keyer", "Scope", "canonical"]

_MEMO_SCOPES: Final = 256
_MEMO_CHARACTERS: Final = 4096
_MEMO_INT: Final = 1 << 64
_MEMO_TYPES: Final = frozenset({str, int, float, bool, type(None)})


class Keyer:
    """Makes the scopes of one function.

    ``version`` and the other arguments are part of each key; ``key`` turns an item into what it is keyed
    by, and what it raises passes through. Safe in any number of threads.
    """

    def __init__(self, namespace: bytes, version: bytes, key: Callable[[Any], object] | None = None) -> None:
        self._namespace = namespace
        self._key = key
        self._seed = blake2b(framed(namespace) + framed(version))
        self._plain = self._make({})
        self._memo: dict[object, Scope] = {}

    def scope(self, arguments: Mapping[str, object]) -> Scope:
        """Return the scope of the other arguments, given by name with those to ignore left out.

        Raises `UnkeyableError` that names the argument.
        """
        if not arguments:
            return self._plain
        memo_key = _memo_key(arguments)
        if memo_key is None:
            return self._make(arguments)
        return self._memo.get(memo_key) or self._remember(memo_key, arguments)

    def _make(self, arguments: Mapping[str, object]) -> Scope:
        digest = self._seed.copy()
        for name in sorted(arguments):
            digest.update(framed_text(name) + _argument(name, arguments[name]))
        return Scope(self._namespace, digest.digest(), self._key)

    def _remember(self, memo_key: object, arguments: Mapping[str, object]) -> Scope:
        scope = self._make(arguments)
        if len(self._memo) >= _MEMO_SCOPES:
            self._memo.clear()
        if all(map(_is_small, arguments.values())):
            self._memo[memo_key] = scope
        return scope


class Scope:
    """A function with its other arguments: makes the keys of items."""

    __slots__ = ("_bytes", "_key", "_namespace", "_nested", "_text")

    def __init__(self, namespace: bytes, digest: bytes, key: Callable[[Any], object] | None) -> None:
        self._namespace = namespace
        self._key = key
        # Text and bytes end where the key's input ends, so they need no length; the letter keeps them
        # apart from each other and from all else.
        self._text = blake2b(digest + b"s", digest_size=DIGEST_BYTES)
        self._bytes = blake2b(digest + b"b", digest_size=DIGEST_BYTES)
        self._nested = blake2b(digest + b"c", digest_size=DIGEST_BYTES)

    def keys(self, items: Sequence[object]) -> list[Key]:
        """Return the key of each item, or raise `UnkeyableError` that says which item has none."""
        if self._key is not None:
            items = list(map(self._key, items))
        if len(items) == 1:
            return [self._key_of(0, items[0])]
        return self._keys_of_one_type(items) or list(starmap(self._key_of, enumerate(items)))

    def _keys_of_one_type(self, items: Sequence[Any]) -> list[Key] | None:
        """Return the keys of a batch of only text, only bytes or only 64-bit integers, which is fast."""
        kinds = map(type, items)
        cls = next(kinds, None)
        if cls not in _ONE_TYPE or not all(map(is_, kinds, repeat(cls))):
            return None
        try:
            return _ONE_TYPE[cls](self, items)
        except (UnicodeEncodeError, struct.error):  # a lone surrogate, a larger integer
            return None

    def _keys_of_text(self, items: Sequence[str]) -> list[Key]:
        return self._digests(self._text, map(str.encode, items))

    def _keys_of_bytes(self, items: Sequence[bytes]) -> list[Key]:
        return self._digests(self._bytes, items)

    def _keys_of_ints(self, items: Sequence[int]) -> list[Key]:
        return self._digests(self._nested, map(canonical_int64, items))

    def _key_of(self, index: int, item: object) -> Key:
        if type(item) is str:
            start, content = self._text, item.encode() if item.isascii() else encoded_text(item)
        elif type(item) is bytes:
            start, content = self._bytes, item
        else:
            start, content = (
                self._nested,
                _item(f"item {index}" if self._key is None else f"key= of item {index}", item),
            )
        # Going on from a copy of the digest of what is common is a third faster than starting anew.
        digest = start.copy()
        digest.update(content)
        return self._namespace + digest.digest()

    def _digests(self, start: Any, contents: Iterable[bytes]) -> list[Key]:
        # As `_key_of`, but without a call for each item, which is the hot path of a batch of texts.
        namespace, copy = self._namespace, start.copy
        keys = []
        for content in contents:
            digest = copy()
            digest.update(content)
            keys.append(namespace + digest.digest())
        return keys


_ONE_TYPE: Final[dict[type | None, Callable[[Scope, Sequence[Any]], list[Key]]]] = {
    str: Scope._keys_of_text,
    bytes: Scope._keys_of_bytes,
    int: Scope._keys_of_ints,
}


def _argument(name: str, value: object) -> bytes:
    try:
        return canonical(value)
    except Unkeyable as error:
        raise UnkeyableError(f"argument {name!r}", error.type_name, error.problem) from error.__cause__


def _item(where: str, item: object) -> bytes:
    try:
        return canonical(item)
    except Unkeyable as error:
        raise UnkeyableError(where, error.type_name, error.problem) from error.__cause__


def _memo_key(arguments: Mapping[str, object]) -> object:
    """Return something hashable that says what plain arguments are, or `None` if some are not plain."""
    parts: list[object] = [*arguments]
    for value in arguments.values():
        cls = type(value)
        if cls not in _MEMO_TYPES:
            return None
        # With its type, because 1 == True == 1.0; a float spelled out, because 0.0 == -0.0 and NaN != NaN.
        parts += cls, value.hex() if isinstance(value, float) else value
    return tuple(parts)


def _is_small(value: object) -> bool:
    """Whether to keep a plain argument in the memo, which is bounded by count."""
    if isinstance(value, str):
        return len(value) <= _MEMO_CHARACTERS
    return not isinstance(value, int) or abs(value) < _MEMO_INT
