"""A place: a directory of environments, one for each function name, and the table of the processes that use them.

A process opens each place and each environment once, known by inode: LMDB refuses the same files twice, and
closing a second descriptor of a locked file would drop the locks of the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any, Final
from weakref import WeakValueDictionary

from batche._capacity import default_max_bytes
from batche._places import as_store_error, hold, open_private_directory, retried
from batche._process import renew_after_fork
from batche._wakeups import Wakeups
from batche.errors import StoreError
from batche.stores.lmdb import counts, environment, slots, workers
from batche.stores.lmdb.environment import Environment
from batche.stores.lmdb.following import LEAST_BYTES
from batche.stores.lmdb.gate import BOUND
from batche.stores.lmdb.relief import take_ballast

_FRESH: Final = 1.0
"""Seconds for which what is free on the file system is taken to be the same."""
_Inode = tuple[int, int]


class _Registry:
    """What is open in this process, by inode."""

    def __init__(self) -> None:
        self.after_fork()
        self.places: WeakValueDictionary[_Inode, Place] = WeakValueDictionary()
        self.environments: WeakValueDictionary[_Inode, OpenEnvironment] = WeakValueDictionary()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.lock = RLock()

    def before_fork(self) -> None:
        """Let another thread finish what it opens or makes: half of it in the child would be in its way for ever."""
        self.lock.acquire(timeout=BOUND)

    def after_fork_in_parent(self) -> None:
        with contextlib.suppress(RuntimeError):  # not ours: the wait was too long
            self.lock.release()


_REGISTRY: Final = _Registry()

if hasattr(os, "register_at_fork"):  # after the gate's, so this wait comes before the gate is closed
    os.register_at_fork(before=_REGISTRY.before_fork, after_in_parent=_REGISTRY.after_fork_in_parent)


def _inode(path: Path) -> _Inode:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino


class Place:
    """A directory of environments, with the table of its workers. Made by `open_place`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.workers = workers.Workers(path)

    def environment(self, name: str, /, *, durable: bool = False, **about: Any) -> OpenEnvironment:
        """The environment in the sub-directory ``name``, made if it is not there. ``about`` is written down then."""
        path = self.path / name
        with _REGISTRY.lock, as_store_error(str(path)):
            _prepare(path, self.path, lambda: _make_environment(path, about))
            found = _REGISTRY.environments.get(_inode(path))
            if found is None:
                found = _REGISTRY.environments[_inode(path)] = OpenEnvironment(self, path, durable=durable)
            return found


class OpenEnvironment:
    """An environment and the tables beside it, as this process has them open."""

    def __init__(self, place: Place, path: Path, *, durable: bool) -> None:
        self.place = place  # kept open as long as one of its environments is
        self.path = path
        self.workers = place.workers
        self.lmdb = Environment(path, durable=durable)
        self.slots = slots.Slots(path)
        self.lanes = counts.Lanes(path)
        self.workers.on_lost.add(self.lanes)
        self.lmdb.abandoned = self.lanes.after_fork  # who may have been taken for dead has no lane any more
        self.wakeups = Wakeups()
        self._default_limit = (float("-inf"), 0)

    def default_limit(self) -> int:
        """The most bytes of a domain that nobody stated a limit for; looked up again after a second."""
        looked, limit = self._default_limit
        if time.monotonic() - looked > _FRESH:
            with as_store_error(str(self.path)):
                limit = max(default_max_bytes(self.path), LEAST_BYTES)
            self._default_limit = (time.monotonic(), limit)
        return limit


def open_place(path: Path) -> Place:
    """The place in the directory ``path``, which is there: a runtime place that was removed is not made again here."""
    with _REGISTRY.lock, as_store_error(str(path)):
        _check_directory(path)
        _prepare(path, path, lambda: workers.new_table(path), made=path / "workers.lock")
        place = _REGISTRY.places.get(_inode(path))
        if place is None:
            place = _REGISTRY.places[_inode(path)] = Place(path)
        return place


def _prepare(path: Path, place: Path, make: Any, made: Path | None = None) -> None:
    """Have ``make`` called once for all processes, in a private directory of its own."""
    made = made or path / "format"
    if _is_file(made):
        return
    with as_store_error(str(path)), _sole_maker(place):
        if not _is_file(made):
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)
            _check_directory(path)
            make()


@contextlib.contextmanager
def _sole_maker(place: Path) -> Iterator[None]:
    """Be the only one of all processes that makes something in ``place``. The caller holds the registry's lock.

    Not a lock of `filelock`: its hooks have whoever takes one wait for a fork to end, which waits for the registry's
    lock; and a child that is forked while another thread imports it waits for that import for ever.
    """
    descriptor = retried(str(place), lambda: hold(place / "making.lock", fcntl.LOCK_EX, create=True))
    try:
        yield
    finally:
        os.close(descriptor)


def _check_directory(path: Path) -> None:
    try:
        os.close(open_private_directory(path))
    except FileNotFoundError as error:
        raise StoreError(str(path), "is gone") from error


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _make_environment(path: Path, about: dict[str, Any]) -> None:
    slots.new_table(path)
    counts.new_table(path)
    take_ballast(path)
    environment.make(path, **about)
