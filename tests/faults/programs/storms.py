"""Workers that ask for overlapping batches until they are killed or told to stop, and write down what they do."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batche import cache_batch_variable
from tests.faults._journal import Book

WINDOW: Final = 64
"""Items that are asked for at one time: the window moves on, so that there is always something to compute."""
LONGEST_BATCH: Final = 24
SLOWEST: Final = 0.02
"""Seconds that the function takes at most, however many items it is given."""
_SET_PARENT_DEATH_SIGNAL: Final = 1


@dataclass(frozen=True)
class Plan:
    """One storm: how many workers, how many kills, at which pace, and the options of the function."""

    directory: Path
    kills: int
    workers: int = 8
    pace: float = 0.008
    """Seconds between two kills, on average."""
    items_a_second: float = 400
    evicting: bool = False
    stopping: bool = False
    """Whether as many workers are stopped for a while, some of which are killed as they stand."""
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0

    @property
    def fault(self) -> str:
        """What is injected, in a few words."""
        variants = {"stopped too": self.stopping, "with eviction": self.evicting, "runtime place": self.store is None}
        return ", ".join(["workers killed", *(variant for variant, chosen in variants.items() if chosen)])

    @property
    def book(self) -> Book:
        return Book(self.directory / "storm.journal")

    @property
    def stop(self) -> Path:
        return self.directory / "stop.flag"

    @property
    def store(self) -> str | None:
        """A directory of the test, unless the options say otherwise."""
        found: str | None = dict(self.options).get("store", str(self.directory / "place"))
        return found


def answer(item: int) -> list[Any]:
    """What the function makes of an item: of every size from a few bytes to two pages."""
    return [10 * item, "x" * (item * 37 % 9000 if item % 5 == 0 else item % 90)]


def batch_of(number: int) -> list[int]:
    """The batch that a line of the journal stands for: its window and its seed in one number."""
    chance = random.Random(number)
    start = number >> 32
    return chance.choices(range(start, start + WINDOW), k=chance.randrange(1, LONGEST_BATCH))


class Worker:
    """One process of a storm. The driver makes one of serial 0, which never asks for anything in the storm."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.serial = 0
        self.call = 0
        self.chance = random.Random(plan.seed)
        options: dict[str, Any] = {
            "name": "storm",
            "version": "1",
            "strict": True,
            **dict(plan.options),
            "store": plan.store,
        }
        self.function: Any = cache_batch_variable("items", **options)(self._compute)
        self.begun = time.monotonic()

    def _compute(self, items: list[int]) -> list[list[Any]]:
        self.plan.book.note("begin", self.serial, self.call, *items)
        time.sleep(self.chance.choice([0, 0.001, SLOWEST]))  # the work itself
        self.plan.book.note("end", self.serial, self.call, *items)
        return [answer(item) for item in items]

    def run(self, serial: int) -> int:
        """Ask until the storm is over. 0 if all went well."""
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        self.serial = serial
        self.chance = random.Random(f"{self.plan.seed} {serial}")
        self.function.cache_info()  # opens the store: what is timed is calls
        try:
            while not self.plan.stop.exists():
                self._ask()
                if self.plan.evicting:
                    self._do_something_else()
        except Exception as error:
            self.plan.book.note("failed", serial, self.call, 0)
            print(f"worker {serial}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return 1
        return 0

    def _ask(self) -> None:
        self.call += 1
        start = int((time.monotonic() - self.begun) * self.plan.items_a_second)
        number = start << 32 | self.chance.getrandbits(32)
        batch = batch_of(number)
        self.plan.book.note("called", self.serial, self.call, number)
        right = self.function(batch) == [answer(item) for item in batch]
        self.plan.book.note("returned" if right else "wrong", self.serial, self.call, len(batch))

    def _do_something_else(self) -> None:
        roll = self.chance.random()
        batch = batch_of(self.call << 32 | self.serial)
        if roll < 0.1:
            self.function.cache_invalidate(batch)
        elif roll < 0.2:
            self.function.cache_contains(batch)
        elif roll < 0.25:
            self.function.cache_info()
        elif roll < 0.26:
            self.function.cache_clear()


def quietly(work: Any, serial: int) -> int:
    """Run a worker in a forked child; the status it ends with."""
    status = 97
    try:
        status = int(work(serial))
    finally:
        os._exit(status)
    return status
