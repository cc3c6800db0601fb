"""Cached functions that call cached functions."""

from __future__ import annotations

import asyncio
import contextvars
import random
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes._tools import Scene
from tests.processes.programs import scenes


def overlapping(scene: Scene, items: list[Any]) -> None:
    """Called first, calls itself with the items it was called with, and with another one."""
    if scene.journal().lines() == [str(item) for item in items]:
        assert scenes.call(scene, overlapping, [*items, 100]) == [10 * item for item in [*items, 100]]


def fibonacci(scene: Scene, items: list[Any]) -> list[Any]:
    """A recursion into smaller items, whose answers are used."""
    below = [n for n in items if n > 1]
    parts = scenes.call(scene, fibonacci, [n - 1 for n in below] + [n - 2 for n in below])
    answers = {n: parts[at] + parts[at + len(below)] for at, n in enumerate(below)}
    return [answers.get(n, n) for n in items]


def _meet(scene: Scene, me: str, other: str) -> None:
    scene.flag(f"in-{me}").set()
    scene.flag(f"in-{other}").wait()


def first(scene: Scene, items: list[Any]) -> None:
    """Computing 2, asks the other one for 1, which that one holds by then, as this one does."""
    if 2 in items:
        _meet(scene, "first", "second")
        assert scenes.call(scene, second, [1]) == [10]


def second(scene: Scene, items: list[Any]) -> None:
    if 2 in items:
        _meet(scene, "second", "first")
        assert scenes.call(scene, first, [1]) == [10]


def crossing(scene: Scene, items: list[Any]) -> None:
    """Who computes 1 and 11 asks for 2, and who computes 2 and 12 asks for 1, once both hold what the other wants."""
    if len(items) > 1:
        mine, wanted = items[0], 3 - items[0]
        _meet(scene, str(mine), str(wanted))
        assert scenes.call(scene, crossing, [wanted]) == [10 * wanted]


def through_to_thread(scene: Scene, items: list[Any]) -> None:
    async def ask() -> list[Any]:
        return await asyncio.to_thread(scenes.call, scene, through_to_thread, items)

    if len(scene.journal().lines()) == 1:
        assert asyncio.run(ask()) == [10 * item for item in items]


def through_copied_context(scene: Scene, items: list[Any]) -> None:
    if len(scene.journal().lines()) > 1:
        return
    context = contextvars.copy_context()
    answers: list[Any] = []
    thread = threading.Thread(
        target=context.run, args=(lambda: answers.append(scenes.call(scene, through_copied_context, items)),)
    )
    thread.start()
    thread.join()
    assert answers == [[10 * item for item in items]]


def graph(seed: int, nodes: int = 12) -> list[list[int]]:
    """The edges of a random acyclic graph: each node leads to larger ones only."""
    chance = random.Random(seed)
    return [
        chance.sample(range(node + 1, nodes), k=min(chance.randrange(4), nodes - node - 1)) for node in range(nodes)
    ]


def walking(scene: Scene, items: list[Any]) -> list[Any]:
    """An item is (graph, node); its answer is the number of paths that begin there, by way of the other items."""
    ways = [[[number, later] for later in graph(number)[node]] for number, node in items]
    below = [item for way in ways for item in way]
    answers = dict(zip(map(tuple, below), scenes.call(scene, walking, below), strict=True))
    return [1 + sum(answers[tuple(item)] for item in way) for way in ways]


def paths(number: int) -> list[int]:
    """The number of paths from each node of a graph, computed by itself."""
    edges = graph(number)
    counts = [0] * len(edges)
    for node in reversed(range(len(edges))):
        counts[node] = 1 + sum(counts[later] for later in edges[node])
    return counts


def walk(scene: Scene, seed: int, graphs: int) -> int:
    """Ask two threads' worth of batches over all graphs in an order of one's own; the number of wrong answers."""
    wrong: list[int] = []

    def one(own: int) -> None:
        chance = random.Random(own)
        for number in range(graphs):
            nodes = chance.sample(range(12), k=5)
            answer = scenes.call(scene, walking, [[number, node] for node in nodes])
            wrong.append(answer != [paths(number)[node] for node in nodes])

    threads = [threading.Thread(target=one, args=(2 * seed + half,)) for half in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(wrong) + (len(wrong) != 2 * graphs)


@dataclass(frozen=True)
class Calling:
    """A codec that calls the cached function whose results it encodes, as the code of a pickled object may."""

    directory: Path
    name: str = "calling"

    def encode(self, value: Any) -> bytes:
        scene = Scene.at(self.directory, codec=self)
        if not scene.flag(f"in-{value}").is_set():
            _meet(scene, str(value), str(30 - value))
            assert scenes.call(scene, scenes.plain, [(30 - value) // 10]) == [30 - value]
        return str(value).encode()

    def decode(self, data: bytes) -> Any:
        return int(data)


@dataclass(frozen=True)
class Signalled:
    """A codec that a signal meets when it first encodes."""

    directory: Path
    name: str = "signalled"

    def encode(self, value: Any) -> bytes:
        _signal_once(Scene.at(self.directory))
        return str(value).encode()

    def decode(self, data: bytes) -> Any:
        return int(data)


def _signal_once(scene: Scene) -> None:
    if not scene.flag("signalled").is_set():
        scene.flag("signalled").set()
        signal.raise_signal(signal.SIGUSR1)


def call_with_handler(scene: Scene, items: list[Any]) -> list[Any]:
    """Call, with a signal handler that makes the same call; in the main thread."""
    signal.signal(signal.SIGUSR1, lambda *_: scene.journal("handled").note(*scenes.call(scene, scenes.plain, items)))
    return scenes.call(scene, scenes.plain, items)


def call_with_handler_once_claimed(scene: Scene, items: list[Any]) -> list[Any]:
    """The same; the signal comes when the claim is written and the call does not know of it yet."""
    store = scenes.function(scene, scenes.plain).store
    claim = store.claim

    def signalled(*arguments: Any, **options: Any) -> Any:
        answers = claim(*arguments, **options)
        _signal_once(scene)
        return answers

    store.claim = signalled
    return call_with_handler(scene, items)
