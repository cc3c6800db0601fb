"""What comes back from a codec is what went in, or it did not go in."""

from __future__ import annotations

import collections
import enum
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID, uuid1
from zoneinfo import ZoneInfo

import msgpack  # type: ignore[import-untyped,unused-ignore]  # has none
import numpy as np
import pytest

from batche.codecs import AutoCodec, Codec, MsgpackCodec, PickleCodec, codec
from batche.codecs.base import PICKLE
from batche.errors import CodecError
from tests._equality import same


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Box:
    content: Any


class Stubborn:
    """Pickles, and does not load."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Impostor:
    """Pickles, and loads as something else."""

    def __reduce__(self) -> Any:
        return dict, ()


CENTRAL = ZoneInfo("Europe/Berlin")

PLAIN: list[Any] = [
    None, True, False, 0, -1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400, -(10**400), 128, -128, 255, 256,
    0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, complex(-0.0, math.nan), 1j,
    "", "é", "\ud800", "a\0b", b"", b"\xc1P", bytearray(), bytearray(b"abc"),
    [], (), {}, set(), frozenset(), [[]], ((),), [()], {(): []}, [[], ()],
    (1, 2.0, "3"), [(1, [2, (3,)])], ({"a": (1,)},), {1, 2.0, "3", (4, 5)}, frozenset({frozenset({1})}),
    {"b": 1, "a": 2}, {1: "int", "1": "str", (1,): "tuple", b"1": "bytes", None: 0, 1.5: 0, frozenset({1}): 0},
    {Decimal(1): Fraction(1, 3)}, [1.0, 2.0], [1, 2.0], [1, True], [True, 1], [1.0, bytearray(b"x"), 1.0],
    [bytearray(b"x")], (bytearray(b"x"),), {"a": [bytearray(b"x"), b"x"]}, ["a", "b", "\udfff"], ["a", b"b"],
    [1.0, 10**400, 2.0], [10**400, 1], [10**30, 10**30], [1.0] * 300, list(range(300)),
    Decimal("1.00"), Decimal("-0"), Decimal("NaN123"), Decimal("sNaN"), Decimal("-Infinity"), Decimal("1E+9999"),
    Fraction(-1, 3), Fraction(10**5000, 7), range(3), range(10, 0, -3), range(2**70),
    date.min, date.max, time(1, 2, 3, 4), time(1, fold=1), time(tzinfo=UTC), time(1, tzinfo=CENTRAL),
    datetime.min, datetime.max, datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=CENTRAL),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, microseconds=5))), datetime(2026, 1, 1, fold=1),
    timedelta.min, timedelta.max, timedelta(-1, 3, 5), UTC, timezone(timedelta(hours=1), "here"), CENTRAL,
    UUID(int=0), UUID(int=2**128 - 1), Path("a/b"), Path("/"), Path("\udcff"), PurePosixPath("a"),
    PureWindowsPath("c:\\x"), Colour.RED, Level.LOW, Permission.READ, [Colour.RED, Colour.RED], {Colour.GREEN: 1},
]  # fmt: skip

OTHER = [
    collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.Counter("aab"),
    collections.deque([1, 2]), Text("x"), [Text("x")], {Text("x"): 1}, Point(1, 2.0), [Point(1, 2.0)], Box([1, (2,)]),
    Permission.READ | Permission.WRITE, ..., NotImplemented, int, len, slice(1, 2), {1: [{2: (Level, Text("x"))}]},
    msgpack.ExtType(1, b""), [1.0, msgpack.ExtType(1, b""), 1.0], msgpack.Timestamp(1),
]  # fmt: skip


def _name(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", PLAIN, ids=_name)
@pytest.mark.parametrize("made", [AutoCodec(), MsgpackCodec(), PickleCodec()], ids=lambda made: made.name)
def test_plain_data_comes_back_the_same(made: Codec, value: Any) -> None:
    assert same(made.decode(made.encode(value)), value)
    assert same(made.decode(made.encode([value, {"nested": (value,)}]))[1]["nested"][0], value)


@pytest.mark.parametrize("value", PLAIN, ids=_name)
def test_auto_writes_plain_data_without_pickle(value: Any) -> None:
    assert AutoCodec().encode(value)[:2] != PICKLE


@pytest.mark.parametrize("value", OTHER, ids=_name)
def test_what_is_not_plain_comes_back_the_same_by_pickle_and_never_as_its_base(value: Any) -> None:
    for made in (AutoCodec(), PickleCodec()):
        assert same(made.decode(made.encode(value)), value)
    with pytest.raises(CodecError):
        MsgpackCodec().encode(value)


def test_a_uuid_keeps_whether_it_is_safe() -> None:
    assert MsgpackCodec().decode(MsgpackCodec().encode(uuid1())).is_safe is uuid1().is_safe


def test_a_zone_is_the_same_object_and_one_that_would_not_be_is_pickled() -> None:
    auto = AutoCodec()
    assert auto.decode(auto.encode(CENTRAL)) is CENTRAL
    apart = ZoneInfo.no_cache("Europe/Berlin")
    assert auto.encode(apart)[:2] == PICKLE
    assert auto.decode(auto.encode(apart)).key == "Europe/Berlin"
    with pytest.raises(CodecError):
        MsgpackCodec().encode(datetime(2026, 1, 1, tzinfo=apart))


ARRAYS = [
    np.arange(6, dtype="f4"), np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(5), np.zeros((0, 3)), np.zeros((3, 0), order="F"), np.array([1, -1], ">i2"), np.array([1], "q"),
    np.array([1], "Q"), np.array([True, False]), np.array([1 + 2j], "c8"), np.array([1.5], "f2"),
    np.array([1.5], "g"), np.array(["2026-01-01", "NaT"], "M8[25s]"), np.array([1], "m8[s]"), np.array(["a", "bc\0d"]),
    np.array([b"a\0b"]), np.zeros(2, "V3"), np.array([(1, 2.0)], [("x", "i4"), ("y", ">f8", (2, 2))]),
    np.zeros(2, np.dtype("i1,f8", align=True)), np.zeros(2, [(("title", "x"), "i4")]),
    np.zeros(2, {"names": ["a"], "formats": ["i2"], "offsets": [3], "itemsize": 9}),
    np.zeros(1, [("deep", [("er", "f4")])]), np.array([math.nan, -0.0]),
]  # fmt: skip
SCALARS = [
    np.float32(1.5), np.float64(-0.0), np.int8(-1), np.longlong(1), np.uint64(2**64 - 1), np.bool_(True),
    np.complex64(1j), np.float16(1), np.longdouble("1.1"), np.datetime64("2026", "Y"), np.timedelta64(3, "h"),
    np.datetime64("NaT", "s"), np.str_("a\0"), np.str_(""), np.bytes_(b"a\0"), np.void(b"ab"), np.str_("\ud800"),
    np.array([(1, b"x")], [("x", ">i4"), ("y", "S3")])[0],
]  # fmt: skip
NOT_PLAIN_ARRAYS = [
    np.array([1, None, "x"], object), np.ma.array([1, 2], mask=[False, True]),
    np.zeros(2, [("x", "i4")]).view(np.recarray), np.zeros(2, [("x", "i4")]).view(np.recarray)[0],
    np.zeros(2, [("x", "O")]), np.arange(4).view(np.memmap),
    np.array(["a", "b" * 30], np.dtypes.StringDType()), np.zeros((2, 0), np.dtype("V0")),
]  # fmt: skip


@pytest.mark.parametrize("value", [*ARRAYS, *SCALARS], ids=_name)
@pytest.mark.parametrize("made", [AutoCodec(), MsgpackCodec(), PickleCodec()], ids=lambda made: made.name)
def test_arrays_and_scalars_of_numpy_come_back_the_same(made: Codec, value: Any) -> None:
    assert same(made.decode(made.encode(value)), value)
    assert same(made.decode(made.encode({"nested": (value,)}))["nested"][0], value)
    assert made.encode(value) == made.encode(value)  # the second time by what is remembered of the first


@pytest.mark.parametrize("value", NOT_PLAIN_ARRAYS, ids=_name)
def test_arrays_of_objects_and_subclasses_are_pickled(value: Any) -> None:
    back = AutoCodec().decode(AutoCodec().encode(value))
    assert type(back) is type(value)
    assert back.dtype == value.dtype
    assert repr(back) == repr(value)
    with pytest.raises(CodecError):
        MsgpackCodec().encode(value)


def test_a_dtype_with_metadata_keeps_it() -> None:
    plain, noted = np.zeros(2, "f4"), np.zeros(2, np.dtype("f4", metadata={"unit": "m"}))
    assert AutoCodec().encode(plain)[:2] != PICKLE
    with pytest.raises(CodecError, match="metadata"):
        MsgpackCodec().encode(noted)


@pytest.mark.parametrize("made", [AutoCodec(), MsgpackCodec(), PickleCodec()], ids=lambda made: made.name)
@pytest.mark.parametrize("wrap", [lambda array: array, lambda array: [array]], ids=["alone", "nested"])
def test_decoded_arrays_are_writable_and_each_decoding_has_its_own(made: Codec, wrap: Callable[[Any], Any]) -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    data = made.encode(wrap(array))
    first, second = np.ravel(made.decode(data)), np.ravel(made.decode(data))
    first[0] = 7
    assert second[0] == 0
    assert np.ravel(made.decode(data))[0] == 0


@pytest.mark.parametrize("made", [AutoCodec(), MsgpackCodec(), PickleCodec()], ids=lambda made: made.name)
@pytest.mark.parametrize("wrap", [lambda row: row, lambda row: {"row": row}, lambda row: (row,)])
def test_a_row_is_stored_without_the_rest_of_its_array(made: Codec, wrap: Callable[[Any], Any]) -> None:
    batch = np.random.default_rng(0).random((1000, 16), "f4")
    data = made.encode(wrap(batch[3]))
    assert len(data) < 64 + 200


@pytest.mark.parametrize("wrap", [lambda array: array, lambda array: [array]], ids=["alone", "nested"])
def test_an_array_of_more_or_fewer_bytes_than_its_shape_is_refused(wrap: Callable[[Any], Any]) -> None:
    whole = MsgpackCodec().encode(wrap(np.zeros(300, "i1")))
    for hostile in (whole[:-1], whole + b"x", whole.replace(b"\xcd\x01\x2c", b"\xcd\x01\x2b")):
        with pytest.raises(CodecError):
            MsgpackCodec().decode(hostile)


def test_an_array_whose_header_is_cut_short_is_refused() -> None:
    data = codec("msgpack").encode(np.empty(0))
    size = int.from_bytes(data[2:4], "little")
    longer = data[:2] + (size + 1).to_bytes(2, "little") + data[4:]
    with pytest.raises(CodecError):
        codec("msgpack").decode(longer)


def test_who_renames_the_fields_of_an_array_renames_nobody_elses() -> None:
    made = codec("msgpack")
    data = made.encode(np.zeros(2, [("a", "<f4"), ("b", "<i8")]))
    made.decode(data).dtype.names = ("x", "y")
    assert made.decode(data).dtype.names == ("a", "b")


@pytest.mark.parametrize("view", [np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), np.arange(9)[::-2]])
def test_a_view_with_gaps_comes_back_equal(view: Any) -> None:
    assert np.array_equal(MsgpackCodec().decode(MsgpackCodec().encode(view)), view)


def test_a_list_that_is_in_a_value_twice_comes_back_so_from_auto_and_as_two_from_msgpack() -> None:
    row = [1, 2]
    first, second = AutoCodec().decode(AutoCodec().encode([row, row]))
    assert first is second
    first, second = MsgpackCodec().decode(MsgpackCodec().encode([row, row]))
    assert first == second == row
    assert first is not second


def test_tuples_of_scalars_that_are_in_a_value_twice_are_still_plain() -> None:
    pair = ("label", 0.5)
    assert AutoCodec().encode([pair, pair])[:2] != PICKLE


def test_a_list_that_contains_itself() -> None:
    loop: list[Any] = [1.5]
    loop.append(loop)
    back = AutoCodec().decode(AutoCodec().encode(loop))
    assert back[1] is back
    with pytest.raises(CodecError):
        MsgpackCodec().encode(loop)


def test_a_value_that_grows_without_end_when_written_out_is_refused_at_once() -> None:
    doubled: Any = [0]
    for _ in range(60):
        doubled = [doubled, doubled]
    with pytest.raises(CodecError, match="more than once"):
        MsgpackCodec().encode(doubled)
    assert AutoCodec().encode(doubled)[:2] == PICKLE


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"a": inner}])
@pytest.mark.parametrize("depth", [100, 400, 499, 500, 511, 512, 1023, 1024, 1025, 50_000])
def test_whatever_the_depth_it_comes_back_or_is_refused(wrap: Callable[[Any], Any], depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    for made in (MsgpackCodec(), AutoCodec()):
        try:
            data = made.encode(value)
        except CodecError:
            assert depth > 300
        else:
            back = made.decode(data)
            for _ in range(depth):
                (back,) = back.values() if isinstance(back, dict) else back
            assert back == 1


def _generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    "make",
    [threading.Lock, _generator, lambda: lambda: 0, object, Stubborn, lambda: sys.modules,
     lambda: memoryview(b"x"), {}.keys, threading.local],
)  # fmt: skip
@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: [inner], Box])
def test_what_cannot_come_back_is_refused_wherever_it_is(make: Callable[[], Any], wrap: Callable[[Any], Any]) -> None:
    for made in (MsgpackCodec(), AutoCodec(), PickleCodec()):
        with pytest.raises(CodecError) as caught:
            made.encode(wrap(make()))
        assert caught.value.codec == made.name


def test_what_pickles_as_something_else_is_refused() -> None:
    with pytest.raises(CodecError, match=r"Impostor comes back from pickle as builtins\.dict"):
        AutoCodec().encode(Impostor())


def test_an_open_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(CodecError):
        AutoCodec().encode({"file": file})


def test_an_interrupt_while_pickling_is_not_swallowed() -> None:
    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AutoCodec().encode(Interrupted())


def _touch(path: str) -> None:
    Path(path).touch()


class Touching:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return _touch, (str(self.path),)


def test_msgpack_never_unpickles(tmp_path: Path) -> None:
    pickled = pickle.dumps(Touching(tmp_path / "ran"))
    for data in (PICKLE + pickled, pickled, b"\xc1L" + pickled, b"\xc1A" + pickled, b"\xc1T" + pickled):
        with pytest.raises(CodecError):
            MsgpackCodec().decode(data)
    assert not (tmp_path / "ran").exists()
    AutoCodec().decode(PICKLE + pickled)
    assert (tmp_path / "ran").exists()


def test_pickle_reads_only_pickles() -> None:
    with pytest.raises(CodecError, match="not a pickle"):
        PickleCodec().decode(AutoCodec().encode([1.0]))


def test_an_enum_is_not_imported_for_bytes_that_name_it() -> None:
    data = MsgpackCodec().encode(Colour.RED)
    missing = data.replace(__name__.encode(), b"x" * len(__name__))
    with pytest.raises(CodecError):
        MsgpackCodec().decode(missing)
    assert "this" not in sys.modules
    with pytest.raises(CodecError):
        MsgpackCodec().decode(msgpack.packb(msgpack.ExtType(22, b"this\0c\0d")))
    assert "this" not in sys.modules


@pytest.mark.parametrize("path", [b"os\0path\0sep", b"os\0environ\0x", b"enum\0Enum\0x", b"os", b"decimal\0Decimal\0x"])
def test_what_is_not_an_enum_is_not_found_as_one(path: bytes) -> None:
    with pytest.raises(CodecError):
        MsgpackCodec().decode(msgpack.packb(msgpack.ExtType(22, path)))


def test_a_local_enum_is_refused() -> None:
    class Local(enum.Enum):
        ONE = 1

    with pytest.raises(CodecError):
        AutoCodec().encode(Local.ONE)


PROGRAM = """
import enum, multiprocessing
from dataclasses import dataclass
from batche.codecs import AutoCodec
class Colour(enum.Enum):
    RED = 1
@dataclass
class Box:
    colour: Colour
def encode(values):
    return [AutoCodec().encode(value) for value in values]
def decode(records):
    return [AutoCodec().decode(data) for data in records]
if __name__ == "__main__":
    values = [Colour.RED, [Colour.RED], Box(Colour.RED), Colour]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert decode(pool.apply(encode, (values,))) == values
        assert pool.apply(decode, (encode(values),)) == values
        pool.close()
        pool.join()
"""


def test_classes_of_the_main_program_pass_between_it_and_a_spawned_child(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


RUN_AS_MODULE = """
import dataclasses, sys
from batche.codecs import AutoCodec
@dataclasses.dataclass
class Box:
    size: int
if __name__ == "__main__":
    data = AutoCodec().encode([Box(1)])
    assert type(AutoCodec().decode(data)[0]) is Box
    open(sys.argv[1], "wb").write(data)
"""
OTHER_PROGRAM = """
import dataclasses, sys
from batche.codecs import AutoCodec
from batche.errors import CodecError
@dataclasses.dataclass
class Box:
    size: str
    own: bool = True
data = open(sys.argv[1], "rb").read()
try:
    (box,) = AutoCodec().decode(data)
except CodecError:
    print("refused")
else:
    print(type(box).__module__)
"""


@pytest.mark.parametrize(("how", "found"), [(["-m", "boxes"], "boxes"), (["boxes.py"], "refused"), (["-c"], "refused")])
def test_a_class_of_one_main_program_is_not_taken_for_one_of_anothers(
    how: list[str], found: str, tmp_path: Path
) -> None:
    (tmp_path / "boxes.py").write_text(RUN_AS_MODULE)
    (tmp_path / "other.py").write_text(OTHER_PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), *sys.path]))}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments, str(tmp_path / "data")]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    run(*how, *([RUN_AS_MODULE] if how == ["-c"] else []))
    assert run("other.py") == found


RENAMED = """
import sys
from batche.codecs import AutoCodec
class Box:
    pass
sys.modules["__mp_main__"] = sys.modules["__main__"]
Box.__module__ = "__mp_main__"
data = AutoCodec().encode([Box()])
del sys.modules["__mp_main__"]
assert type(AutoCodec().decode(data)[0]) is Box
"""


def test_a_class_is_found_by_a_program_that_never_imported_multiprocessing() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", RENAMED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_and_using_codecs_imports_neither_numpy_nor_torch() -> None:
    program = (
        "import sys; from batche.codecs import codec; made = codec('auto')\n"
        "made.decode(made.encode([(1, {2}), 3.5, {'a': b'c'}, object]))\n"
        "assert not {'numpy', 'torch'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_array_is_read_where_numpy_was_not_imported() -> None:
    data = MsgpackCodec().encode(np.arange(3))
    program = f"from batche.codecs import codec; assert codec('msgpack').decode({data!r}).tolist() == [0, 1, 2]"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spec", ["auto", "msgpack", "pickle"])
def test_a_codec_by_name(spec: str) -> None:
    assert codec(spec).name == spec
    assert isinstance(codec(spec), Codec)
    assert type(pickle.loads(pickle.dumps(codec(spec)))) is type(codec(spec))


class Upper:
    name = "upper"

    def encode(self, value: Any, /) -> bytes:
        return str(value).upper().encode()

    def decode(self, data: bytes, /) -> Any:
        return data.decode()


def test_a_codec_of_ones_own() -> None:
    own = Upper()
    assert codec(own) is own


@pytest.mark.parametrize("spec", ["json", "", None, 3, Upper, b"auto", pickle])
def test_what_is_no_codec_is_refused_with_the_choices(spec: Any) -> None:
    with pytest.raises(ValueError, match="'auto', 'msgpack', 'pickle'"):
        codec(spec)


def test_threads_get_the_right_bytes() -> None:
    made = AutoCodec()
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        value = [(number, str(number) * 20, [(i, {number}) for i in range(30)]) for _ in range(5)]
        data = made.encode(value)
        start.wait()
        return all(made.encode(value) == data and same(made.decode(data), value) for _ in range(60))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)


def test_encoding_within_encoding() -> None:
    """As when pickling calls a cached function."""

    class Nested:
        def __reduce__(self) -> Any:
            return bytes, (AutoCodec().encode((1, (2,))),)

    with pytest.raises(CodecError, match="comes back from pickle as"):
        AutoCodec().encode(Nested())
    assert AutoCodec().decode(AutoCodec().decode(AutoCodec().encode([Nested()]))[0]) == (1, (2,))


def test_a_failed_decoding_keeps_nothing_alive() -> None:
    data = MsgpackCodec().encode([Colour.RED, (1, [2])])[:-1]
    gc.collect()
    for _ in range(10):
        with pytest.raises(CodecError):
            MsgpackCodec().decode(data)
    assert gc.garbage == []
