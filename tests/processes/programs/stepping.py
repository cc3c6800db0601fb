"""A call that is made step by step, and what other processes do in between.

Every function here is given the path of a store, and has one `LmdbStore` of it in each process.
"""

from __future__ import annotations

import itertools
import resource
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from batche import LmdbStore, _calls
from batche._binding import wakeups_of
from batche._drive import _perform, drive
from batche._engine import Run
from batche._plan import split
from batche._reports import Reports
from batche._settings import Settings
from batche._types import Key
from batche.codecs import codec
from batche.stores.lmdb.totals import read_epoch
from batche.stores.lmdb.workers import State
from batche.stores.lmdb.writing import claimed_keys
from tests.processes._tools import Scene, until
from tests.processes.programs.scenes import clear as clear_function
from tests.processes.programs.scenes import invalidate, plain

NAMESPACE: Final = b"stepping"
OLD, NEW = "old", "new"
_truth = [OLD]
"""What every item is in this process."""
_under_way: list[None] = []


@lru_cache(maxsize=4)  # a test has a new path for each of many cases, and a fork closes all that is open
def open_store(path: Path) -> LmdbStore:
    return LmdbStore(path)


def key(item: int) -> Key:
    return NAMESPACE + item.to_bytes(20, "big")


def _run(path: Path, items: Sequence[int], batch_size: int | None) -> Run:
    store = open_store(path)
    chosen = Settings("stepping", NAMESPACE, store, codec("auto"), wakeups_of(store), Reports("stepping"), batch_size)
    return Run(chosen, split(items, [key(item) for item in items]))


class Stepped:
    """A call that goes on only when it is told to; ``truth`` is what its function returns for each item."""

    def __init__(self, path: Path, items: Sequence[int], batch_size: int | None = None) -> None:
        self.store = open_store(path)
        self.truth = OLD
        self.computed: dict[int, str] = {}
        self.answer: list[Any] | None = None
        self._run = _run(path, items, batch_size)
        self._steps = self._run.steps()
        self._step: Any = next(self._steps)

    def advance(self, steps: int | None = None) -> None:
        """Take so many steps, or all that are left."""
        left = iter(itertools.count() if steps is None else range(steps))
        with _calls.inside(self._run.call):
            while self.answer is None and next(left, None) is not None:
                self._advance()

    def _advance(self) -> None:
        try:
            self._step = self._steps.send(_perform(self._run, self._step, self._compute))
        except StopIteration as done:
            self.answer = done.value
            self._run.end(abandoned=False)

    def _compute(self, items: list[int]) -> list[str]:
        self.computed.update(dict.fromkeys(items, self.truth))
        return [self.truth] * len(items)


# ---- in another process ----


def become_true(truth: str) -> None:
    _truth[0] = truth


def call_whole(path: Path, items: Sequence[int]) -> list[str]:
    """One call from its beginning to its end."""
    _under_way.append(None)
    try:
        return drive(_run(path, items, None), lambda missing: [_truth[0]] * len(missing))
    finally:
        _under_way.pop()


def wait_until_it_waits_or_is_done(path: Path) -> None:
    """Return once the call of this process has come as far as it can by itself."""
    listeners = open_store(path).wakeups._listeners
    until(lambda: not _under_way or listeners, "the call waits or is done")


def kept(path: Path, items: Sequence[int]) -> dict[int, str]:
    """What is stored, by item."""
    entries = open_store(path).read([key(item) for item in items], use=False)
    return {item: codec("auto").decode(entry[0]) for item, entry in zip(items, entries, strict=True) if entry}


def claims_that_hold(path: Path) -> int:
    store = open_store(path)
    epoch, claims = store._opened.lmdb.read(
        lambda transaction: (read_epoch(transaction, NAMESPACE), claimed_keys(transaction, b"", 1000))
    )
    return sum(store._claims.judge(raw, epoch, {})[0] is State.RUNNING for _, raw in claims)


def _delete(path: Path, items: Sequence[int]) -> list[int]:
    open_store(path).delete([key(item) for item in items])
    return list(items)


def delete_first(path: Path, items: Sequence[int]) -> list[int]:
    return _delete(path, items[:1])


def delete_last(path: Path, items: Sequence[int]) -> list[int]:
    return _delete(path, items[-1:])


def delete_all(path: Path, items: Sequence[int]) -> list[int]:
    return _delete(path, items)


def clear(path: Path, items: Sequence[int]) -> list[int]:
    open_store(path).clear(NAMESPACE)
    return list(items)


class _WithoutRoom:
    """While it lasts this process can write to no file."""

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._before[1]))

    def __exit__(self, *reason: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def invalidate_without_room(scene: Scene, items: Sequence[int]) -> None:
    with _WithoutRoom():
        invalidate(scene, plain, items)


def clear_without_room(scene: Scene, items: Sequence[int]) -> None:
    with _WithoutRoom():
        clear_function(scene, plain)
