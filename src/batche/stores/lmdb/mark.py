"""Whether what an environment has on the disk is whole: a mark that is there only while it is.

Commits do not wait for the disk, and the system writes pages in any order. So after a crash of the operating system an
environment is trusted only by its mark, a file that says one of two things:

| mark | says |
| --- | --- |
| ``clean`` | nothing was written since all of it was synced |
| ``durable`` | each commit since was synced by itself, so the entries are whole; the tables beside them may be older |

Without one an environment is whole only in the boot in which it was used last, because the page cache outlives every
process. The mark is removed, and its directory synced, before the first write after it. A word of the slot table says
that this was done, so that later writes pay for one comparison.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final

from batche._boot import boot_identity
from batche._places import as_store_error, entered
from batche.errors import StoreError
from batche.stores.lmdb import slots
from batche.stores.lmdb.descriptors import File, file_at
from batche.stores.lmdb.slots import Slots
from batche.stores.lmdb.words import open_file, sync, sync_path

FILE: Final = "mark"
CLEAN: Final = b"clean\n"
DURABLE: Final = b"durable\n"
_WRITTEN: Final = ("data.mdb", "slots", "counts")
"""What writers change of an environment."""
_MADE: Final = ("format",)
_MADE_BESIDE: Final = "workers"
"""What else it is made of. Not its lock files: closing a descriptor of one would drop the process's locks."""


class Survival(Enum):
    """What an environment is worth at its first open in a process."""

    WHOLE = "whole"
    ENTRIES = "entries"  # whole, but for the tables beside them
    NOTHING = "nothing"


def survival(directory: Path, *, persists: bool, inside: int | None = None) -> Survival:
    """What is left of an environment, which was perhaps written before the system went down. Maps nothing.

    ``persists``: its place outlives a boot. One that does not is worth nothing in the next.
    """
    if slots.boot_of(directory, inside) == boot_identity():
        return Survival.WHOLE
    mark = read(directory, inside) if persists else b""
    return {CLEAN: Survival.WHOLE, DURABLE: Survival.ENTRIES}.get(mark, Survival.NOTHING)


def read(directory: Path, inside: int | None = None) -> bytes:
    """What the mark of an environment says; nothing where there is none."""
    try:
        descriptor = open_file(directory / FILE, os.O_RDONLY, inside)
    except OSError:
        return b""
    try:
        return os.read(descriptor, len(DURABLE) + 1)
    finally:
        os.close(descriptor)


class Mark:
    """The mark of an environment that this process has open. ``changed`` is called before it is removed.

    ``file`` is its directory. Where another one has taken its place, that one's mark is not touched.
    """

    def __init__(
        self, directory: Path, file: File, table: Slots, *, durable: bool, changed: Callable[[], None]
    ) -> None:
        self.directory = directory
        self._file = file
        self._table = table
        self._changed = changed
        self._boot = boot_identity()
        self.durable = table.synced = durable

    def make_durable(self) -> None:
        """From here on each commit of this process is synced by itself."""
        self.durable = self._table.synced = True

    def before_write(self) -> None:
        """Make sure that the disk does not say more than will be true. The caller is the only writer.

        Raises:
            OSError: the disk does not take it; then nothing may be written.
        """
        if self._table.written != (self._boot ^ 1 if self.durable else self._boot):
            self._withdraw()

    @contextlib.contextmanager
    def _entered(self) -> Iterator[int]:
        """A descriptor of the directory, checked to be the one that this process has open."""
        with entered(self.directory) as inside:
            if file_at(inside) != self._file:
                raise StoreError(str(self.directory), "was replaced while it was in use")
            yield inside

    def _withdraw(self) -> None:
        self._changed()  # first: an interrupt must not leave a write of which nobody makes the mark
        with self._entered() as inside:
            if self.durable:
                self._rely_on_commits(inside)
                self._table.written = self._boot ^ 1
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(FILE, dir_fd=inside)
                sync(inside)
                self._table.written = self._boot

    def _rely_on_commits(self, inside: int) -> None:
        """Every commit from here on is synced by itself, so what is there must be too."""
        if not read(self.directory, inside):
            sync_all(self.directory, inside)
        _write(self.directory, inside, DURABLE)

    def is_made(self) -> bool:
        """Whether nothing was written since all was synced."""
        return self._table.written == 0 and read(self.directory) == CLEAN

    def make(self, in_turn: Callable[[Callable[[], None]], None]) -> None:
        """Sync all and say so. ``in_turn`` runs a function as the only writer.

        The disk gets most of it before that, so that writers wait for little.

        Raises:
            StoreError: the disk does not take it, or there is no turn.
        """
        if not self.is_made():
            with as_store_error(str(self.directory)), self._entered() as inside:
                sync_all(self.directory, inside)
                in_turn(partial(self._finish, inside))

    def _finish(self, inside: int) -> None:
        if not self.is_made():
            _sync_files(self.directory, inside, _WRITTEN)
            self._table.written = 0  # before the mark is there: whoever dies in between leaves a write that looks
            _write(self.directory, inside, CLEAN)


def _write(directory: Path, inside: int, text: bytes) -> None:
    draft = f"{FILE}.new"
    descriptor = open_file(directory / draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, inside)
    try:
        os.write(descriptor, text)
        sync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(draft, FILE, src_dir_fd=inside, dst_dir_fd=inside)
    sync(inside)


def sync_all(directory: Path, inside: int) -> None:
    """Wait until all that an environment is made of is on the disk, names included."""
    _sync_files(directory, inside, (*_WRITTEN, *_MADE))
    with contextlib.suppress(FileNotFoundError):
        sync_path(directory.with_name(_MADE_BESIDE))
    sync(inside)
    for above in (directory.parent, directory.parent.parent):
        with contextlib.suppress(PermissionError):  # closed to reading: whose names are safe is its owner's affair
            sync_path(above)


def _sync_files(directory: Path, inside: int, names: Iterable[str]) -> None:
    """Wait until those of the files that are there are on the disk."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            sync_path(directory / name, inside)
