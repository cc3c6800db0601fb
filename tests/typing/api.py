"""What type checkers see of the public face. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

from batche import CacheInfo, cache_batch_variable


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
