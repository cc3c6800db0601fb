from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import gc
import math
import struct
import threading
import weakref
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from batche._canonical import MAX_DEPTH
from batche._framing import Unkeyable
from batche._keys import Keyer, canonical
from batche._types import KEY_BYTES
from batche.errors import UnkeyableError

KEYER = Keyer(b"namespac", b"version")
UTC = dt.timezone.utc  # noqa: UP017 - the same object; the longer name shows that it is a timezone


def key(item: object, **arguments: object) -> bytes:
    return KEYER.scope(arguments).keys([item])[0]


def argument_scope(value: object) -> bytes:
    return key("item", argument=value)


def float_from(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    y: int = 0


class Pair(NamedTuple):
    x: int
    y: int


class OtherPair(NamedTuple):
    x: int
    y: int


class PairWithMethods(namedtuple("PairWithMethods", "x y")):
    def total(self) -> int:
        return int(self.x + self.y)


class Client:
    """Has a key of its own, and nothing else that could serve as one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __batche_key__(self) -> object:
        return {"url": self.url}

    def __eq__(self, other: object) -> bool:
        raise AssertionError("keys never compare values")

    def __hash__(self) -> int:
        raise AssertionError("keys never hash values")

    def __repr__(self) -> str:
        raise AssertionError("keys never show values")

    def __reduce__(self) -> str:
        raise AssertionError("keys never pickle values")


# Each is different from all others, though many are equal to each other in Python.
DISTINCT: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**5000,
    -(10**5000),
    0.0,
    -0.0,
    1.0,
    math.nan,
    math.inf,
    -math.inf,
    0j,
    complex(0.0, -0.0),
    complex(-0.0, 0.0),
    1 + 0j,
    complex(math.nan, 1.0),
    complex(math.nan, 2.0),
    "",
    "1",
    "\x00",
    "1\x00",
    "caf\u00e9",
    "cafe\u0301",
    "\ud800",
    "\U0001f600",
    "\ud83d\ude00",
    b"",
    b"1",
    b"\x00",
    (),
    (1,),
    (1, 1),
    ((1,), 1),
    ((1, 1),),
    [],
    [1],
    [[1]],
    [1, 1],
    [1, 2],
    [1, True],
    [1, 2**63],
    [2**63, 1],
    [1.0],
    [1.0, 1],
    [0.0],
    [-0.0],
    [math.nan],
    [math.nan, 1.0],
    [struct.unpack("<d", struct.pack("<q", 1))[0]],
    (1.0,),
    [[], []],
    [[[]]],
    {},
    {1: 2},
    {2: 1},
    {1: 2, 3: 4},
    {"1": 2},
    {(1, 2): None},
    set(),
    {1},
    {1.0},
    {True},
    {1, 2},
    frozenset(),
    frozenset({1}),
    {frozenset({1})},
    dt.date(2024, 1, 2),
    dt.datetime(2024, 1, 2),
    dt.datetime(2024, 1, 2, fold=1),
    dt.datetime(2024, 1, 2, microsecond=1),
    dt.datetime(2024, 1, 2, tzinfo=UTC),
    dt.datetime(2024, 1, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    dt.time(1, 2),
    dt.time(1, 2, fold=1),
    dt.time(1, 2, tzinfo=UTC),
    dt.time(1, 2, tzinfo=ZoneInfo("Europe/Paris")),
    dt.timedelta(0),
    dt.timedelta(microseconds=-1),
    dt.timedelta(days=1),
    UTC,
    dt.timezone(dt.timedelta(0), "UTC"),
    dt.timezone(dt.timedelta(hours=1)),
    dt.timezone(dt.timedelta(hours=1), "UTC+01:00"),
    ZoneInfo("UTC"),
    ZoneInfo("Europe/Paris"),
    Decimal("1"),
    Decimal("1.0"),
    Decimal("1.00"),
    Decimal("-1"),
    Decimal("0"),
    Decimal("-0"),
    Decimal("1E+1"),
    Decimal("10"),
    Decimal("NaN"),
    Decimal("Infinity"),
    Decimal("-Infinity"),
    Fraction(1),
    Fraction(1, 2),
    UUID(int=0),
    UUID(int=1),
    PurePosixPath("a"),
    PureWindowsPath("a"),
    PureWindowsPath("A"),
    PurePosixPath("a/b"),
    PurePosixPath("\udcff"),
    Color.RED,
    Color.BLUE,
    Shade.RED,
    Level.LOW,
    Access.READ,
    Access.READ | Access.WRITE,
    Access(0),
    Point(1),
    Point(1, 2),
    Slotted(1),
    Pair(1, 2),
    OtherPair(1, 2),
    PairWithMethods(1, 2),
    Client("a"),
    Client("b"),
    np.float64(1),
    np.float32(1),
    np.int64(1),
    np.int32(1),
    np.bool_(True),
    np.str_("1"),
    np.str_("1\x00"),
    np.str_(""),
    np.str_("\x00"),
    np.bytes_(b"1"),
    np.bytes_(b"1\x00"),
    np.bytes_(b""),
    np.bytes_(b"\x00"),
    np.complex128(1),
    np.longdouble(1),
    np.datetime64("2024-01-02", "D"),
    np.datetime64("2024-01-02", "s"),
    np.datetime64("NaT", "s"),
    np.timedelta64(1, "s"),
    np.timedelta64(1, "ms"),
    np.timedelta64(1, ("ms", 25)),
    np.void(b"1"),
    np.array(1.0),
    np.array([1.0]),
    np.array([[1.0]]),
    np.array([1.0], "f4"),
    np.array([1.0], ">f8"),
    np.array([0.0]),
    np.array([-0.0]),
    np.array([np.nan]),
    np.array([1.0], "g"),
    np.array([1.0], "c16"),
    np.array([1]),
    np.array([True]),
    np.array(["1"]),
    np.array(["1"], "U2"),
    np.array([b"1"]),
    np.array([]),
    np.zeros((0, 2)),
    np.zeros((2, 0)),
    np.array([1, "1"], object),
    np.array([[1, "1"]], object),
    np.array([1, 1], object),
    np.array([1, True], object),
    np.array(["a", "bc"], np.dtypes.StringDType()),
    np.array(["ab", "c"], np.dtypes.StringDType()),
    np.array(["ab", "c"], np.dtypes.StringDType(na_object=None)),
    np.array([(1, 2)], [("a", "i4"), ("b", "i4")]),
    np.array([(1, 2)], [("a", "i4"), ("c", "i4")]),
    np.array([(1, 2)], [("a", "i4"), ("b", "i8")]),
    np.array([(1, 2)], [("b", "i4"), ("a", "i4")]),
    np.array([(1, 2)], [(("title", "a"), "i4"), ("b", "i4")]),
    np.ones(1, np.dtype({"names": ["a"], "formats": ["i1"], "offsets": [0], "itemsize": 4})),
    np.ones(1, np.dtype({"names": ["a"], "formats": ["i1"], "offsets": [2], "itemsize": 4})),
    np.array([(1, 2)], np.dtype([("a", "i1"), ("b", "i4")])),
    np.array([(1, 2)], np.dtype([("a", "i1"), ("b", "i4")], align=True)),
    np.array([(1, 2)], [("a", "i4"), ("b", "i4")])[0],
    np.array([1, 2], "M8[s]"),
    np.array([1, 2], "m8[s]"),
]


@pytest.mark.parametrize("encode", [key, argument_scope, canonical, lambda value: key([value])])
def test_what_differs_in_type_or_content_has_another_key(encode: Callable[[object], bytes]) -> None:
    seen: dict[bytes, int] = {}
    for index, value in enumerate(DISTINCT):
        other = seen.setdefault(encode(value), index)
        assert other == index, (DISTINCT[other], value)


def test_no_encoding_is_the_beginning_of_another() -> None:
    encodings = sorted(map(canonical, DISTINCT))
    assert not any(after.startswith(before) for before, after in pairwise(encodings))


SAME: list[tuple[Any, Any]] = [
    (10**30, int("1" + "0" * 30)),
    (math.nan, -math.nan),
    (math.nan, float_from(0x7FF0_0000_0000_0001)),
    (complex(math.nan, 1), complex(-math.nan, 1)),
    ([math.nan, 1.0], [-float("nan"), 1.0]),
    ((float_from(0xFFF0_0000_0000_0001),), (math.nan,)),
    ({1: 2, 3: 4}, {3: 4, 1: 2}),
    ({"a", "b", "c"}, {"c", "b", "a"}),
    ({math.nan: 1, float("nan"): 2}, {float("nan"): 2, math.nan: 1}),
    ({1: {"a": 1, "b": [{}]}}, {1: {"b": [{}], "a": 1}}),
    (Decimal("NaN"), Decimal("-NaN123")),
    (Decimal("NaN"), Decimal("sNaN")),
    (Fraction(2, 4), Fraction(1, 2)),
    (PurePosixPath("a//b/"), PurePosixPath("a/b")),
    (Color.RED, Color.CRIMSON),
    (Access.READ | Access.WRITE, Access(3)),
    (Point(1, 2), Point(y=2, x=1)),
    (Client("a"), Client("a")),
    (
        dt.datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Paris")),
        dt.datetime(2024, 7, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    ),
    (dt.timezone(dt.timedelta(0)), UTC),
    (np.float64("nan"), -np.float64("nan")),
    (np.array([np.nan, 1.0]), np.array([-np.nan, 1.0])),
    (np.array([np.nan + 1j]), np.array([-np.nan + 1j])),
    (np.array([np.nan], "f2"), np.array([-np.nan], "f2")),
    (np.array([np.nan], ">f4"), np.array([-np.nan], ">f4")),
    (np.array([(np.nan,)], [("a", "f8")]), np.array([(-np.nan,)], [("a", "f8")])),
    (np.array([math.nan], object), np.array([float("nan")], object)),
    (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
    (np.array([1, 2], "l"), np.array([1, 2], "q")),
    (np.broadcast_to(np.array(1.5), (2, 2)), np.full((2, 2), 1.5)),
]


@pytest.mark.parametrize("encode", [key, argument_scope, canonical])
@pytest.mark.parametrize("pair", SAME, ids=range(len(SAME)))
def test_what_agrees_in_type_and_content_has_the_same_key(pair: tuple[Any, Any], encode: Any) -> None:
    assert encode(pair[0]) == encode(pair[1])


def test_the_bytes_between_fields_and_numbers_do_not_count() -> None:
    aligned = np.dtype([("a", "i1"), ("b", "i4")], align=True)
    zeros, ones = np.zeros(2, aligned), np.frombuffer(bytearray(b"\xff" * 2 * aligned.itemsize), aligned)
    ones["a"], ones["b"] = zeros["a"], zeros["b"]
    assert zeros.tobytes() != ones.tobytes()
    assert canonical(zeros) == canonical(ones)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="long doubles have no padding here")
@pytest.mark.may_skip(reason="only x86 has padded long doubles")
@pytest.mark.parametrize("dtype", ["g", "G"])
def test_the_padding_of_long_doubles_does_not_count(dtype: str) -> None:
    numbers = np.ones(3, dtype)
    soiled = numbers.copy()
    soiled.view(np.uint8).reshape(-1, np.dtype("g").itemsize)[:, 10:] = 0xAB
    assert (soiled == numbers).all()
    assert canonical(soiled) == canonical(numbers)
    assert canonical(soiled) != canonical(numbers * 2)


def test_an_array_that_is_encoded_is_not_changed() -> None:
    numbers = np.array([-np.nan, 1.0])
    before = numbers.tobytes()
    numbers.flags.writeable = False
    canonical(numbers)
    assert numbers.tobytes() == before


# --- what has no key ---


class Text(str):
    __slots__ = ()


class FloatScalar(np.float64):
    pass


@dataclass
class ListOfPoints(list[int]):
    name: str = ""


class Derived(Point):
    pass


@dataclass
class Unset:
    x: int = field(init=False)


class PairWithState(Pair):
    pass


class NoKey:
    __batche_key__ = None


class Zone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta | None:
        return None

    tzname = dst = utcoffset  # type: ignore[assignment]  # all three may know nothing


def pair_with_state() -> PairWithState:
    pair = PairWithState(1, 2)
    pair.extra = 3  # type: ignore[attr-defined]  # what a NamedTuple's subclass can do at run time
    return pair


def iterator() -> Iterator[int]:
    yield 1


UNKEYABLE: list[tuple[Any, str]] = [
    (object(), "object"),
    (bytearray(b"a"), "bytearray"),
    (memoryview(b"a"), "memoryview"),
    (range(3), "range"),
    (slice(3), "slice"),
    (int, "type"),
    (len, "builtin_function_or_method"),
    (iterator(), "generator"),
    (OrderedDict(a=1), "collections.OrderedDict"),
    (defaultdict(list), "collections.defaultdict"),
    (Text("a"), f"{__name__}.Text"),
    (NoKey(), f"{__name__}.NoKey"),
    (FloatScalar(1), f"{__name__}.FloatScalar"),
    (ListOfPoints("a"), f"{__name__}.ListOfPoints"),
    (Derived(1), f"{__name__}.Derived"),
    (Unset(), f"{__name__}.Unset"),
    (pair_with_state(), f"{__name__}.PairWithState"),
    (threading.Lock(), "_thread.lock"),
    (dt.datetime(2024, 1, 1, tzinfo=Zone()), f"{__name__}.Zone"),
    (np.ma.array([1]), "numpy.ma.MaskedArray"),
    (np.dtype("f4"), "numpy.dtypes.Float32DType"),
    (np.array([object()]), "object"),
]


@pytest.mark.parametrize(("value", "type_name"), UNKEYABLE, ids=[name for _, name in UNKEYABLE])
def test_what_has_no_key_is_named(value: Any, type_name: str) -> None:
    with pytest.raises(UnkeyableError) as item:
        KEYER.scope({}).keys(["a", value])
    with pytest.raises(UnkeyableError) as nested:
        KEYER.scope({}).keys(["a", 1, {"a": [value]}])
    with pytest.raises(UnkeyableError) as argument:
        KEYER.scope({"size": 1, "client": value})
    type_name = type_name.replace("numpy.ma.", f"{np.ma.MaskedArray.__module__}.")
    assert (item.value.where, item.value.type_name) == ("item 1", type_name)
    assert (nested.value.where, nested.value.type_name) == ("item 2", type_name)
    assert (argument.value.where, argument.value.type_name) == ("argument 'client'", type_name)


def test_a_zone_without_a_name_has_no_key() -> None:
    class File:
        """The smallest time zone file there is."""

        def __init__(self) -> None:
            head = b"TZif" + b"\0" * 16 + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
            self.left = head + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"

        def read(self, count: int) -> bytes:
            taken, self.left = self.left[:count], self.left[count:]
            return taken

    zone = ZoneInfo.from_file(File())  # type: ignore[arg-type]  # it asks for no more than read()
    with pytest.raises(UnkeyableError, match="made from a file"):
        key(zone)
    assert key(dt.datetime(2024, 1, 1, tzinfo=zone)) == key(dt.datetime(2024, 1, 1, tzinfo=UTC))


# --- nesting ---


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def at_depth(frames: int, function: Callable[[], bytes]) -> bytes:
    return at_depth(frames - 1, function) if frames else function()


def test_the_limit_of_nesting_is_the_value_s_own() -> None:
    deepest = nested(MAX_DEPTH)
    assert at_depth(800, lambda: canonical(deepest)) == canonical(deepest) != canonical(nested(MAX_DEPTH - 1))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1024, 100_000])
def test_deeper_nesting_has_no_key(depth: int) -> None:
    with pytest.raises(UnkeyableError, match="nested more than 1000 levels deep"):
        key(nested(depth))


def test_a_value_that_contains_itself_has_no_key() -> None:
    wide: list[Any] = list(range(10_000))
    wide.append({"again": wide})
    recursive = np.array([None], object)
    recursive[0] = recursive
    for value in (wide, recursive, [wide]):
        with pytest.raises(UnkeyableError, match="contains itself"):
            key(value)


def test_a_value_that_is_in_another_twice_is_no_loop() -> None:
    part = [["a"]]
    assert key([part, part, (part,)]) == key([[["a"]], [["a"]], ([["a"]],)])


class Endless:
    def __batche_key__(self) -> object:
        return Endless()


class Itself:
    def __batche_key__(self) -> object:
        return self


def test_a_key_without_an_end_is_refused() -> None:
    with pytest.raises(UnkeyableError, match="levels deep"):
        key(Endless())
    with pytest.raises(UnkeyableError, match="contains itself"):
        key(Itself())


# --- the user's own code ---


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __batche_key__(self) -> object:
        raise self.error


ERRORS = [KeyError("a"), AttributeError("a"), TypeError("a"), RecursionError("a"), KeyboardInterrupt()]
OWN_ERRORS = [*ERRORS, UnkeyableError("mine", "Mine"), struct.error("a")]


@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_what_user_code_raises_passes_through(error: BaseException) -> None:
    def broken(_: object) -> object:
        raise error

    with pytest.raises(type(error)) as method:
        key([Broken(error)])
    with pytest.raises(type(error)) as function:
        Keyer(b"namespac", b"", broken).scope({}).keys([1])
    assert method.value is error
    assert function.value is error


def test_a_key_method_goes_before_what_the_class_is() -> None:
    @dataclass
    class Keyed:
        x: int
        noise: object

        def __batche_key__(self) -> object:
            return self.x

    class KeyedText(str):
        __slots__ = ()

        def __batche_key__(self) -> object:
            return len(self)

    assert key(Keyed(1, object())) == key(Keyed(1, object())) != key(Keyed(2, object()))
    assert key(KeyedText("ab")) == key(KeyedText("cd")) != key(2)


def test_the_key_function_says_what_items_are_keyed_by() -> None:
    by_id = Keyer(b"namespac", b"version", key=lambda item: item["id"])
    keys = by_id.scope({}).keys([{"id": 1, "text": "a"}, {"id": 1, "text": "b"}, {"id": "1"}])
    assert keys == KEYER.scope({}).keys([1, 1, "1"])
    with pytest.raises(UnkeyableError, match="item 1 of type object"):
        by_id.scope({}).keys([{"id": 1}, {"id": object()}])


# --- classes count by name ---


def test_classes_count_their_name_and_their_fields_names() -> None:
    def made(*names: str) -> Any:
        return namedtuple("Made", names)

    assert key(made("x")(1)) == key(made("x")(1)) != key(made("y")(1))


class Holder(NamedTuple("Base", [("x", int)])):
    __slots__ = ()

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("keys never ask a subclass for its own idea of its elements")


T = TypeVar("T")


class Box(NamedTuple, Generic[T]):
    content: T


def test_named_tuples_of_all_makes_have_keys() -> None:
    assert key(Holder(1)) != key(Holder(2))
    assert key(Box(1)) != key(Box("1"))


# Under names that say nothing to type checkers, which want such calls written out.
make_named_tuple: Any = namedtuple


def length_of(unit: int) -> Any:
    @dataclasses.dataclass(frozen=True)
    class Length:
        value: float

        def metres(self) -> float:
            return self.value * unit

    return Length


def measured(unit: int) -> Any:
    class Measured(length_of(1)):  # type: ignore[misc]  # made here
        factor = unit

        def __batche_key__(self) -> float:
            return float(self.value)

    return Measured


def pair_of(default: int) -> Any:
    class Pair(NamedTuple):
        one: int
        other: int = default

        @property
        def total(self) -> int:
            return self.one + self.other * default

    return Pair


@pytest.mark.parametrize("make", [length_of, measured, pair_of])
def test_classes_made_by_one_function_are_one_only_where_they_define_the_same(make: Callable[[int], Any]) -> None:
    assert canonical(make(1000)(1)) == canonical(make(1000)(1))
    assert canonical(make(1000)(1)) != canonical(make(1609)(1))


def test_a_member_of_an_enum_counts_by_its_value_too() -> None:
    def rates(low: Any) -> Any:
        return make_enum("Rate", {"LOW": low, "HIGH": 10}, module=__name__)

    assert canonical(rates(1).LOW) == canonical(rates(1).LOW)
    assert canonical(rates(1).LOW) != canonical(rates(2).LOW)
    assert canonical(rates(1).HIGH) == canonical(rates(2).HIGH)
    assert canonical(rates(object()).LOW) == canonical(rates(object()).LOW)  # without a key: its name alone


def test_what_key_gives_is_what_has_to_change_where_it_has_no_key() -> None:
    with pytest.raises(UnkeyableError) as caught:
        Keyer(b"namespace", b"version", lambda item: object()).scope({}).keys([1, 2])
    assert str(caught.value).startswith("key= of item 0 of type object has no canonical key")
    assert "pass key=" not in str(caught.value)


make_enum: Any = enum.Enum


def test_classes_are_not_kept_alive() -> None:
    made: list[Any] = [
        dataclasses.make_dataclass("Short", ["x"])(1),
        make_named_tuple("Short", ["x"])(1),
        make_enum("Short", ["x"])["x"],
        type("Short", (), {"__batche_key__": lambda self: 1})(),
    ]
    assert len({key(value) for value in made}) == len(made)
    classes = [weakref.ref(type(value)) for value in made]
    made.clear()
    gc.collect()
    assert [reference() for reference in classes] == [None] * len(classes)


def test_decimals_do_not_depend_on_the_context() -> None:
    value = Decimal("1.234567E+50")
    before = canonical(value)
    with decimal.localcontext(prec=2, capitals=0, Emax=10):
        assert canonical(value) == before
        assert canonical(Decimal("sNaN")) == canonical(Decimal("NaN"))


# --- batches ---

BATCHES: list[list[Any]] = [
    ["a", "b", ""],
    ["a", "\ud800"],
    [b"a", b""],
    [1, 2, -(2**63)],
    [1, 2**63],
    [True, 1],
    ["a", b"a"],
    [1.0, 1],
    [Text],
    [("a", "b"), ("a", "b")],
    [None],
    [],
]


@pytest.mark.parametrize("items", BATCHES[:8] + BATCHES[9:], ids=repr)
def test_an_item_has_one_key_in_every_batch(items: list[Any]) -> None:
    assert KEYER.scope({}).keys(items) == [key(item) for item in items]
    assert KEYER.scope({}).keys(tuple(items)) == [key(item) for item in items]


def test_a_key_is_the_namespace_and_a_digest() -> None:
    assert len(key("a")) == KEY_BYTES
    assert key("a")[:8] == b"namespac"


def test_namespace_version_and_arguments_are_part_of_the_key() -> None:
    scopes = [
        KEYER.scope({}),
        Keyer(b"otherspa", b"version").scope({}),
        Keyer(b"namespac", b"other").scope({}),
        KEYER.scope({"a": 1}),
        KEYER.scope({"b": 1}),
        KEYER.scope({"a": 1, "b": 1}),
        KEYER.scope({"a": {"b": 1}}),
    ]
    digests = [scope.keys(["a"])[0][8:] for scope in scopes]
    assert len(set(digests)) == len(scopes)
    assert key("a", x=1, y=2) == key("a", y=2, x=1)


@pytest.mark.parametrize("times", [1, 2])
def test_remembered_scopes_keep_types_apart(times: int) -> None:
    keyer = Keyer(b"namespac", b"version")
    plain = [0, 0.0, -0.0, False, None, "0", "0x0.0p+0", 1, 1.0, True, math.nan, math.inf, 2**70, 2**70 + 1, ""]
    rounds = [[keyer.scope({"x": value, "y": 1}).keys(["a"])[0] for value in plain] for _ in range(times)]
    keys = rounds[-1]
    assert len(set(keys)) == len(plain)
    assert keys == [key("a", x=value, y=1) for value in plain]


def test_scopes_are_remembered_within_bounds() -> None:
    keyer = Keyer(b"namespac", b"version")
    assert keyer.scope({"x": "a"}) is keyer.scope({"x": "a"})
    assert keyer.scope({"x": math.nan}) is keyer.scope({"x": -math.nan})
    assert keyer.scope({"x": "a" * 1_000_000}) is not keyer.scope({"x": "a" * 1_000_000})
    first = keyer.scope({"x": 0})
    scopes = [keyer.scope({"x": number}) for number in range(10_000)]
    assert keyer.scope({"x": 9_999}) is scopes[-1]
    assert keyer.scope({"x": 0}) is not first


def test_a_changed_argument_is_another_scope() -> None:
    options = [1]
    before = key("a", options=options)
    options.append(2)
    assert key("a", options=options) != before


def test_threads_agree() -> None:
    keyer = Keyer(b"namespac", b"version")
    start = threading.Barrier(4)
    results: list[list[bytes]] = []

    def work() -> None:
        start.wait()
        results.append([keyer.scope({"x": n % 600}).keys(["a", Point(n)])[1] for n in range(3_000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[key(Point(n), x=n % 600) for n in range(3_000)]] * 4


def test_paths_of_this_machine_are_not_pure_paths() -> None:
    from pathlib import Path

    assert key(Path("a")) != key(PurePath("a"))


def test_the_internal_error_says_what_the_public_one_says() -> None:
    with pytest.raises(Unkeyable) as caught:
        canonical([Text("a")])
    assert caught.value.type_name == f"{__name__}.Text"
    assert caught.value.problem == "a subclass of str"
