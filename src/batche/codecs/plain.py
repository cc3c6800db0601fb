"""Plain data as msgpack.

msgpack alone is lossy in silence: a tuple comes back as a list, a bytearray as bytes, a subclass as its base.
So only exact types are written. What msgpack has no type for is an extension (`batche.codecs.leaves`), and
a tuple or a set is a list whose first element is an empty extension, its mark. Marks keep a nested value one
flat stream: neither hostile nor deep data makes the reader recurse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Final

from batche.codecs import arrays, leaves, tensors
from batche.codecs.base import ARRAY, MARKED, TAG_BYTES, TENSOR, Refused
from batche.codecs.wire import ExtType, Packer, unpackb

MAX_DEPTH: Final = 500
"""msgpack's reader gives up at 1024 levels, its writer does not."""
MAX_REPEATS: Final = 100_000
"""How many containers may be written more than once, being in the value more than once."""

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_NEVER_ARRAYS: Final = _SCALARS | {list}
_BRANCHES: Final = frozenset({list, dict, tuple, set, frozenset})
_PROOFS: Final[dict[type, Callable[[list[Any]], Any]]] = {float: sum, int: sum, str: "".join}


class _Mark:
    """Stands first in a list that is something else."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        self.build = build


def _ints(parts: list[Any], number: int) -> list[int]:
    """``parts``, if they are what was written. A Fraction takes texts as well: that of ``1e999999999`` has no end."""
    if [type(part) for part in parts] != [int] * number:
        raise ValueError(f"not {number} ints")
    return parts


_CODES: Final[dict[type, int]] = {tuple: 1, set: 2, frozenset: 3, Fraction: 4, range: 5}
_MARKS: Final = {
    1: _Mark(tuple),
    2: _Mark(set),
    3: _Mark(frozenset),
    4: _Mark(lambda parts: Fraction(*_ints(parts, 2))),
    5: _Mark(lambda parts: range(*_ints(parts, 3))),
}
_SIGNS: Final = {kind: ExtType(code, b"") for kind, code in _CODES.items()}


# One packer for lists of floats: no code but msgpack's own runs while it packs them, so no two threads meet in it.
_pack_floats: Final = Packer(strict_types=True).pack


def pack(value: Any, aliases: bool) -> bytes:
    """The record of a value; `Refused` if it has a part that is not plain.

    ``aliases`` says whether a container that is in the value more than once may be written as often, and so
    come back as equal but separate containers.
    """
    kind = type(value)
    if kind not in _NEVER_ARRAYS and arrays.is_array(kind):
        return arrays.pack(value, ARRAY)
    try:
        if kind is list and value and type(value[0]) is float:
            # `_is_flat` again for the commonest result, without the calls, which would be a fifth of its cost.
            if type(value[-1]) is float and type(sum(value)) is float:
                return _pack_floats(value)
        elif kind in _SCALARS or _is_flat(value, kind):
            # A packer for each call: one that is shared gives wrong bytes when two threads meet in it.
            return Packer(strict_types=True, unicode_errors="surrogatepass").pack(value)
    except Exception:
        pass  # A subclass, an int of more than 64 bits, or parts that do not add up: looked at one by one.
    if tensors.is_tensor(kind):
        return TENSOR + tensors.pack(value)
    return _pack_tree(value, aliases)


def unpack_marked(data: bytes) -> Any:
    """The value of a `MARKED` record; any exception means that the bytes are not ours."""
    return _Reader().read(memoryview(data)[TAG_BYTES:])


def _is_flat(value: Any, kind: type) -> bool:
    """Whether a list or dict is known to hold only scalars, or what msgpack itself refuses.

    The danger is a bytearray, which msgpack takes for bytes. A sum that is a float, or a text that was
    joined, had none among its parts: proven at a fifth of the cost of looking at each type. Looking at both
    ends first keeps objects that have an addition of their own out of the sum.
    """
    if kind is list and value:
        first = type(value[0])
        proof = _PROOFS.get(first)
        try:
            return proof is not None and type(value[-1]) is first and type(proof(value)) is first
        except Exception:
            return False
    return kind is dict and _are_scalars(value) and _are_scalars(value.values())


def _are_scalars(parts: Iterable[Any]) -> bool:
    return _SCALARS.issuperset(map(type, parts))


def _pack_tree(value: Any, aliases: bool) -> bytes:
    marked, bytearrays = _survey(value, aliases)
    if bytearrays:
        value = _wrap(value)
    packer = Packer(strict_types=True, unicode_errors="surrogatepass", default=_default)
    packed = packer.pack(value)
    return MARKED + packed if marked else packed


def _default(value: Any) -> Any:
    kind = type(value)
    if kind in _CODES:
        return [_SIGNS[kind], *_parts(value)]
    encode = leaves.encoder(kind)
    if encode is None:
        raise Refused(f"{kind.__qualname__} is not plain data")  # The value was changed by another thread.
    return encode(value)


def _refuse_foreign(kinds: set[type]) -> None:
    """What has no place in the format, also what msgpack would take: its own types, and memoryviews."""
    for kind in kinds - _SCALARS - _BRANCHES - _CODES.keys():
        if leaves.encoder(kind) is None:
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise Refused(f"{name} is not plain data: return plain data, or use codec='pickle'")


def _parts(value: Any) -> Iterable[Any]:
    if type(value) is Fraction:
        return value.numerator, value.denominator
    if type(value) is range:
        return value.start, value.stop, value.step
    return value  # type: ignore[no-any-return]  # a tuple or a set


def _survey(value: Any, aliases: bool) -> tuple[bool, bool]:
    """Whether any part of the value needs a mark, and whether any is a bytearray.

    By levels, not by recursion, so that a deep value, or one that contains itself, ends at `MAX_DEPTH`.
    """
    kinds = {type(value)}
    seen: set[int] = set()
    visits = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        visits += len(level)
        seen.update(map(id, level))
        if visits - len(seen) > (MAX_REPEATS if aliases else 0):
            raise Refused("a container is in the value more than once, or contains itself: use codec='auto'")
        level = [part for branch in level for part in _branches_of(branch, kinds)]
        if not level:
            _refuse_foreign(kinds)
            return not kinds.isdisjoint(_CODES), bytearray in kinds
    raise Refused(f"nested more than {MAX_DEPTH} levels deep: return flatter data")


def _branches_of(branch: Any, kinds: set[type]) -> list[Any]:
    """The parts to look into, or whose identity counts; adds the types of all parts to ``kinds``."""
    kind = type(branch)
    if kind not in _BRANCHES or _is_flat(branch, kind):
        return []
    parts = [*branch, *branch.values()] if kind is dict else branch
    found = set(map(type, parts))
    kinds |= found
    held = set(filter(_is_held, found))
    return [part for part in parts if type(part) in held and not _is_constant(part)] if held else []


def _is_held(kind: type) -> bool:
    return kind in _BRANCHES or kind is bytearray or arrays.is_array(kind) or tensors.is_tensor(kind)


def _is_constant(part: Any) -> bool:
    """Whether it may be in a value many times without anyone noticing when the copies are separate."""
    return type(part) in (tuple, frozenset) and _are_scalars(part)


def _wrap(value: Any) -> Any:
    """The value with each bytearray replaced, which msgpack would otherwise write as bytes."""
    kind = type(value)
    if kind is bytearray:
        return ExtType(leaves.BYTEARRAY, bytes(value))
    if kind is list or kind is tuple:
        return kind(map(_wrap, value))
    if kind is dict:
        return {key: _wrap(part) for key, part in value.items()}
    return value


class _Reader:
    """Reads one marked record, and sees that each mark was first in a list."""

    __slots__ = ("unmatched",)

    def __init__(self) -> None:
        self.unmatched = 0

    def read(self, data: memoryview) -> Any:
        value = unpackb(
            data, ext_hook=self.extension, list_hook=self.list, strict_map_key=False, unicode_errors="surrogatepass"
        )
        if self.unmatched:
            raise ValueError("a mark out of place")
        return value

    def extension(self, code: int, data: bytes) -> Any:
        mark = _MARKS.get(code)
        if mark is None:
            return leaves.decode(code, data)
        self.unmatched += 1
        return mark

    def list(self, items: list[Any]) -> Any:
        if items and type(items[0]) is _Mark:
            self.unmatched -= 1
            return items[0].build(items[1:])
        return items
