"""Making what a place holds, and entering it: one process at a time makes, and nobody sees half of anything."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from batche._boot import boot_identity, random_word
from batche._places import entered, hold, open_private_directory, retried
from batche._reports import logger
from batche.errors import StoreError
from batche.stores.lmdb import counts, damage, opening, slots, workers
from batche.stores.lmdb.damage import DamagedError
from batche.stores.lmdb.relief import take_ballast

_NO_DIRECTORY: Final = (errno.ELOOP, errno.ENOTDIR, errno.EACCES)
"""What opening says where there is something else, or where nobody may look."""


def prepare_workers(path: Path, directory: int) -> None:
    """Have the table of workers made once for all processes; one that is damaged is set aside."""
    if workers.check(directory) is not None:
        with sole_maker(path, directory):
            if workers.check(directory) is not None:
                _set_aside_workers(path, directory)
                _make_workers(path, directory)


def _make_workers(path: Path, directory: int) -> None:
    """Both files, or none: half of them, where there is no room, would be told as damage."""
    try:
        workers.new_table(path, inside=directory)
    except BaseException:
        for name in workers.FILES:
            damage.remove(directory, name)
        raise


def _set_aside_workers(path: Path, directory: int) -> None:
    """Both files together, where there are any: entries stay, and claims end."""
    problem, aside = workers.check(directory), []
    for name in workers.FILES:
        with contextlib.suppress(FileNotFoundError):
            aside.append(damage.set_aside(directory, name))
    if aside:
        logger.warning(
            "%s: %s; set aside as %s, which you may delete, and begun anew", path, problem, " and ".join(aside)
        )


@contextlib.contextmanager
def sole_maker(place: Path, directory: int) -> Iterator[None]:
    """Be the only one of all processes that makes something in ``place``. The caller holds the registry's lock.

    Not a lock of `filelock`: its hooks have whoever takes one wait for a fork to end, which waits for the registry's
    lock; and a child that is forked while another thread imports it waits for that import for ever.
    """
    path = place / "making.lock"
    descriptor = retried(str(place), lambda: hold(path, fcntl.LOCK_EX, create=True, directory=directory))
    try:
        yield
    finally:
        os.close(descriptor)


class entered_within:
    """A descriptor of a directory that lies in a private one, while the ``with`` lasts: what is wrong in it is damage.

    No generator, as `batche._trouble.translated` is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        try:
            self._descriptor = open_private_directory(self._path)
        except StoreError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno not in _NO_DIRECTORY:
                raise  # no descriptor or memory is left: that says nothing about the directory
            raise DamagedError(error.store, error.problem) from error
        return self._descriptor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        if isinstance(error, DamagedError):
            raise error.at(self._path) from error


def make_environment(place: int, path: Path, about: dict[str, Any]) -> None:
    """An environment appears whole: it is made beside its path, then renamed."""
    draft = f"{path.name}.new"
    damage.remove(place, draft)  # of a maker that was killed
    os.mkdir(draft, 0o700, dir_fd=place)
    try:
        with entered(path.with_name(draft)) as directory:
            _make_files(directory, path.with_name(draft), about)
        os.rename(draft, path.name, src_dir_fd=place, dst_dir_fd=place)
    except BaseException:
        damage.remove(place, draft)
        raise


def _make_files(directory: int, path: Path, about: dict[str, Any]) -> None:
    identity = random_word()
    slots.new_table(path, identity, inside=directory)
    slots.Slots(path, inside=directory).set_clock(boot_identity())
    counts.new_table(path, identity, inside=directory)
    take_ballast(path, directory)
    opening.make(path, identity, directory, **about)
