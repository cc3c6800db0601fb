"""What type checkers see of the public face. Checked by mypy and pyright, never run.

A line that must be rejected says why, and which error each checker gives: one that is no longer given is an error too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Optional, TypeVar, assert_type

import numpy as np
import numpy.typing as npt

from batche import Cache, CacheInfo, Store, cache_batch_variable
from batche.testing import Recording, disabled, recording

T = TypeVar("T")


# ---- functions ----


@cache_batch_variable("texts", maxsize=100, version="1")
def embed(texts: list[str], model: str = "small") -> list[list[float]]:
    return [[float(len(text)), float(len(model))] for text in texts]


@cache_batch_variable(batch_variable_name="ids", max_bytes="1MiB", store="off", ignore=("retries",), codec="msgpack")
def lookup(ids: list[int], *, retries: int = 3) -> list[str]:
    return [str(identity + retries) for identity in ids]


assert_type(embed(["a"]), list[list[float]])
assert_type(embed(["a"], model="large"), list[list[float]])
assert_type(embed(texts=["a"]), list[list[float]])
assert_type(lookup([1], retries=2), list[str])
assert_type(embed.cache_info(), CacheInfo)
assert_type(embed.cache_parameters(), dict[str, Any])
assert_type(embed.cache_contains(["a"], model="large"), list[bool])
assert_type(embed.cache_invalidate(["a"]), int)
assert_type(embed.cache_refresh(["a"], "large"), list[list[float]])
assert_type(embed.cache_warm(["a"]), int)
assert_type(embed.store, Store)
embed.cache_put([[1.0, 2.0]], ["a"], model="large")
embed.cache_clear()

taken: Callable[[list[str], str], list[list[float]]] = embed  # as the function can be

embed([1])  # type: ignore[list-item]  # the items are texts  # pyright: ignore[reportArgumentType]
embed(["a"], size=3)  # type: ignore[call-arg]  # no such parameter  # pyright: ignore[reportCallIssue]
embed()  # type: ignore[call-arg]  # no batch  # pyright: ignore[reportCallIssue]
embed("a")  # type: ignore[arg-type]  # one text is no list  # pyright: ignore[reportArgumentType]
lookup.cache_contains(["a"])  # type: ignore[list-item]  # the items are ints  # pyright: ignore[reportArgumentType]
lookup([1], 3)  # type: ignore[call-arg]  # by keyword only  # pyright: ignore[reportCallIssue]
embed.cache_refresh(["a"], size=3)  # type: ignore[call-arg]  # no such parameter  # pyright: ignore[reportCallIssue]
embed.cache_put(["a"])  # type: ignore[call-arg]  # results, but no batch  # pyright: ignore[reportCallIssue]
embed.cache_size()  # type: ignore[attr-defined]  # no such attribute  # pyright: ignore[reportAttributeAccessIssue]
cache_batch_variable("texts", 1, 2)  # type: ignore[call-arg]  # by keyword only  # pyright: ignore[reportCallIssue]
cache_batch_variable("texts", size=1)  # type: ignore[call-arg]  # no such option  # pyright: ignore[reportCallIssue]
cache_batch_variable(["texts"])  # type: ignore[arg-type]  # a name or a tuple  # pyright: ignore[reportArgumentType]
cache_batch_variable("texts", on_failed="ignore")  # type: ignore[arg-type]  # see below  # pyright: ignore[reportArgumentType]


@cache_batch_variable  # type: ignore[arg-type]  # without parentheses  # pyright: ignore[reportArgumentType]
def bare(texts: list[str]) -> list[str]:
    return texts


# ---- whatever a batch function may be ----


@cache_batch_variable("texts")
def rows(texts: list[str]) -> npt.NDArray[np.float32]:
    return np.zeros((len(texts), 2), np.float32)


@cache_batch_variable("texts")
def perhaps(texts: Optional[list[str]] = None) -> Optional[list[str]]:  # noqa: UP045 - the form of older code
    return texts


@cache_batch_variable("items")
def same(items: list[T]) -> list[T]:
    return items


@cache_batch_variable("items")
def of_sequence(items: Sequence[int]) -> Sequence[int]:
    return items


@cache_batch_variable(("texts", "labels"))
def joined(texts: list[str], labels: list[int]) -> list[str]:
    return [f"{text}{label}" for text, label in zip(texts, labels, strict=True)]


@cache_batch_variable("texts")
def untyped(texts, model=None):  # type: ignore[no-untyped-def]  # as much code has it  # pyright: ignore
    return texts


@cache_batch_variable("texts")
def of_any(texts: Any) -> Any:
    return texts


assert_type(rows(["a"]), npt.NDArray[np.float32])
assert_type(perhaps(), Optional[list[str]])  # noqa: UP045 - the form of older code
assert_type(same([1]), list[int])
assert_type(same(["a"]), list[str])
assert_type(of_sequence((1, 2)), Sequence[int])
assert_type(joined(["a"], [1]), list[str])
of_any(texts=["a"])  # a list or a coroutine, for all that is known  # pyright: ignore[reportUnusedCoroutine]
untyped(["a"], model=1)  # the same  # pyright: ignore[reportUnusedCoroutine]
joined(["a"], ["b"])  # type: ignore[list-item]  # the labels are ints  # pyright: ignore[reportArgumentType]


# ---- async functions ----


@cache_batch_variable("texts", wait_timeout=5)
async def fetch(texts: list[str], model: str = "small") -> list[float]:
    return [float(len(text) + len(model)) for text in texts]


@cache_batch_variable("items")
async def same_later(items: list[T]) -> list[T]:
    return items


async def use_async() -> None:
    assert_type(await fetch(["a"], model="large"), list[float])
    assert_type(await asyncio.create_task(fetch(["a"])), list[float])
    assert_type(await asyncio.gather(fetch(["a"]), fetch(["b"])), tuple[list[float], list[float]])
    assert_type(await same_later([1]), list[int])
    assert_type(fetch.cache_info(), CacheInfo)
    assert_type(fetch.cache_parameters(), dict[str, Any])
    assert_type(fetch.store, Store)
    assert_type(await fetch.cache_contains(["a"], model="large"), list[bool])
    assert_type(await fetch.cache_invalidate(["a"]), int)
    assert_type(await fetch.cache_refresh(["a"]), list[float])
    assert_type(await fetch.cache_warm(["a"]), int)
    await fetch.cache_put([1.0], ["a"])
    await fetch.cache_clear()
    await fetch([1])  # type: ignore[list-item]  # the items are texts  # pyright: ignore[reportArgumentType]
    await fetch.cache_contains(["a"], size=1)  # type: ignore[call-arg]  # no such parameter  # pyright: ignore[reportCallIssue]
    await fetch.cache_info()  # type: ignore[misc]  # plain  # pyright: ignore[reportGeneralTypeIssues]
    fetch(["a"])[0]  # type: ignore[index]  # not awaited  # pyright: ignore[reportIndexIssue]


taken_async: Callable[[list[str]], Coroutine[Any, Any, list[float]]] = fetch  # as the function can be


# ---- methods ----


class Model:
    @cache_batch_variable("texts", ignore=("self",))
    def embed(self, texts: list[str], model: str = "small") -> list[float]:
        return [float(len(text) + len(model)) for text in texts]

    @cache_batch_variable("texts", ignore=("self",))
    async def fetch(self, texts: list[str], model: str = "small") -> list[float]:
        return [float(len(text) + len(model)) for text in texts]

    @cache_batch_variable("texts")
    @classmethod
    def of_class(cls, texts: list[str], model: str = "small") -> list[float]:
        return [float(len(text) + len(model)) for text in texts]

    @cache_batch_variable("texts")
    @classmethod
    async def of_class_later(cls, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    @cache_batch_variable("texts")
    @staticmethod
    def of_nothing(texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    @cache_batch_variable("texts")
    @staticmethod
    async def of_nothing_later(texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    @classmethod
    @cache_batch_variable("texts")
    def class_outside(cls, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    @staticmethod
    @cache_batch_variable("texts")
    def static_outside(texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


model = Model()
assert_type(model.embed(["a"], model="large"), list[float])
assert_type(Model.embed(model, ["a"]), list[float])
assert_type(model.embed.cache_info(), CacheInfo)
assert_type(model.embed.cache_parameters(), dict[str, Any])
assert_type(model.embed.cache_contains(["a"], model="large"), list[bool])
assert_type(model.embed.cache_invalidate(["a"]), int)
assert_type(model.embed.cache_refresh(["a"]), list[float])
assert_type(model.embed.cache_warm(["a"]), int)
assert_type(Model.embed.cache_contains(model, ["a"]), list[bool])
model.embed.cache_put([1.0], ["a"])
model.embed.cache_clear()

model.embed([1])  # type: ignore[list-item]  # the items are texts  # pyright: ignore[reportArgumentType]
model.embed(["a"], size=3)  # type: ignore[call-arg]  # no such parameter  # pyright: ignore[reportCallIssue]
model.embed.cache_contains([1])  # type: ignore[list-item]  # the same  # pyright: ignore[reportArgumentType]
model.embed.cache_contains(model, ["a"])  # type: ignore[arg-type]  # is bound  # pyright: ignore[reportArgumentType]
Model.embed(["a"])  # type: ignore[call-arg, arg-type]  # is not bound  # pyright: ignore[reportCallIssue]

assert_type(Model.of_class(["a"], model="large"), list[float])
assert_type(Model.of_class.cache_contains(["a"]), list[bool])
assert_type(model.of_class(["a"]), list[float])
assert_type(model.of_class.cache_contains(["a"]), list[bool])
assert_type(Model.class_outside(["a"]), list[float])
assert_type(model.class_outside(["a"]), list[float])
assert_type(Model.of_nothing(["a"]), list[float])
assert_type(Model.of_nothing.cache_contains(["a"]), list[bool])
assert_type(Model.static_outside(["a"]), list[float])
assert_type(Model.static_outside.cache_contains(["a"]), list[bool])

# Of an instance mypy takes a static method for a method: a limit of what it tells a decorator.
assert_type(model.of_nothing(["a"]), list[float])  # type: ignore[call-arg]  # see above
assert_type(model.static_outside(["a"]), list[float])  # type: ignore[call-arg]  # see above

Model.of_class([1])  # type: ignore[list-item]  # the items are texts  # pyright: ignore[reportArgumentType]
Model.of_nothing([1])  # type: ignore[list-item]  # the same  # pyright: ignore[reportArgumentType]


async def use_async_methods() -> None:
    assert_type(await model.fetch(["a"], model="large"), list[float])
    assert_type(await Model.fetch(model, ["a"]), list[float])
    assert_type(model.fetch.cache_info(), CacheInfo)
    assert_type(await model.fetch.cache_contains(["a"]), list[bool])
    assert_type(await model.fetch.cache_refresh(["a"]), list[float])
    assert_type(await Model.of_class_later(["a"]), list[float])
    assert_type(await model.of_class_later.cache_contains(["a"]), list[bool])
    assert_type(await Model.of_nothing_later(["a"]), list[float])
    assert_type(await Model.of_nothing_later.cache_contains(["a"]), list[bool])
    await model.fetch([1])  # type: ignore[list-item]  # the same  # pyright: ignore[reportArgumentType]


# ---- caches, and helpers for tests ----


held: dict[str, object] = {}


@cache_batch_variable("ids", store=held)
def in_a_mapping(ids: list[int]) -> list[str]:
    return [str(identity) for identity in ids]


cache: Cache[str, int] = Cache("~/.cache/x", maxsize=10, max_bytes="1MiB", ttl=60, codec="msgpack")
assert_type(cache["a"], int)
assert_type(cache.get("a"), int | None)
assert_type(cache.get_many(["a"]), dict[str, int])
assert_type(cache.delete_many(["a"]), int)
assert_type(cache.pop("a"), int)
assert_type(cache.pop("a", None), int | None)
assert_type(cache.popitem(), tuple[str, int])
assert_type(list(cache.items()), list[tuple[str, int]])
assert_type(cache.info(), CacheInfo)
assert_type(cache.setdefault("a", 1), int)
maybe: Cache[str, int | None] = Cache()
assert_type(maybe.setdefault("a"), int | None)
cache.set_many({"a": 1})
cache.set_many([("a", 1)])

cache[1] = 1  # type: ignore[index]  # the keys are texts  # pyright: ignore[reportArgumentType]
cache.set_many({1: 1})  # type: ignore[arg-type]  # the same  # pyright: ignore[reportArgumentType]


@disabled()
def uncached(number: int) -> str:
    return in_a_mapping([number])[0]


@disabled()
async def uncached_too(number: int) -> str:
    return uncached(number)


assert_type(uncached(1), str)
with disabled(), recording(lookup) as computed:
    assert_type(computed, Recording)
