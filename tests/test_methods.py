"""Cached methods: what `self` counts as, what an instance has of them, and that none is kept alive."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from batche import SignatureError, UnkeyableError, cache_batch_variable
from batche._methods import AsyncCachedMethod, CachedMethod

computed: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_computed() -> None:
    computed.clear()


def note(texts: list[str]) -> None:
    computed.extend(texts)


class Plain:
    """Has no key."""

    name = "plain"

    @cache_batch_variable("texts")
    def embed(self, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{self.name}:{text}" for text in texts]

    @cache_batch_variable("texts", ignore=("self",))
    def ignoring(self, texts: list[str], model: str = "small") -> list[str]:
        """Embed the texts."""
        note(texts)
        return [f"{self.name}:{model}:{text}" for text in texts]

    @cache_batch_variable("texts", ignore=("self",))
    async def later(self, texts: list[str], model: str = "small") -> list[str]:
        note(texts)
        return [f"{self.name}:{model}:{text}" for text in texts]

    @cache_batch_variable("texts", ignore=("self",))
    def failing(self, texts: list[str]) -> list[str]:
        raise ValueError(texts)

    @cache_batch_variable("texts", ignore=("self",))
    async def failing_later(self, texts: list[str]) -> list[str]:
        raise ValueError(texts)

    large = functools.partialmethod(ignoring, model="large")

    @property
    def greeting(self) -> list[str]:
        return self.ignoring(["hello"])


class Keyed(Plain):
    def __init__(self, name: str) -> None:
        self.name = name

    def __batche_key__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Frozen:
    name: str

    @cache_batch_variable("texts")
    def embed(self, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{self.name}:{text}" for text in texts]


@dataclass
class Changeable:
    name: str

    @cache_batch_variable("texts")
    def embed(self, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{self.name}:{text}" for text in texts]


@dataclass(slots=True)
class Slotted:
    name: str

    @cache_batch_variable("texts")
    def embed(self, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{self.name}:{text}" for text in texts]


class BareSlots:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __batche_key__(self) -> str:
        return self.name

    @cache_batch_variable("texts")
    def embed(self, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{self.name}:{text}" for text in texts]


# ---- what self counts as ----


@pytest.mark.parametrize("make", [Keyed, Frozen, Changeable, Slotted, BareSlots])
def test_equal_instances_share_entries_and_others_do_not(make: Callable[[str], Any]) -> None:
    make("a").embed.cache_clear()
    assert make("a").embed(["x"]) == make("a").embed(["x"]) == ["a:x"]
    assert make("b").embed(["x"]) == ["b:x"]
    assert computed == ["x", "x"]
    assert make("a").embed.cache_info()[:2] == (1, 2)


def test_a_dataclass_that_changed_is_another() -> None:
    Changeable.embed.cache_clear()
    instance = Changeable("a")
    assert instance.embed(["x"]) == ["a:x"]
    instance.name = "b"
    assert instance.embed(["x"]) == ["b:x"]


def test_an_instance_without_a_key_is_refused_with_the_ways_out_in_order() -> None:
    with pytest.raises(UnkeyableError) as caught:
        Plain().embed(["x"])
    message = str(caught.value)
    ways = ["argument 'self' of type tests.test_methods.Plain", "__batche_key__", "dataclass", 'ignore=("self",)']
    places = [message.find(way) for way in ways]
    assert -1 not in places, message
    assert places == sorted(places)
    assert computed == []


def test_an_ignored_instance_shares_entries_with_all() -> None:
    Plain.ignoring.cache_clear()
    assert Plain().ignoring(["x"]) == Keyed("other").ignoring(["x"]) == ["plain:small:x"]


# ---- what an instance has ----


def test_every_attribute_binds_the_instance() -> None:
    one, other = Frozen("one"), Frozen("other")
    one.embed.cache_clear()
    assert one.embed.cache_warm(iter(["a", "b"])) == 2
    assert one.embed.cache_contains(["a", "b", "c"]) == [True, True, False]
    assert other.embed.cache_contains(["a"]) == [False]
    assert one.embed.cache_refresh(["a"]) == ["one:a"]
    other.embed.cache_put(["put"], ["a"])
    assert (one.embed(["a"]), other.embed(["a"])) == (["one:a"], ["put"])
    assert one.embed.cache_invalidate(["a", "b"]) == 2
    assert other.embed.cache_contains(texts=["a"]) == [True]
    assert one.embed.cache_info() == other.embed.cache_info() == Frozen.embed.cache_info()
    assert one.embed.cache_parameters()["batch_variable_name"] == "texts"
    assert one.embed.store is Frozen.embed.store
    one.embed.cache_clear()  # of all instances
    assert other.embed.cache_contains(["a"]) == [False]


def test_every_attribute_of_an_async_method_binds_the_instance() -> None:
    async def main() -> None:
        model = Plain()
        await model.later.cache_clear()
        assert await model.later.cache_warm(iter(["a", "b"]), model="large") == 2
        assert await model.later.cache_contains(["a", "b"], "large") == [True, True]
        assert await model.later.cache_contains(["a"]) == [False]
        assert await model.later.cache_refresh(["a"], model="large") == ["plain:large:a"]
        await model.later.cache_put(["put"], ["a"])
        assert await model.later(["a"]) == await Plain.later(model, ["a"]) == ["put"]
        assert await model.later.cache_invalidate(["a"]) == 1
        assert model.later.cache_info().currsize == 2
        assert model.later.cache_parameters()["ignore"] == ("self",)
        assert model.later.store is Plain.later.store

    asyncio.run(main())


BOUND: list[tuple[Any, type[Any]]] = [(Plain().ignoring, CachedMethod), (Plain().later, AsyncCachedMethod)]


@pytest.mark.parametrize(("bound", "kind"), BOUND)
def test_a_bound_method_looks_like_one(bound: Any, kind: type[Any]) -> None:
    assert isinstance(bound, kind)
    assert bound.__func__ is getattr(Plain, bound.__name__)
    assert (bound.__module__, bound.__qualname__) == (__name__, f"Plain.{bound.__name__}")
    assert str(inspect.signature(bound)) == "(texts: 'list[str]', model: 'str' = 'small') -> 'list[str]'"
    assert bound == getattr(bound.__self__, bound.__name__)
    assert bound != getattr(Plain(), bound.__name__)
    assert inspect.iscoroutinefunction(bound) is (kind is AsyncCachedMethod)
    assert inspect.getdoc(Plain.ignoring) == Plain().ignoring.__doc__ == "Embed the texts."


def test_a_bound_method_goes_where_its_instance_goes() -> None:
    for bound in (pickle.loads(pickle.dumps(Keyed("a").embed)), copy.deepcopy(Keyed("a").embed)):
        assert bound.__func__ is Plain.embed
        assert bound(["x"]) == ["a:x"]
    later = pickle.loads(pickle.dumps(Keyed("a").later))
    assert inspect.iscoroutinefunction(later)
    assert later.__self__.name == "a"


def test_partial_methods_and_properties_call_the_cached_method() -> None:
    Plain.ignoring.cache_clear()
    assert [Plain().large(["x"]), Plain().large(["x"])] == [["plain:large:x"]] * 2
    assert [Plain().greeting, Plain().greeting] == [["plain:small:hello"]] * 2
    assert computed == ["x", "hello"]


def test_a_property_has_no_batch_and_is_refused() -> None:
    with pytest.raises(SignatureError):
        cache_batch_variable("texts")(property(lambda self: []))  # type: ignore[call-overload]  # the mistake


# ---- inheritance ----


class Child(Keyed):
    @cache_batch_variable("texts")
    def embed(self, texts: list[str]) -> list[str]:
        return [found.upper() for found in super().embed(texts)]


def test_an_inherited_method_keys_the_class_of_a_dataclass_too() -> None:
    @dataclass(frozen=True)
    class Other(Frozen):
        pass

    Frozen.embed.cache_clear()
    Frozen("a").embed(["x"])
    assert Other("a").embed.cache_contains(["x"]) == [False]


def test_a_method_that_overrides_another_has_entries_of_its_own() -> None:
    Plain.embed.cache_clear()
    Child.embed.cache_clear()
    for _ in range(2):
        assert (Child("a").embed(["x"]), Keyed("a").embed(["x"])) == (["A:X"], ["a:x"])
    assert computed == ["x", "x"]  # of a Child, which is another instance to the method below, and of a Keyed
    assert (Child.embed.cache_info()[:2], Keyed.embed.cache_info()[:2]) == ((1, 1), (1, 2))
    Child.embed.cache_clear()
    assert Keyed("a").embed.cache_contains(["x"]) == [True]


# ---- class methods and static methods ----


class Inside:
    """The decorator outside of `classmethod` and `staticmethod`."""

    name = "inside"

    @classmethod
    def __batche_key__(cls) -> str:
        return cls.name

    @cache_batch_variable("texts", ignore=("cls",))
    @classmethod
    def of_class(cls, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{cls.name}:{text}" for text in texts]

    @cache_batch_variable("texts", ignore=("cls",))
    @classmethod
    async def of_class_later(cls, texts: list[str]) -> list[str]:
        return [f"{cls.name}:{text}" for text in texts]

    @cache_batch_variable("texts")
    @staticmethod
    def of_nothing(texts: list[str]) -> list[str]:
        note(texts)
        return texts


class Outside:
    """The decorator inside of `classmethod` and `staticmethod`."""

    name = "outside"

    @classmethod
    @cache_batch_variable("texts", ignore=("cls",))
    def of_class(cls, texts: list[str]) -> list[str]:
        note(texts)
        return [f"{cls.name}:{text}" for text in texts]

    @staticmethod
    @cache_batch_variable("texts")
    def of_nothing(texts: list[str]) -> list[str]:
        note(texts)
        return texts


@pytest.mark.parametrize("owner", [Inside, Outside, Inside(), Outside()], ids=["in", "out", "of in", "of out"])
def test_class_methods_and_static_methods_are_called_as_ever(owner: Any) -> None:
    name = owner.name
    owner.of_class.cache_clear()
    owner.of_nothing.cache_clear()
    assert [owner.of_class(["x"]), owner.of_class(texts=["x"])] == [[f"{name}:x"]] * 2
    assert [owner.of_nothing(["y"]), owner.of_nothing(["y"])] == [["y"]] * 2
    assert computed == ["x", "y"]
    assert owner.of_nothing.cache_contains(["y", "z"]) == [True, False]


class Sized:
    """Keyed by a class method, as a class and in every instance."""

    size = 1

    @classmethod
    def __batche_key__(cls) -> int:
        return cls.size

    @cache_batch_variable("texts")
    @classmethod
    def repeated(cls, texts: list[str]) -> list[str]:
        note(texts)
        return [cls.size * text for text in texts]


class Larger(Sized):
    size = 2


def test_a_class_is_keyed_by_its_class_method() -> None:
    assert [Sized.repeated(["x"]), Larger.repeated(["x"]), Larger().repeated(["x"])] == [["x"], ["xx"], ["xx"]]
    assert computed == ["x", "x"]


def test_a_class_without_one_is_told_what_works() -> None:
    class Unkeyed:
        def __batche_key__(self) -> str:
            return "an instance has one"

        @cache_batch_variable("texts")
        @classmethod
        def upper(cls, texts: list[str]) -> list[str]:
            return [text.upper() for text in texts]

    with pytest.raises(UnkeyableError, match=r"argument 'cls' of type type.*give it a class method __batche_key__\(\)"):
        Unkeyed.upper(["x"])


@pytest.mark.parametrize("owner", [Inside, Inside()], ids=["class", "instance"])
def test_attributes_of_a_class_method_bind_the_class(owner: Any) -> None:
    owner.of_class.cache_clear()
    assert owner.of_class.__self__ is Inside
    assert owner.of_class.cache_warm(["x"]) == 1
    assert owner.of_class.cache_contains(["x"]) == [True]
    assert owner.of_class.cache_refresh(["x"]) == ["inside:x"]
    assert owner.of_class.cache_invalidate(["x"]) == 1
    owner.of_class.cache_put(["put"], ["x"])
    assert owner.of_class(["x"]) == ["put"]
    assert owner.of_class.cache_info().currsize == 1

    async def main() -> None:
        await owner.of_class_later.cache_clear()
        assert await owner.of_class_later(["x"]) == ["inside:x"]
        assert await owner.of_class_later.cache_contains(["x"]) == [True]

    asyncio.run(main())


def test_attributes_of_a_function_in_a_class_method_bind_the_class_before_python_3_13() -> None:
    Outside.of_class(["x"])
    bound: Any = Outside.of_class
    if sys.version_info < (3, 13):
        assert bound.cache_contains(["x"]) == [True]
    else:  # `classmethod` binds nothing but the call
        assert bound.cache_contains(Outside, ["x"]) == [True]


def test_a_class_method_of_a_subclass_has_the_subclass() -> None:
    class Below(Inside):
        name = "below"

    Inside.of_class.cache_clear()
    assert Below.of_class.__self__ is Below
    assert Below.of_class(["x"]) == ["below:x"]
    assert Below().of_class(["y"]) == ["below:y"]


# ---- nothing is kept ----


def _raises(call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, UnkeyableError)):
        call()


USES: dict[str, Callable[[Any], Any]] = {
    "call": lambda model: model.ignoring(["kept"]),
    "hit": lambda model: (model.ignoring(["hit"]), model.ignoring(["hit"])),
    "keyed": lambda model: model.embed(["kept"]),
    "async call": lambda model: asyncio.run(model.later(["kept"])),
    "error": lambda model: _raises(lambda: model.failing(["kept"])),
    "async error": lambda model: _raises(lambda: asyncio.run(model.failing_later(["kept"]))),
    "attributes": lambda model: (
        model.ignoring.cache_contains(["kept"]),
        model.ignoring.cache_invalidate(["kept"]),
        model.ignoring.cache_refresh(["kept"]),
        model.ignoring.cache_put(["put"], ["kept"]),
        model.ignoring.cache_warm(["kept"]),
        model.ignoring.cache_info(),
    ),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_no_reference_to_an_instance_is_kept(use: Callable[[Any], Any]) -> None:
    model = Keyed("kept")
    gone = weakref.ref(model)
    use(model)
    del model
    gc.collect()  # the traceback of an error is a cycle
    assert gone() is None


def test_an_instance_that_cannot_be_keyed_is_not_kept() -> None:
    model = Plain()
    gone = weakref.ref(model)
    _raises(functools.partial(model.embed, ["x"]))
    del model
    gc.collect()
    assert gone() is None


def test_an_instance_goes_at_once_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        model = Keyed("kept")
        gone = weakref.ref(model)
        model.ignoring(["now"])
        model.ignoring(["now"])
        del model
        assert gone() is None
    finally:
        gc.enable()
