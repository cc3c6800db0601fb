"""An environment and the tables beside it, as one process has them open: whether they are still what they were."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batche._capacity import default_max_bytes
from batche._places import as_store_error, entered
from batche._trouble import is_passing
from batche._wakeups import Wakeups
from batche.errors import StoreError
from batche.stores.base import PATIENCE
from batche.stores.lmdb import counts, damage, slots
from batche.stores.lmdb.damage import DamagedError, UnreadableError
from batche.stores.lmdb.descriptors import file_at
from batche.stores.lmdb.environment import LITTLE_PATIENCE, Environment
from batche.stores.lmdb.following import LEAST_BYTES
from batche.stores.lmdb.making import entered_within
from batche.stores.lmdb.mark import Mark
from batche.stores.lmdb.records import GLOBAL, IDENTITY, unpack_global
from batche.stores.lmdb.watched import Watched, inode_of

if TYPE_CHECKING:
    from batche.stores.lmdb.place import Place

_FRESH: Final = 1.0
"""Seconds for which what is free on the file system is taken to be the same."""
LOOK: Final = 0.5
"""Seconds between two looks whether the files that are in use are still those at their paths."""
LEAVING_PATIENCE: Final = 1.0
"""Seconds that a process that ends, or closes a store, waits for its turn to make the mark."""


class OpenEnvironment:
    """An environment and the tables beside it, as this process has them open.

    ``keep`` has the mark of what is at a path made in time. `DamagedError`: they are not what was made together.
    """

    def __init__(
        self, place: Place, path: Path, *, durable: bool, persists: bool, keep: Callable[[Path], None]
    ) -> None:
        self.place = place  # kept open as long as one of its environments is
        self.path = path
        self.workers = place.workers
        self.look_at = time.monotonic() + LOOK
        """When to look again whether the files are still those at their paths, by the monotonic clock."""
        self._keep = partial(keep, path)
        self._watched = Watched(path, *(path / name for name in damage.FILES))
        self._excused = 0
        with entered_within(path) as directory:
            self.file = file_at(directory)
            self._identity = damage.find(directory)
            self.slots = slots.Slots(path, inside=directory)
            self.lanes = counts.Lanes(path, inside=directory, persists=persists)
            self.lmdb = Environment(path, durable=durable, inside=directory)
        self._verify()
        self.workers.on_lost.add(self.lanes)
        self.lmdb.abandoned = self.lanes.after_fork  # who may have been taken for dead has no lane any more
        self.mark: Mark | None = None
        if persists:
            self.mark = Mark(path, self.file, self.slots, durable=durable, changed=self._keep)
            self.lmdb.before_write = self.mark.before_write
        self.wakeups = Wakeups()
        self.looked = float("-inf")
        """When this process last looked for others that died."""
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
        table of workers taken over. A process that cannot look, as it has no descriptor left, goes on and looks later.
        """
        try:
            with as_store_error(str(self.path)):
                outdated = not self.place.look() or not self._is_there() or self._has_changed() or self._is_damaged()
        except StoreError as error:
            if not is_passing(error):
                raise
            outdated = False
        self.look_at = float("-inf") if outdated else time.monotonic() + LOOK
        return outdated

    def _is_there(self) -> bool:
        """Whether there is a directory at the path. `StoreError`: it was opened to others, or is no directory."""
        try:
            with entered(self.path):
                return True
        except FileNotFoundError:
            return False

    def _has_changed(self) -> bool:
        changed = self._watched.have_changed()
        if changed:
            self._set_aside_if_ours("a file of it was removed or replaced while it was in use")
        return changed

    def _set_aside_if_ours(self, problem: str) -> None:
        """Set aside what is at the path if it is this environment still: processes that have other files of it open
        would harm each other.
        """
        seen = inode_of(self.path)
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
            self.place.set_aside(self.path, self.file, error)
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
        if self.mark is not None and not self.mark.durable:
            self.mark.make_durable()

    def watch(self) -> None:
        """Have this process make the mark once nobody has written for 5 seconds."""
        if self.mark is not None:
            self._keep()

    def tell_counts(self) -> None:
        """Put the counts that this process keeps for want of a turn where others see them, if there is a turn soon."""
        namespaces = self.lanes.kept_namespaces()
        if namespaces:
            row, token = self.workers.row(), self.workers.token
            take = self.lanes.take
            self.lmdb.in_turn(lambda: [take(each, token, row) for each in namespaces], patience=LITTLE_PATIENCE)

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
