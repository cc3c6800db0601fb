"""Processes that lack descriptors, address space, reader slots or rows."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
from collections.abc import Callable, Sequence
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import lmdb
import pytest

from batche import CacheInfo, _places, _runtime, cache_batch_variable
from batche._boot import _identity_in, boot_identity
from batche.errors import StoreError
from batche.stores.lmdb.workers import ROWS
from tests.faults.programs.sizes import Asked, Listening, expected, sized
from tests.processes._tools import Scene, until
from tests.processes.programs import scenes

_functions: dict[Scene, Any] = {}
_held: list[Any] = []


def quiet(scene: Scene) -> Any:
    """The cached function of a scene that opens no file itself: it keeps no journal."""
    if scene not in _functions:
        options = {"store": str(scene.place), "version": "1", "name": "quiet", **dict(scene.options)}
        _functions[scene] = cache_batch_variable("items", **options)(expected)
    return _functions[scene]


def ask_quietly(scene: Scene, batch: list[Any]) -> Asked:
    with Listening() as said:
        wrong = quiet(scene)(batch) != expected(batch)
    return Asked(wrong, [], said)


def contains_quietly(scene: Scene, batch: list[Any]) -> list[bool]:
    found: list[bool] = quiet(scene).cache_contains(batch)
    return found


def info_quietly(scene: Scene) -> CacheInfo:
    found: CacheInfo = quiet(scene).cache_info()
    return found


def wait_until_it_caches(scene: Scene) -> None:
    """A store that could not be opened is tried again after a while."""
    items = [(1, 100), (2, 100)]
    until(lambda: not any(ask_quietly(scene, items)) and all(contains_quietly(scene, items)), "caching resumes")


# ---- address space ----


def with_little_address_space(room: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function`` while this process may map only ``room`` bytes more."""
    gc.collect()  # what was inherited in cycles goes now, and makes no room while the call is made
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, before[1]))
    try:
        return function(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# ---- descriptors ----


class Used:
    """All descriptors of a process, but for ``left`` of them."""

    def __init__(self, left: int) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        last = max(map(int, os.listdir("/proc/self/fd")))  # what was inherited of the tests before may be many
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 256, self._before[1]))
        self._taken = _all_there_are()
        for _ in range(left):
            os.close(self._taken.pop())

    def give_back(self) -> None:
        for descriptor in self._taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


def _all_there_are() -> list[int]:
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return taken


def _left() -> int:
    """How many descriptors can be had now."""
    taken = _all_there_are()
    for descriptor in taken:
        os.close(descriptor)
    return len(taken)


def ask_with_few(scene: Scene, left: int, batch: list[Any]) -> tuple[Asked, int]:
    """Call with ``left`` descriptors to spare; what came of it, and how many of these are still in use after it."""
    quiet(scene)
    boot_identity()  # read once by each process, before or after a fork
    gc.collect()  # what was inherited in cycles goes now, and not while descriptors are counted
    used = Used(left)
    try:
        return ask_quietly(scene, batch), left - _left()
    finally:
        used.give_back()


def ask_a_while_later_with_few(scene: Scene, left: int, batch: list[Any]) -> tuple[Asked, int]:
    """The same when it is time to look whether the files are still those at their paths."""
    quiet(scene).store._opened.look_at = float("-inf")
    return ask_with_few(scene, left, batch)


def decorate_and_ask_with_few(left: int) -> tuple[list[int], int]:
    """Decorate and call a function at the runtime place with ``left`` descriptors to spare."""
    used = Used(left)
    try:
        doubled = cache_batch_variable("items", name="doubled", version="1")(double)
        return doubled([1, 2]), left - _left()
    finally:
        used.give_back()


def runtime_places() -> set[str]:
    """What lies where a runtime place of this process may be, under the name of one."""
    return {path for root in _places.roots() for path in map(str, root.glob("*batche-run-*")) if _own_name() in path}


def be_a_tree_of_its_own() -> None:
    """Have a runtime place that no other process of the tests has."""
    current_process().authkey = os.urandom(16)


def _own_name() -> str:
    return _runtime._name(bytes(current_process().authkey), os.geteuid())


def double(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def call_without_descriptors(scene: Scene, behaviour: scenes.Behaviour, items: Sequence[Any]) -> list[Any]:
    used = Used(0)
    try:
        return scenes.call(scene, behaviour, items)
    finally:
        used.give_back()


def read_boot_identity_without_descriptors() -> None:
    """It cannot be read; to take that for another boot would cost every entry of a store."""
    before = boot_identity()
    _identity_in.cache_clear()
    used = Used(0)
    try:
        with pytest.raises(StoreError, match="ulimit -n"):
            boot_identity()
    finally:
        used.give_back()
    assert boot_identity() == before


def take_row_without_descriptors(scene: Scene, behaviour: scenes.Behaviour) -> None:
    store = scenes.function(scene, behaviour).store
    boot_identity()
    used = Used(0)
    try:
        store._opened.workers.row()
    finally:
        used.give_back()


# ---- reader slots and rows ----


def hold_every_reader_slot(scene: Scene) -> int:
    env = scenes.function(scene, sized).store._opened.lmdb._env
    try:
        while True:
            _held.append(env.begin())
    except lmdb.ReadersFullError:
        return len(_held)


def hold_every_row(scene: Scene) -> int:
    """Lock what is free of the rows, as that many processes would; the number of them."""
    descriptor = os.open(scene.place / "workers.lock", os.O_RDWR)
    _held.append(descriptor)
    return sum(_lock(descriptor, row) for row in range(ROWS))


def _lock(descriptor: int, row: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
    except OSError:
        return False
    return True


def let_go_of_rows() -> None:
    os.close(_held.pop())
