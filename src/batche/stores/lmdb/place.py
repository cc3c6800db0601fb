"""A place: a directory of environments, one for each function name, and the table of the processes that use them.

A process opens each place and each environment once, known by inode: LMDB refuses the same files twice, and
closing a second descriptor of a locked file would drop the locks of the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from threading import RLock
from typing import Any, Final
from weakref import WeakValueDictionary

from batche import _runtime
from batche._capacity import default_max_bytes
from batche._places import as_store_error, hold, open_private_directory, retried
from batche._process import boot_identity, renew_after_fork
from batche._wakeups import Wakeups
from batche.errors import StoreError
from batche.stores.base import PATIENCE
from batche.stores.lmdb import counts, environment, mark, slots, workers
from batche.stores.lmdb.environment import Environment
from batche.stores.lmdb.following import LEAST_BYTES
from batche.stores.lmdb.gate import BOUND
from batche.stores.lmdb.keeper import Keeper
from batche.stores.lmdb.mark import Mark, Survival
from batche.stores.lmdb.relief import take_ballast

_FRESH: Final = 1.0
"""Seconds for which what is free on the file system is taken to be the same."""
IDLE: Final = 5.0
"""Seconds without a write after which the mark of a place that persists is made."""
LEAVING_PATIENCE: Final = 1.0
"""Seconds that a process that ends, or closes a store, waits for its turn to make the mark."""
_Inode = tuple[int, int]
_logger: Final = logging.getLogger("batche")


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

    def environment(
        self, name: str, /, *, durable: bool = False, persists: bool = False, **about: Any
    ) -> OpenEnvironment:
        """The environment in the sub-directory ``name``, made if it is not there. ``about`` is written down then.

        ``persists``: it outlives a boot of the system, if it was whole when that ended.
        """
        path = self.path / name
        with _REGISTRY.lock, as_store_error(str(path)):
            _prepare(path, self.path, lambda: _make_environment(path, about))
            found = _REGISTRY.environments.get(_inode(path))
            if found is None:
                self._start_anew_after_a_crash(path, about, persists=persists)
                found = OpenEnvironment(self, path, durable=durable, persists=persists)
                _REGISTRY.environments[_inode(path)] = found
            elif durable:
                found.make_durable()
            return found

    def _start_anew_after_a_crash(self, path: Path, about: dict[str, Any], *, persists: bool) -> None:
        """Remove an environment of which nobody knows what the system wrote of it before it went down."""
        if mark.survival(path, persists=persists) is not Survival.NOTHING:
            return
        with as_store_error(str(path)), _sole_maker(self.path):
            if mark.survival(path, persists=persists) is Survival.NOTHING and not self.workers.others_live():
                shutil.rmtree(set_aside(path), ignore_errors=True)
                path.mkdir(0o700)
                _make_environment(path, about)
                _logger.warning(
                    "%s was in use when the system went down: what is in it may be torn, so it starts empty; "
                    "LmdbStore(path, durable=True) keeps everything, and sync() what is there at that moment",
                    path,
                )


class OpenEnvironment:
    """An environment and the tables beside it, as this process has them open."""

    def __init__(self, place: Place, path: Path, *, durable: bool, persists: bool) -> None:
        self.place = place  # kept open as long as one of its environments is
        self.path = path
        self.workers = place.workers
        self.lmdb = Environment(path, durable=durable)
        self.slots = slots.Slots(path)
        self.lanes = counts.Lanes(path)
        self.workers.on_lost.add(self.lanes)
        self.lmdb.abandoned = self.lanes.after_fork  # who may have been taken for dead has no lane any more
        self.wakeups = Wakeups()
        self.looked = float("-inf")
        """When this process last looked for others that died."""
        self.mark: Mark | None = None
        if persists:
            self.mark = Mark(path, self.slots, durable=durable, changed=partial(_watch, path))
            self.lmdb.before_write = self.mark.before_write
        self._default_limit = (float("-inf"), 0)

    def default_limit(self) -> int:
        """The most bytes of a domain that nobody stated a limit for; looked up again after a second."""
        looked, limit = self._default_limit
        if time.monotonic() - looked > _FRESH:
            with as_store_error(str(self.path)):
                limit = max(default_max_bytes(self.path), LEAST_BYTES)
            self._default_limit = (time.monotonic(), limit)
        return limit

    # ---- the mark ----

    def is_marked(self) -> bool:
        """Whether the system may go down and leave all of it."""
        return self.mark is not None and self.mark.is_made()

    def make_mark(self, *, patience: float = PATIENCE) -> None:
        """Have all that was committed so far survive a crash of the system, if the place itself does."""
        if self.mark is not None:
            self.mark.make(partial(self.lmdb.in_turn, patience=patience))

    def make_durable(self) -> None:
        """From here on each commit of this process survives by itself."""
        if not self.lmdb.durable:
            self.lmdb.make_durable()
            if self.mark is not None:
                self.mark.make_durable()

    def watch(self) -> None:
        """Have this process make the mark once nobody has written for `IDLE` seconds."""
        if self.mark is not None:
            _watch(self.path)

    def leave(self) -> None:
        """Make the mark, if this process, which is about to end, is the last of those that use the environment."""
        self.workers.leave()
        if not any(self.workers.stays(lane.row, lane.token) for lane in self.lanes.all()):
            self.make_mark(patience=LEAVING_PATIENCE)

    def close(self) -> None:
        """Make the mark, if there is a turn for it soon, and close the environment in this process."""
        with contextlib.suppress(StoreError):
            self.make_mark(patience=LEAVING_PATIENCE)
        self.lmdb.close()


def leave() -> None:
    """Before this process ends: make the marks of those environments that it is the last to use."""
    for path in _KEEPER.paths():
        with contextlib.suppress(StoreError, OSError):
            opened = _open_still(path) or _open_again(path)
            if opened is not None:
                opened.leave()


@cache  # once for a process and those forked from it, which inherit what is to be done at the end
def _arrange_leaving() -> None:
    _runtime.on_leave(leave)


def _watch(path: Path) -> None:
    _arrange_leaving()
    _KEEPER.watch(path, IDLE)


def _look(path: Path) -> float | None:
    """Make the mark of the environment at ``path`` if it is due; the seconds to the next look, `None` for no more.

    Any process that used it does this, whoever wrote: the writer may be dead. It may be closed here by now, and is
    then opened for this.
    """
    with contextlib.suppress(StoreError, OSError):
        still = _open_still(path)
        opened = still or _open_again(path)
        if opened is not None and not opened.is_marked():
            if 0 <= opened.slots.idle < IDLE:
                return IDLE - opened.slots.idle
            opened.make_mark(patience=0)
        return None if still is None else IDLE
    return IDLE


def _open_still(path: Path) -> OpenEnvironment | None:
    """The environment at ``path``, if this process has it open."""
    return _REGISTRY.environments.get(_inode(path)) if _is_file(path / "format") else None


def _open_again(path: Path) -> OpenEnvironment | None:
    """The environment at ``path``, which this process had open, if it is there."""
    return open_place(path.parent).environment(path.name, persists=True) if _is_file(path / "format") else None


_KEEPER: Final = Keeper(_look)

if hasattr(os, "register_at_fork"):  # after the registry's, so that its thread ends before the registry is locked
    os.register_at_fork(before=_KEEPER.before_fork, after_in_parent=_KEEPER.after_fork_in_parent)


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


def set_aside(path: Path) -> Path:
    """Rename a directory of an environment, so that it can be made anew; returns where it is. For its sole maker."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.aside")
    path.rename(aside)
    return aside


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _make_environment(path: Path, about: dict[str, Any]) -> None:
    slots.new_table(path)
    slots.Slots(path).set_clock(boot_identity())
    counts.new_table(path)
    take_ballast(path)
    environment.make(path, **about)
