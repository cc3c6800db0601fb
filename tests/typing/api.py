"""What type checkers see of the public face. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

from batche import Cache, CacheInfo, cache_batch_variable
from batche.testing import Recording, disabled, recording


@cache_batch_variable("texts", maxsize=100, version="1")
def embed(texts: list[str], model: str = "small") -> list[list[float]]:
    return [[float(len(text)), float(len(model))] for text in texts]


@cache_batch_variable(batch_variable_name="ids", max_bytes="1MiB", store="off", ignore=("retries",), codec="msgpack")
def lookup(ids: list[int], *, retries: int = 3) -> list[str]:
    return [str(identity + retries) for identity in ids]


assert_type(embed(["a"]), list[list[float]])
assert_type(embed(["a"], model="large"), list[list[float]])
assert_type(lookup([1], retries=2), list[str])
assert_type(embed.cache_info(), CacheInfo)
assert_type(embed.cache_contains(["a"], model="large"), list[bool])
assert_type(embed.cache_invalidate(["a"]), int)

embed([1])  # type: ignore[list-item]  # the items are texts  # pyright: ignore[reportArgumentType]
embed(["a"], size=3)  # type: ignore[call-arg]  # no such parameter  # pyright: ignore[reportCallIssue]
lookup.cache_contains(["a"])  # type: ignore[list-item]  # the items are ints  # pyright: ignore[reportArgumentType]


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
