"""Calls whose counts are known, and who reads them meanwhile."""

from __future__ import annotations

from typing import Any

from batche.stores.lmdb.records import ENTRY
from tests.processes._tools import Scene
from tests.processes.programs import scenes
from tests.processes.programs.scenes import function, plain


def ask_for_three(scene: Scene, caller: int, calls: int) -> None:
    """Each call is two misses and a hit."""
    for number in range(calls):
        one = caller * 1_000_000 + 2 * number
        assert scenes.call(scene, plain, [one, one + 1, one]) == [10 * one, 10 * one + 10, 10 * one]


def read_until_stopped(scene: Scene) -> tuple[int, int, int]:
    """How often the counts were read, how often one was more than it can be, and how often one went back."""
    read = torn = backwards = 0
    before = scenes.info(scene, plain)
    while not scene.flag("stop").is_set():
        now = scenes.info(scene, plain)
        read += 1
        torn += abs(now.misses - 2 * now.hits) > 2 * 2 or now.waits > 0
        backwards += now.hits < before.hits or now.misses < before.misses or now.currsize < before.currsize
        before = now
    return read, torn, backwards


def entries(scene: Scene) -> int:
    """The number of entries that are really there."""
    environment = function(scene, plain).store._opened.lmdb

    def count(transaction: Any) -> int:
        cursor, found = transaction.cursor(), 0
        there = cursor.set_range(ENTRY)
        while there and cursor.key().startswith(ENTRY):
            found += 1
            there = cursor.next()
        return found

    number: int = environment.read(count)
    return number


def measuring(scene: Scene, items: list[Any]) -> list[Any]:
    """Items may be anything that has a length; what is long comes back as long."""
    scene.journal("shapes").note(*(type(item).__name__ for item in items))
    return [item if isinstance(item, bytes) else len(item) for item in items]


def ask_for_shapes(scene: Scene) -> list[Any]:
    """Lists, dictionaries, ten megabytes and nothing at all."""
    huge = bytes(10_000_000)
    answer = scenes.call(scene, measuring, [[1, [2]], {"b": 1, "a": [2]}, huge, {"a": [2], "b": 1}, "", []])
    assert scenes.call(scene, measuring, []) == []
    assert answer[2] == huge
    return [*answer[:2], len(answer[2]), *answer[3:]]
