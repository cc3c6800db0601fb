"""Keys against an idea of sameness that is written down here a second time, and in other processes."""

from __future__ import annotations

import datetime as dt
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batche
from batche._keys import Keyer, canonical


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Point:
    x: object
    y: object = 0


class Pair(NamedTuple):
    x: object
    y: object


# --- the second idea of sameness: exact types, recursion, and matching instead of sorting ---


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(same(getattr(a, part.name), getattr(b, part.name)) for part in fields(a))
    if isinstance(a, dict):
        return matched(a.items(), b.items())
    if isinstance(a, set | frozenset):
        return matched(a, b)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return same_leaf(a, b)


def matched(some: Iterable[Any], others: Iterable[Any]) -> bool:
    left = list(others)
    for one in some:
        found = next((index for index, other in enumerate(left) if same(one, other)), None)
        if found is None:
            return False
        del left[found]
    return not left


def same_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return same_leaf(a.real, b.real) and same_leaf(a.imag, b.imag)
    if isinstance(a, Decimal):
        return bool((a.is_nan() and b.is_nan()) or a.as_tuple() == b.as_tuple())
    if isinstance(a, dt.datetime | dt.time):
        return a.replace(tzinfo=None) == b.replace(tzinfo=None) and (a.fold, zone(a)) == (b.fold, zone(b))
    if isinstance(a, dt.timezone | PureWindowsPath):
        return repr(a) == repr(b)
    return bool(a == b)


def zone(value: dt.datetime | dt.time) -> object:
    offset = value.utcoffset()
    return value.tzinfo if offset is None else offset


# --- values that are easily confused ---

ZONES: list[Any] = [
    None,
    dt.UTC,
    dt.timezone(dt.timedelta(hours=1)),
    ZoneInfo("UTC"),
    ZoneInfo("Europe/Paris"),
]
CONFUSABLE: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    0.0,
    -0.0,
    1.0,
    math.nan,
    0j,
    -0j,
    "",
    "0",
    "1",
    "\x00",
    b"",
    b"1",
]
CONFUSABLE += [2**64, Decimal(1), Decimal("1.0"), Decimal("-0"), Fraction(1), UUID(int=1), PurePosixPath("1")]
CONFUSABLE += [PureWindowsPath("a"), PureWindowsPath("A"), Color.RED, Color.BLUE, dt.date(2024, 10, 27), *ZONES[1:]]

moments = st.datetimes(dt.datetime(2024, 10, 27, 1), dt.datetime(2024, 10, 27, 3), timezones=st.sampled_from(ZONES))
wild_leaves = st.one_of(
    st.integers(),
    st.integers().map(lambda number: number << 60),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters()),
    st.text(st.characters(categories=["Cs", "Lu"])),
    st.binary(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.dates(),
    st.times(timezones=st.sampled_from(ZONES)),
    st.timedeltas(),
    moments,
    st.builds(lambda moment, fold: moment.replace(fold=fold), moments, st.sampled_from([0, 1])),
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
    return st.recursive(leaves, lambda inner: containers(inner, hashable), max_leaves=8)


def containers(inner: st.SearchStrategy[Any], hashable: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Pair, inner, inner),
    )


# Decimal("sNaN") cannot be in a set or dict; tests/test_keys.py has it.
hashable_decimals = wild_leaves.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
confusable = nested(st.sampled_from(CONFUSABLE))
wild = nested(st.one_of(hashable_decimals, st.sampled_from(CONFUSABLE)))


@given(confusable, confusable)
def test_two_confusable_values_have_one_encoding_exactly_when_they_are_the_same(a: Any, b: Any) -> None:
    assert (canonical(a) == canonical(b)) == same(a, b)


@given(wild, wild)
def test_any_two_values_have_one_encoding_exactly_when_they_are_the_same(a: Any, b: Any) -> None:
    assert (canonical(a) == canonical(b)) == same(a, b)


@given(st.lists(st.one_of(confusable, wild), max_size=6))
def test_keys_of_a_batch_tell_apart_what_differs(items: list[Any]) -> None:
    keys = Keyer(b"namespac", b"").scope({}).keys(items)
    for one, key in zip(items, keys, strict=True):
        assert [other == key for other in keys] == [same(one, item) for item in items]


@given(confusable, confusable, st.booleans())
def test_scopes_tell_apart_what_differs(a: Any, b: Any, many: bool) -> None:
    keyer = Keyer(b"namespac", b"")
    more = {"more": [1]} if many else {}
    keys = [keyer.scope({"x": value, **more}).keys(["a"]) for value in (a, b, a, b)]
    assert keys[:2] == keys[2:]
    assert (keys[0] == keys[1]) == same(a, b)


def one_changed(value: Any, turn: random.Random) -> Any:
    """Return a copy of ``value`` with one leaf replaced and all dicts and sets in another order."""
    if isinstance(value, dict):
        value = dict(turn.sample(list(value.items()), len(value)))
        return {**value, (spot := turn.choice(list(value))): one_changed(value[spot], turn)} if value else {0: 0}
    if type(value) in (list, tuple) and value:
        parts = list(value)
        spot = turn.randrange(len(parts))
        parts[spot] = one_changed(parts[spot], turn)
        return type(value)(parts)
    return turn.choice(CONFUSABLE)


@given(wild, st.integers(0, 2**32))
def test_one_changed_leaf_is_another_encoding(value: Any, seed: int) -> None:
    changed = one_changed(value, random.Random(seed))
    assert (canonical(value) == canonical(changed)) == same(value, changed)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(part) for key, part in reversed(value.items())}
    if type(value) in (set, frozenset):
        return type(value)(sorted(value, key=canonical, reverse=True))
    if type(value) in (list, tuple):
        return type(value)(map(reordered, value))
    return value


@given(wild)
def test_the_order_of_dicts_and_sets_does_not_count(value: Any) -> None:
    assert canonical(reordered(value)) == canonical(value)


@given(st.lists(st.text(max_size=3), max_size=5), st.data())
def test_where_one_text_ends_and_the_next_begins_counts(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    others = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for make in MAKERS:
        assert (canonical(make(texts)) == canonical(make(others))) == (texts == others)


MAKERS: list[Callable[[list[str]], object]] = [
    list,
    tuple,
    lambda texts: [[text] for text in texts],
    lambda texts: [text.encode() for text in texts],
    lambda texts: dict(enumerate(texts)),
    lambda texts: [PurePosixPath("/"), *texts],
]


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=10), st.data())
def test_brackets_count(value: list[Any], data: st.DataObject) -> None:
    other = data.draw(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=10))
    assert (canonical(value) == canonical(other)) == (value == other)


# --- other processes ---


def sources(count: int, seed: int) -> list[str]:
    """Return expressions of ``count`` values, the same at every run."""
    turn = random.Random(seed)
    leaves: list[Callable[[], Any]] = [
        lambda: turn.choice(CONFUSABLE),
        lambda: turn.getrandbits(turn.choice([8, 63, 64, 65, 200])) * turn.choice([1, -1]),
        lambda: turn.gauss(0, 1e9),
        lambda: "".join(chr(turn.choice([65, 0x301, 0xD800, 0x1F600, turn.randrange(0x11_0000)])) for _ in range(4)),
        lambda: turn.randbytes(turn.randrange(5)),
        lambda: Decimal(turn.randrange(10**6)).scaleb(turn.randrange(-9, 9)),
        lambda: dt.datetime(2024, 10, 27, turn.randrange(24), fold=turn.randrange(2), tzinfo=turn.choice(ZONES)),
        lambda: UUID(int=turn.getrandbits(128)),
    ]

    def value(depth: int) -> str:
        if depth == 0 or turn.random() < 0.3:
            return (
                ascii(turn.choice(leaves)())
                .replace("<Color.RED: 1>", "Color.RED")
                .replace("<Color.BLUE: 2>", "Color.BLUE")
            )
        parts = [value(depth - 1) for _ in range(turn.randrange(4))]
        flat = [value(0) for _ in range(turn.randrange(6))]
        pairs = [f"{a}: {b}" for a, b in zip(flat, [*parts, *flat], strict=False)]
        return turn.choice(
            [
                f"[{', '.join(parts)}]",
                f"({', '.join([*parts, ''])})" if parts else "()",
                f"set([{', '.join(flat)}])",
                f"frozenset([{', '.join(flat)}])",
                f"{{{', '.join(pairs)}}}",
            ]
        )

    return [value(3) for _ in range(count)]


DIGEST = """
import datetime, enum, math, pathlib, sys, types, zoneinfo
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from math import inf, nan
from pathlib import PurePosixPath, PureWindowsPath
from uuid import UUID

package = types.ModuleType("batche")  # its parts alone: the interpreter need not have what the rest requires
package.__path__ = [sys.argv[1]]
sys.modules["batche"] = package
from batche._keys import Keyer, canonical

Color = enum.Enum("Color", {"RED": 1, "BLUE": 2}, module=sys.argv[2])
values = [eval(line) for line in sys.stdin]
scope = Keyer(b"namespac", b"version").scope({"x": values[0], "y": 1})
for value in values:
    print(sha256(canonical(value) + scope.keys([value])[0]).hexdigest())
"""


def digests_in(python: str, lines: list[str], hash_seed: str) -> list[str]:
    command = [python, "-c", DIGEST, str(Path(batche.__path__[0])), __name__]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONINTMAXSTRDIGITS": "0"}
    done = subprocess.run(command, input="\n".join(lines), env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def digests_here(lines: list[str]) -> list[str]:
    values = [
        eval(line, {**globals(), "datetime": dt, "zoneinfo": sys.modules["zoneinfo"], "nan": math.nan, "inf": math.inf})
        for line in lines
    ]
    scope = Keyer(b"namespac", b"version").scope({"x": values[0], "y": 1})
    return [sha256(canonical(value) + scope.keys([value])[0]).hexdigest() for value in values]


@pytest.mark.parametrize("hash_seed", ["0", "1", "4294967295"])
def test_keys_do_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    lines = sources(400, seed=7)
    assert digests_in(sys.executable, lines, hash_seed) == digests_here(lines)


def interpreter(version: str) -> str | None:
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    return next(map(str, installed), None) or shutil.which(f"python{version}")


@pytest.mark.may_skip(reason="interpreters besides the running one need not be installed")
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_keys_do_not_depend_on_the_version_of_python(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    lines = sources(400, seed=8)
    assert digests_in(python, lines, "random") == digests_here(lines)


def test_keys_are_those_of_earlier_releases() -> None:
    """Persistent stores hold entries under keys made before: if this fails, all of them are lost."""
    values = [value for value in CONFUSABLE if not isinstance(value, Color)]
    values += [[*values], tuple(values), {"a": [1, 2.5]}, {"b", "c"}, dt.datetime(2024, 1, 2, 3, 4, 5, 6, dt.UTC)]
    keys = Keyer(b"namespac", b"version").scope({"model": "small", "sizes": [1, 2]}).keys(values)
    assert sha256(b"".join(keys)).hexdigest() == "4c95df1c5663c72b1587ed72d7795656e14b57f0781a34c779f8d66ae7ad55be"
