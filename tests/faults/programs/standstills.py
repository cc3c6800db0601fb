"""What callers see of a store whose writer stands still, with the time that each took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from batche import cache_batch_variable
from batche.errors import StoreError
from tests.faults._recount_open import Recount, recount
from tests.processes._tools import Scene
from tests.processes.programs import scenes
from tests.processes.programs.scenes import Behaviour, function


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What came of it, an error of the store included, and how many seconds it took."""
    begun = time.monotonic()
    try:
        result = work(*arguments)
    except StoreError as error:
        result = error
    return result, time.monotonic() - begun


def call(scene: Scene, behaviour: Behaviour, items: list[int]) -> tuple[Any, float]:
    return timed(scenes.call, scene, behaviour, items)


def call_in_threads(scene: Scene, behaviour: Behaviour, items: list[int], threads: int) -> tuple[Any, float]:
    return timed(scenes.call_in_threads, scene, behaviour, items, threads)


def invalidate(scene: Scene, behaviour: Behaviour, items: list[int]) -> tuple[Any, float]:
    return timed(scenes.invalidate, scene, behaviour, items)


def count(scene: Scene, behaviour: Behaviour) -> Recount:
    return recount(function(scene, behaviour).store)


def read_on(scene: Scene, behaviour: Behaviour) -> None:
    """Be inside a read until the test says ``leave``."""

    def body(_: object) -> None:
        scene.flag("reading").set()
        scene.flag("leave").wait()

    function(scene, behaviour).store._opened.lmdb.read(body)


def evict(scene: Scene, behaviour: Behaviour, first: int, calls: int) -> list[int]:
    """Ask for new items from ``first`` on, 50 a call; returns those that were answered wrong."""
    wrong = []
    for start in range(first, first + 50 * calls, 50):
        items = list(range(start, start + 50))
        answers = scenes.call(scene, behaviour, items)
        wrong += [item for item, answer in zip(items, answers, strict=True) if answer != 10 * item]
    return wrong


def store(scene: Scene, behaviour: Behaviour, items: list[int]) -> list[bool]:
    """Ask for ``items``; whether they are stored then."""
    scenes.call(scene, behaviour, items)
    return scenes.contains(scene, behaviour, items)


def file_bytes(scene: Scene, behaviour: Behaviour) -> int:
    """The size of the file that the entries are in."""
    size: int = (function(scene, behaviour).store._opened.path / "data.mdb").stat().st_size
    return size


def call_in_tasks(scene: Scene, items: list[int], tasks: int) -> tuple[Any, float]:
    """The answers to several tasks of one event loop, each of which asks for all the items."""

    async def compute(items: list[int]) -> list[int]:
        return [10 * item for item in items]

    options = {"store": str(scene.place), "version": "1", "name": scenes.plain.__name__, **dict(scene.options)}
    cached: Any = cache_batch_variable("items", **options)(compute)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(cached(items) for _ in range(tasks)))

    return timed(asyncio.run, all_of_them())
