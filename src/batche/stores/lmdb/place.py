"""A place: a directory of environments, one for each function name, and the table of the processes that use them.

A process opens each place and each environment once, known by inode: LMDB refuses the same files twice, and
closing a second descriptor of a locked file would drop the locks of the first.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from threading import RLock
from typing import Any, Final
from weakref import WeakValueDictionary

from batche._capacity import default_max_bytes
from batche._places import BegunAnewError, as_store_error, entered
from batche._process import renew_after_fork
from batche._wakeups import Wakeups
from batche.errors import StoreError
from batche.stores.lmdb import counts, damage, slots, workers
from batche.stores.lmdb.damage import DamagedError, UnreadableError
from batche.stores.lmdb.environment import Environment
from batche.stores.lmdb.following import LEAST_BYTES
from batche.stores.lmdb.gate import BOUND
from batche.stores.lmdb.making import entered_within, make_environment, prepare_workers, sole_maker
from batche.stores.lmdb.records import GLOBAL, IDENTITY, unpack_global

_FRESH: Final = 1.0
"""Seconds for which what is free on the file system is taken to be the same."""
LOOK: Final = 0.5
"""Seconds between two looks whether the files that are in use are still those at their paths."""
_TRIES: Final = 3
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


def _inode(path: Path) -> _Inode | None:
    """Which file or directory is at ``path`` now, if any; a symbolic link is one itself."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Watched:
    """Files that are in use, and must still be the ones at their paths."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._inodes = self._look()

    def _look(self) -> list[_Inode | None]:
        return [_inode(path) for path in self._paths]

    def have_changed(self) -> bool:
        return self._look() != self._inodes


class Place:
    """A directory of environments, with the table of its workers. Made by `open_place`."""

    def __init__(self, path: Path, directory: int) -> None:
        self.path = path
        status = os.fstat(directory)
        self._inode = (status.st_dev, status.st_ino)
        self.age = 0
        """How often the table of workers has been replaced."""
        self._watch()
        self.workers = workers.Workers(path, inside=directory)

    def _watch(self) -> None:
        self._watched = _Watched(*(self.path / name for name in workers.FILES))

    def environment(self, name: str, /, *, durable: bool = False, **about: Any) -> OpenEnvironment:
        """The environment in the sub-directory ``name``, made if it is not there. ``about`` is written down then.

        `BegunAnewError`: what was there was damaged, and is set aside by now.
        """
        path = self.path / name
        with _REGISTRY.lock, as_store_error(str(path)):
            found = _REGISTRY.environments.get(_inode(path) or (0, 0))
            if found is None or (time.monotonic() > found.look_at and found.is_outdated()):
                found = self._open(path, about, durable=durable)
                _REGISTRY.environments[_inode(path) or (0, 0)] = found
            return found

    def _open(self, path: Path, about: dict[str, Any], *, durable: bool) -> OpenEnvironment:
        for _ in range(_TRIES):
            if _inode(path) is None:
                self._make(path, about)
            seen = _inode(path)
            try:
                return OpenEnvironment(self, path, durable=durable)
            except DamagedError as error:
                raise self.set_aside(path, seen, error) from error
            except FileNotFoundError:
                continue  # another process has just set it aside
        raise StoreError(str(path), "is removed again and again: choose a directory that nobody cleans up")

    def _make(self, path: Path, about: dict[str, Any]) -> None:
        with self._directory() as directory, sole_maker(self.path, directory):
            if _inode(path) is None:
                make_environment(directory, path, about)

    def set_aside(self, path: Path, seen: _Inode | None, error: DamagedError) -> BegunAnewError:
        """Rename the environment ``seen`` at ``path``, unless another process has done it; returns what to raise."""
        if error.foreign and self.workers.has_others():
            raise StoreError(
                str(path), f"{error.problem}, which is using it: upgrade this program, or choose another directory"
            ) from error
        with _REGISTRY.lock, self._directory() as directory, sole_maker(self.path, directory):
            if seen is None or _inode(path) != seen:
                return BegunAnewError(str(path), f"{error.problem}; another process has set it aside")
            aside = damage.set_aside(directory, path.name)
        return BegunAnewError(
            str(path), f"{error.problem}; it was set aside as {aside}, which you may delete, and is begun anew"
        )

    def _directory(self) -> contextlib.AbstractContextManager[int]:
        return entered(self.path)

    def look(self) -> bool:
        """Whether this is still the directory at its path; its table of workers is mended or taken over if need be."""
        try:
            with self._directory() as directory:
                status = os.fstat(directory)
                if (status.st_dev, status.st_ino) != self._inode:
                    return False
                if self._watched.have_changed():
                    with _REGISTRY.lock:
                        self.mend(directory)
                return True
        except FileNotFoundError:
            return False

    def mend(self, directory: int) -> None:
        """See to it that the files of workers are there and whole, and that these are the ones in use."""
        prepare_workers(self.path, directory)
        if self._watched.have_changed():
            self._watch()
            self.workers.renew(directory)
            self.age += 1


class OpenEnvironment:
    """An environment and the tables beside it, as this process has them open.

    `DamagedError`: they are not what was made together.
    """

    def __init__(self, place: Place, path: Path, *, durable: bool) -> None:
        self.place = place  # kept open as long as one of its environments is
        self.path = path
        self.workers = place.workers
        self.look_at = time.monotonic() + LOOK
        """When to look again whether the files are still those at their paths, by the monotonic clock."""
        self._inode = _inode(path)
        self._watched = _Watched(path, *(path / name for name in damage.FILES))
        self._age = place.age
        self._excused = 0
        with entered_within(path) as directory:
            self._identity = damage.find(directory)
            self.slots = slots.Slots(path, inside=directory)
            self.lanes = counts.Lanes(path, inside=directory)
            self.lmdb = Environment(path, durable=durable, inside=directory)
        self._verify()
        self.wakeups = Wakeups()
        self._default_limit = (float("-inf"), 0)

    def _verify(self) -> None:
        """Whether LMDB's file is of this environment, and the table holds each slot that it has given away."""
        identity, raw = self.lmdb.read(lambda transaction: (transaction.get(IDENTITY), transaction.get(GLOBAL)))
        if identity != self._identity.to_bytes(8, "big"):
            raise DamagedError(str(self.path), "data.mdb is another environment's, or cannot be read")
        try:
            _, fresh = unpack_global(raw, self.slots.first)
        except UnreadableError as error:
            raise DamagedError(str(self.path), str(error)) from error
        if fresh > len(self.slots.refresh()):
            raise DamagedError(str(self.path), "slots is cut short")

    def is_outdated(self) -> bool:
        """Whether other files have taken the place of these, or these are damaged and were set aside.

        Made whole again where that is enough: a file that this process can no longer use is opened anew, and another
        table of workers taken over.
        """
        with as_store_error(str(self.path)):
            outdated = not self.place.look() or self._has_changed() or self._is_damaged()
        self.look_at = float("-inf") if outdated else time.monotonic() + LOOK
        return outdated

    def _has_changed(self) -> bool:
        if self._age != self.place.age:
            self._age = self.place.age
            self.lanes.after_fork()  # they were taken by a token that no longer is this process's
        changed = self._watched.have_changed()
        if changed:
            self._set_aside_if_ours("a file of it was removed or replaced while it was in use")
        return changed

    def _set_aside_if_ours(self, problem: str) -> None:
        """Set aside what is at the path if it is this environment still: processes that have other files of it open
        would harm each other.
        """
        seen = _inode(self.path)
        with contextlib.suppress(StoreError, OSError):
            with entered(self.path) as directory:
                ours = damage.read_format(directory)["identity"] == self._identity
            if ours:
                self.place.set_aside(self.path, seen, DamagedError(str(self.path), problem))

    def _is_damaged(self) -> bool:
        """Look into the file where using it has failed; it is set aside if it is damaged indeed."""
        if self.lmdb.damaged == self._excused and not self.lmdb.spent:
            return False
        try:
            self._examine()
        except DamagedError as error:
            self.place.set_aside(self.path, self._inode, error)
            return True
        self._excused = self.lmdb.damaged
        return False

    def _examine(self) -> None:
        """Open LMDB's file again if it looks whole. `DamagedError`: it does not, or using it failed a second time."""
        with entered_within(self.path) as directory:
            damage.find(directory)
        if self.lmdb.damaged > 1:
            raise DamagedError(str(self.path), "reading or writing it failed again and again")
        self.lmdb.close()
        self._verify()

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
    if _inode(path) is None:
        raise StoreError(str(path), "is gone")
    with _REGISTRY.lock, as_store_error(str(path)), entered(path) as directory:
        return _place_in(directory, path)


def _place_in(directory: int, path: Path) -> Place:
    status = os.fstat(directory)
    inode = (status.st_dev, status.st_ino)
    place = _REGISTRY.places.get(inode)
    if place is not None:
        place.mend(directory)
        return place
    prepare_workers(path, directory)
    place = _REGISTRY.places[inode] = Place(path, directory)
    return place
