"""A place: a directory of environments, one for each function name, and the table of the processes that use them.

A process opens each place and each environment once, known by inode: LMDB refuses the same files twice, and
closing a second descriptor of a locked file would drop the locks of the first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from batche import _runtime
from batche._forks import HeldLock, Order, take_part
from batche._places import BegunAnewError, as_store_error, entered
from batche._reports import logger
from batche.errors import StoreError
from batche.stores.lmdb import counts, damage, mark, slots, workers
from batche.stores.lmdb.damage import DamagedError
from batche.stores.lmdb.descriptors import File, file_at
from batche.stores.lmdb.keeper import Keeper
from batche.stores.lmdb.making import entered_within, make_environment, prepare_workers, sole_maker
from batche.stores.lmdb.mark import Survival
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.watched import Watched, inode_of

IDLE: Final = 5.0
"""Seconds without a write after which the mark of a place that persists is made."""
_TRIES: Final = 3


class _Registry(HeldLock):
    """What is open in this process, by inode. Half of what is being opened would be in a child's way for ever."""

    def __init__(self) -> None:
        super().__init__(Order.FILES)
        self.places: WeakValueDictionary[File, Place] = WeakValueDictionary()
        self.environments: WeakValueDictionary[File, OpenEnvironment] = WeakValueDictionary()


_REGISTRY: Final = _Registry()


class Place:
    """A directory of environments, with the table of its workers. Made by `open_place`."""

    def __init__(self, path: Path, directory: int) -> None:
        self.path = path
        self._file = file_at(directory)
        self._watch()
        self.workers = workers.Workers(path, inside=directory)

    def _watch(self) -> None:
        self._watched = Watched(*(self.path / name for name in workers.FILES))

    def environment(
        self, name: str, /, *, durable: bool = False, persists: bool = False, **about: Any
    ) -> OpenEnvironment:
        """The environment in the sub-directory ``name``, made if it is not there. ``about`` is written down then.

        ``persists``: it outlives a boot of the system, if it was whole when that ended. `BegunAnewError`: what was
        there was damaged, and is set aside by now.
        """
        path = self.path / name
        _arrange_leaving()
        with _REGISTRY.lock, as_store_error(str(path)):
            found = _open_still(path)
            if found is None or (time.monotonic() > found.look_at and found.is_outdated()):
                found = self._open(path, about, durable=durable, persists=persists)
                _REGISTRY.environments[found.file] = found
            elif durable:
                found.make_durable()
            return found

    def _open(self, path: Path, about: dict[str, Any], *, durable: bool, persists: bool) -> OpenEnvironment:
        for _ in range(_TRIES):
            if inode_of(path) is None:
                self._make(path, about)
            try:
                self._start_anew_after_a_crash(path, about, persists=persists)
                seen = inode_of(path)
                return self._open_whole(path, seen, durable=durable, persists=persists)
            except FileNotFoundError:
                continue  # another process has just set it aside
        raise StoreError(str(path), "is removed again and again: choose a directory that nobody cleans up")

    def _open_whole(self, path: Path, seen: File | None, *, durable: bool, persists: bool) -> OpenEnvironment:
        try:
            return OpenEnvironment(self, path, durable=durable, persists=persists, keep=_keep)
        except DamagedError as error:
            raise self.set_aside(path, seen, error) from error

    def _start_anew_after_a_crash(self, path: Path, about: dict[str, Any], *, persists: bool) -> None:
        """Remove an environment of which nobody knows what the system wrote of it before it went down."""
        if not _is_lost(path, persists=persists):
            return
        with self._directory() as directory, sole_maker(self.path, directory):
            if _is_lost(path, persists=persists) and not self.workers.others_live():
                damage.discard(directory, path.name)
                make_environment(directory, path, about)
                logger.warning(
                    "%s was in use when the system went down: what is in it may be torn, so it starts empty; "
                    "LmdbStore(path, durable=True) keeps everything, and sync() what is there at that moment",
                    path,
                )

    def _make(self, path: Path, about: dict[str, Any]) -> None:
        with self._directory() as directory, sole_maker(self.path, directory):
            if inode_of(path) is None:
                make_environment(directory, path, about)

    def set_aside(self, path: Path, seen: File | None, error: DamagedError) -> BegunAnewError:
        """Rename the environment ``seen`` at ``path``, unless another process has done it; returns what to raise."""
        if error.foreign and self.workers.others_live():
            raise StoreError(
                str(path), f"{error.problem}, which is using it: upgrade this program, or choose another directory"
            ) from error
        with _REGISTRY.lock, self._directory() as directory, sole_maker(self.path, directory):
            if seen is None or inode_of(path) != seen:
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
                if file_at(directory) != self._file:
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


def _is_lost(path: Path, *, persists: bool) -> bool:
    """Whether an environment is not known to have been whole when the system went down.

    What is not an environment of this format, or has no table of its own, is damaged: that is found when it is opened.
    """
    try:
        with entered_within(path) as directory:
            identity = damage.read_format(directory)["identity"]
            if damage.check_word(directory, "slots", slots.IDENTITY, identity) is not None:
                return False
            return mark.survival(path, persists=persists, inside=directory) is Survival.NOTHING
    except (DamagedError, OSError):
        return False


def leave() -> None:
    """Before this process ends: tell what it has counted, and make the marks of what it is the last to use."""
    for path, persists in counts.directories_kept().items():
        _at(path, OpenEnvironment.tell_counts, persists=persists)
    for path in _KEEPER.paths():
        _at(path, OpenEnvironment.leave, persists=True)


def _at(path: Path, do: Callable[[OpenEnvironment], object], *, persists: bool) -> None:
    """Do something with the environment at ``path``, if it is there and can be used."""
    with contextlib.suppress(StoreError, OSError):
        opened = _open_still(path) or _open_again(path, persists=persists)
        if opened is not None:
            do(opened)


@cache  # once for a process and those forked from it, which inherit what is to be done at the end
def _arrange_leaving() -> None:
    _runtime.on_leave(leave)


def _keep(path: Path) -> None:
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
    file = inode_of(path)
    return None if file is None else _REGISTRY.environments.get(file)


def _open_again(path: Path, *, persists: bool = True) -> OpenEnvironment | None:
    """The environment at ``path``, which this process had open, if it is there."""
    if inode_of(path) is None:
        return None
    try:
        return open_place(path.parent).environment(path.name, persists=persists)
    except BegunAnewError as error:  # no call found it, so no call tells it
        logger.warning("%s", error)
        return None


_KEEPER: Final = Keeper(_look)
take_part(_KEEPER)


def open_place(path: Path) -> Place:
    """The place in the directory ``path``, which is there: a runtime place that was removed is not made again here."""
    if inode_of(path) is None:
        raise StoreError(str(path), "is gone")
    with _REGISTRY.lock, as_store_error(str(path)), entered(path) as directory:
        return _place_in(directory, path)


def _place_in(directory: int, path: Path) -> Place:
    file = file_at(directory)
    place = _REGISTRY.places.get(file)
    if place is not None:
        place.mend(directory)
        return place
    prepare_workers(path, directory)
    place = _REGISTRY.places[file] = Place(path, directory)
    return place
