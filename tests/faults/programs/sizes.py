"""Cached functions whose results have a size, and what is asked of them where there is little room."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from batche.errors import StoreError
from tests.processes._tools import Scene
from tests.processes.programs import scenes


def expected(items: Sequence[Any]) -> list[bytes]:
    """An item is (number, size); its answer is that many bytes, which cannot be taken for another item's."""
    return [Random(number).randbytes(size) for number, size in items]


def sized(scene: Scene, items: list[Any]) -> list[bytes]:
    return expected(items)


def items_of(numbers: Sequence[int], size: int) -> list[Any]:
    return [(number, size) for number in numbers]


class Asked(NamedTuple):
    """What came of several calls."""

    wrong: int
    raised: list[StoreError]
    warnings: list[str]


def ask(scene: Scene, batches: Sequence[Sequence[Any]]) -> Asked:
    """Call with each batch; whether the answers were right, what was raised, and what was logged."""
    wrong, raised = 0, []
    with Listening() as said:
        for batch in batches:
            try:
                wrong += scenes.call(scene, sized, batch) != expected(batch)
            except StoreError as error:
                raised.append(error)
    return Asked(wrong, raised, said)


class Listening:
    """Collects the warnings of the logger ``batche``."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._handler = logging.Handler(logging.WARNING)
        self._handler.emit = lambda record: self.said.append(record.getMessage())  # type: ignore[method-assign]  # all it does

    def __enter__(self) -> list[str]:
        logging.getLogger("batche").addHandler(self._handler)
        return self.said

    def __exit__(self, *trouble: object) -> None:
        logging.getLogger("batche").removeHandler(self._handler)


def batches(numbers: range, size: int, each: int) -> list[list[Any]]:
    return [items_of(numbers[start : start + each], size) for start in range(0, len(numbers), each)]
