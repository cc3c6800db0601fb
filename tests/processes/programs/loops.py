"""Async cached functions of a scene, and what actors do with them in event loops of their own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from typing import Any

from batche import cache_batch_variable
from tests.processes._tools import Scene
from tests.processes.programs import scenes

_functions: dict[tuple[int, Scene, str], Any] = {}


async def _until_set(scene: Scene, name: str) -> None:
    async with asyncio.timeout(60):
        while not scene.flag(name).is_set():
            await asyncio.sleep(0.001)


def function(scene: Scene, name: str) -> Any:
    """The async twin of `scenes.function`: of one name and version with the sync function of a behaviour."""
    key = (os.getpid(), scene, name)
    return _functions.get(key) or _functions.setdefault(key, _made(scene, name))


def _made(scene: Scene, name: str) -> Any:
    async def compute(items: list[Any]) -> list[Any]:
        scene.journal().note(*items)
        if name == "held":
            scene.flag(f"inside-{items[0]}").set()
            await _until_set(scene, f"go-{items[0]}")
        else:
            await asyncio.sleep(0)
        return [10 * item for item in items]

    return cache_batch_variable("items", store=str(scene.place), version="1", name=name)(compute)


def ask(scene: Scene, name: str, items: Sequence[Any]) -> list[Any]:
    answer: list[Any] = asyncio.run(function(scene, name)(list(items)))
    return answer


def ask_many(scene: Scene, batches: Sequence[Sequence[int]], loops: int) -> int:
    """Ask for all batches at once in tasks of several loops and in a thread; the number of wrong answers."""
    scene.journal("ready").note(os.getpid())
    scene.journal("ready").wait_for(2)
    wrong: list[Any] = []

    def check(batch: Sequence[int], answer: list[int]) -> None:
        if answer != [10 * item for item in batch]:
            wrong.append(batch)

    async def one(batch: Sequence[int]) -> None:
        check(batch, await function(scene, "plain")(list(batch)))

    async def every() -> None:
        await asyncio.gather(*map(one, batches))

    def in_thread() -> None:
        for batch in batches:
            check(batch, scenes.call(scene, scenes.plain, batch))

    threads = [threading.Thread(target=lambda: asyncio.run(every())) for _ in range(loops)]
    threads.append(threading.Thread(target=in_thread))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


def ask_and_cancel(scene: Scene, items: Sequence[int]) -> str:
    """Compute until the test says ``cancel``, and be cancelled then."""

    async def main() -> str:
        task = asyncio.create_task(function(scene, "held")(list(items)))
        await _until_set(scene, "cancel")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "answered"

    return asyncio.run(main())


def go_on_while_another_writes(scene: Scene) -> tuple[list[Any], int]:
    """Call, and do all that writes, while another process has its turn; how often the loop turned until that ended."""

    async def main() -> tuple[list[Any], int]:
        function_ = function(scene, "plain")
        await function_([0])  # the store is open, and this process has joined
        scene.flag("open").set()
        await _until_set(scene, "writing")
        tasks = [
            asyncio.create_task(call)
            for call in (
                function_([1, 2]),
                function_.cache_contains([0]),
                function_.cache_invalidate([5]),
                function_.cache_put([60], [6]),
                function_.cache_refresh([7]),
                function_.cache_warm([8]),
            )
        ]
        hit = await function_([0])  # waits for no writer
        turns = 0
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        function_.cache_info()
        waiting = sum(not task.done() for task in tasks)
        scene.flag("leave").set()
        return [hit, *await asyncio.gather(*tasks)], waiting

    return asyncio.run(main())


def clear_while_another_writes(scene: Scene) -> int:
    """How many of 100 turns the loop made before another process let this one clear."""

    async def main() -> int:
        await function(scene, "plain")([0])
        scene.flag("open").set()
        await _until_set(scene, "writing")
        task = asyncio.create_task(function(scene, "plain").cache_clear())
        turns = 0
        while turns < 100 and not task.done():
            await asyncio.sleep(0)
            turns += 1
        scene.flag("leave").set()
        await task
        return turns

    return asyncio.run(main())


def open_while_another_writes(scene: Scene) -> tuple[list[int], int]:
    """The first call of a process, while another has its turn to write."""

    async def main() -> tuple[list[int], int]:
        task = asyncio.create_task(function(scene, "plain")([1]))
        turns = 0
        while turns < 100 and not task.done():
            await asyncio.sleep(0)
            turns += 1
        scene.flag("leave").set()
        return await task, turns

    return asyncio.run(main())


def fork_after_a_loop(scene: Scene) -> int:
    """A child of a process that used a loop and the store, forked outside of the loop, uses both."""
    from tests.processes._tools import exit_status, fork

    ask(scene, "plain", [1])

    def child() -> int:
        return int(ask(scene, "plain", [1, 2]) != [10, 20])

    return exit_status(fork(child))


def fork_inside_a_loop(scene: Scene) -> int:
    """A child that is forked by a task, while another computes, ends without harm to what its parent claimed."""
    from tests.processes._tools import exit_status, fork

    async def main() -> int:
        owner = asyncio.create_task(function(scene, "held")([1]))
        await _until_set(scene, "inside-1")
        status = exit_status(fork(lambda: 0))
        waiter = asyncio.create_task(function(scene, "held")([1]))
        await asyncio.sleep(0)
        scene.flag("go-1").set()
        assert await owner == await waiter == [10]
        return status

    return asyncio.run(main())
