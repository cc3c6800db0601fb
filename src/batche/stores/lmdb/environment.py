"""One LMDB environment: opened once for each inode and process, passed through the fork gate, written in turn."""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, TypeVar

import lmdb

from batche._forks import is_mine, renew_after_fork
from batche._places import as_store_error, entered
from batche._trouble import translated
from batche.errors import StoreError
from batche.stores.base import PATIENCE, StoreBusyError, attempt
from batche.stores.lmdb import descriptors
from batche.stores.lmdb.damage import DamagedError, UnreadableError, read_format
from batche.stores.lmdb.gate import GATE, ForkedUncleanlyError, GateClosedError
from batche.stores.lmdb.lockfile import LockFile
from batche.stores.lmdb.opening import FIRST_PAGES, open_files
from batche.stores.lmdb.transaction import EpochRead, Transaction
from batche.stores.lmdb.trouble import SPENT, as_trouble

_CLOSING: Final = 1.0
"""Seconds that an environment which nobody uses any more may take to be closed before it is opened again."""
_DESCRIPTORS: Final = 3
"""What LMDB holds open: its file, the same for its meta pages, and the lock file."""
LITTLE_PATIENCE: Final = 0.25
"""Seconds that a writer waits for its turn which may be waited for by the one that has it, or has waited in vain."""
LOOK_AT_DESCRIPTORS: Final = 1.0
"""Seconds for which readers take it that nobody has closed the files; every writer looks."""
_FIRST_TRY: Final = 0.00005
_LAST_TRY: Final = 0.002

T = TypeVar("T")

_FOREIGN: Final = (GateClosedError, ForkedUncleanlyError, OSError, lmdb.Error, UnreadableError)
"""What leaves as a `StoreError`."""
_NONE_READ: Final = EpochRead(-1, b"", 0)


def _nothing() -> None:
    pass


class Environment:
    """An open environment. ``read`` and ``write`` run a function inside a transaction of its own.

    Such a function must be short and plain: no waiting, no encoding, no user's code. Values it returns are bytes;
    they are decoded outside.
    """

    def __init__(self, path: Path, *, durable: bool = False, inside: int | None = None) -> None:
        self.path = path
        self._data = path / "data.mdb"
        self.durable = durable
        self.damaged = 0
        """How often reading or writing has found the file to be wrong since it was examined."""
        self.spent = False
        """Whether it must be closed and opened again to go on."""
        self.before_write: Callable[[], object] = _nothing
        self._env: lmdb.Environment | None = None
        self._broken = ""
        self.epoch_read = _NONE_READ  # by the last read of any thread, and only for the files that are open
        self._held: descriptors.Held | None = None
        self._let_go: weakref.finalize[..., Any] | None = None  # closes what is open, where that is safe
        self._look_again = 0.0
        self.abandoned: Callable[[], object] = _nothing
        """Called once this process has given the environment up."""
        self._hasty = False  # whether the writer may be waiting for this process, or stands still
        self.file: descriptors.File | None = None
        self._gate_file = LockFile(path / "gate", inside=inside)
        self._renew()
        GATE.heirs.add(self)  # before it is open: a fork at any moment finds what it has to close
        renew_after_fork(self)
        self._open_again()

    def _renew(self) -> None:
        self._opening = RLock()
        self._turn = RLock()  # re-entrant so that an interrupted acquire can be told and undone

    def after_fork(self) -> None:
        """In a forked child. Where the fork was made by the writer's own thread, its parent may be waiting for it."""
        self._hasty = is_mine(self._turn)
        self._renew()

    def forked(self, *, clean: bool) -> None:
        """In a forked child: close what was inherited, so that the next use opens it anew; or never touch it."""
        if clean:
            self._close()
        elif self._env is not None or self._let_go is not None:
            self._give_up("this process was forked while the store was in use, and cannot use it")

    def _close(self) -> None:
        self._env = None  # first, so that nobody takes it for lost
        if self._let_go is not None:
            self._let_go()
            self._let_go = None  # only now: what an interrupt leaves open is closed before it is opened again

    def _give_up(self, reason: str) -> None:
        """Never use nor close the environment again."""
        self._broken = reason
        if self._let_go is not None:
            descriptors.keep(self._let_go.detach())
        descriptors.keep(self._env)
        self.abandoned()

    def _open(self) -> lmdb.Environment:
        if self._let_go is not None:
            GATE.alone(self._close)
        size = int(self.about()["map_size"])
        deadline = time.monotonic() + _CLOSING
        while True:
            try:
                self._env = env = GATE.through(self._opened, size)
            except (GateClosedError, ForkedUncleanlyError, OSError, lmdb.Error) as error:
                if "already open" not in str(error) or time.monotonic() > deadline:
                    raise self._trouble(error) from error
                time.sleep(_FIRST_TRY)  # another thread has just dropped the last use of it, and is closing it
            else:
                return self._taken_up(env)

    def _taken_up(self, env: lmdb.Environment) -> lmdb.Environment:
        """``env``, which was just opened, with what is to be known of it."""
        with self._errors():
            self._map_bytes = GATE.through(env.info)["map_size"]
            GATE.through(env.reader_check)
        self.epoch_read = _NONE_READ
        return env

    def _opened(self, size: int) -> lmdb.Environment:
        with self._entered() as directory:
            env = open_files(directory, size, self.path, durable=self.durable)
            self._note_files(env, directory)
            return env

    @contextmanager
    def _entered(self) -> Iterator[int]:
        """A descriptor of the directory, checked to be private and to hold the file that was opened first."""
        with entered(self.path) as directory:
            file = _file_named("data.mdb", directory)
            if self.file not in (None, file):
                raise StoreError(str(self.path), "was replaced while it was in use")
            self.file = file
            yield directory

    def _note_files(self, env: lmdb.Environment, directory: int) -> None:
        """Note under which descriptors the files are open: LMDB does not tell, nor does it look."""
        if not self._gate_file.is_open():
            self._gate_file = LockFile(self.path / "gate", inside=directory)  # no turn is held, so no lock is lost
        files = {_file_named(name, directory) for name in ("data.mdb", "lock.mdb")}
        self._held = descriptors.Held(files, _DESCRIPTORS)
        self._let_go = weakref.finalize(self, descriptors.let_go, env, env.close, self._held)
        self._let_go.atexit = False  # exiting is safe without, and closing may block

    def look(self) -> None:
        """Give the environment up for ever where its files were closed for it: it would use those of somebody else.

        While it is closed, as it is in a fork's child at first, nothing is lost, and it is opened anew at its next use.

        Raises:
            StoreError: it was given up, now or before.
        """
        self._look_again = time.monotonic() + LOOK_AT_DESCRIPTORS
        env, held = self._env, self._held
        if env is None or held is None or self._broken or (held.are_open() and self._gate_file.is_open()):
            self._check()
        elif self._env is env:  # else it was closed, or opened anew, beside this look
            self._give_up(
                "cannot be used any more by this process, in which somebody closed its files (os.closerange, as "
                "daemons do): close files before the first call, or in a forked child before its first"
            )
            descriptors.make_immortal(env)
            self._check()

    def _check(self) -> None:
        if self._broken:
            raise StoreError(str(self.path), self._broken)

    def about(self) -> dict[str, Any]:
        """What was written down when the environment was made."""
        try:
            with as_store_error(str(self.path)), self._entered() as directory:
                return read_format(directory)
        except DamagedError as error:
            raise error.at(self.path) from error

    def _handle(self) -> lmdb.Environment:
        self._check()
        return self._env or self._open_again()

    def _open_again(self) -> lmdb.Environment:
        with self._opening:
            return self._env or self._open()

    def _trouble(self, error: Exception) -> StoreError:
        """What ``error`` leaves as. What it says of the file is kept for whoever looks into it."""
        trouble = as_trouble(self.path, error)
        if isinstance(trouble, DamagedError) and trouble is not error:
            self.damaged += 2 if isinstance(error, UnreadableError) else 1
        self.spent |= isinstance(error, SPENT)
        return trouble

    def _errors(self) -> translated:
        return translated(_FOREIGN, self._trouble)

    def read(self, body: Callable[..., T], *arguments: Any) -> T:
        """Run ``body(*arguments, transaction)`` in a read transaction. Waits for no writer."""
        if time.monotonic() > self._look_again:
            self.look()
        env = self._env if self._env is not None and not self._broken else self._handle()
        try:
            return GATE.through(_read, env, body, arguments)
        except lmdb.ReadersFullError:
            self.check_readers()
            with self._errors():
                return GATE.through(_read, env, body, arguments)
        except (GateClosedError, ForkedUncleanlyError, lmdb.Error, UnreadableError) as error:
            if self._env is env or not isinstance(error, lmdb.Error):
                raise self._trouble(error) from error
            with self._errors():  # it was closed beside this call
                return GATE.through(_read, self._handle(), body, arguments)

    def ask(self, question: Callable[[lmdb.Environment], T]) -> T:
        """What LMDB says of the environment itself."""
        env = self._handle()
        with self._errors():
            return GATE.through(question, env)

    def empty_bytes(self) -> int:
        """The bytes of the file that nothing is in: what a transaction may use without making it grow."""
        stat = self.ask(lmdb.Environment.stat)
        with self._errors():
            size = os.stat(self._data).st_size
        used = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] + FIRST_PAGES
        return int(size - used * stat["psize"])

    def map_bytes_left(self) -> int:
        """By how many bytes the file may grow before the map is full."""
        self._handle()
        with self._errors():
            return self._map_bytes - os.stat(self._data).st_size

    def check_readers(self) -> None:
        """Free the reader slots of the dead, and so the pages that these keep from being used again."""
        self.look()  # with another file's locks it would take every reader for dead
        env = self._handle()
        with self._errors():
            GATE.through(env.reader_check)

    def write(
        self,
        body: Callable[[Transaction], T],
        *,
        after: Callable[[T], object],
        undo: Callable[[], object] = _nothing,
        before: Callable[[], object] = _nothing,
        patience: float = PATIENCE,
    ) -> T:
        """Run ``body`` in a write transaction of its own, after at most ``patience`` seconds of waiting for a turn.

        ``before`` is called once it is this one's turn, and may raise to leave all as it is. ``after`` is called with
        what ``body`` returned once that is committed, or ``undo`` once it is known that nothing was, and before another
        writer's turn. `StoreFullError`: there is no room for what was to be written.
        """

        def inside() -> T:
            before()
            self.before_write()
            result = GATE.through(_write, self._handle(), body, undo)
            after(result)
            return result

        return self.in_turn(inside, patience=patience)

    def in_turn(self, body: Callable[[], T], *, patience: float = PATIENCE) -> T:
        """Run ``body`` as the only writer of all processes, after at most ``patience`` seconds of waiting for it."""
        self.look()
        turn = self._turn  # a signal handler that forks leaves the child of the fork with another
        with self._errors():
            if is_mine(turn):
                raise GateClosedError("this thread is already writing (a signal handler or a finaliser)")
            self._handle()  # before the gate's file is locked: opening sees to it that it is the gate's
            try:
                try:
                    self._take(turn, min(patience, LITTLE_PATIENCE) if self._hasty else patience)
                    self._hasty = False
                    return body()
                finally:
                    self._give_back(turn)
            finally:
                self._give_back(turn)  # again, because a signal handler may have raised in the midst of it

    def _take(self, turn: Any, patience: float) -> None:
        """Become the only writer. The wait ends after ``patience`` seconds, or by a signal handler that raises."""
        seconds = 0.0 if attempt else patience
        deadline = time.monotonic() + seconds
        if not turn.acquire(timeout=seconds):
            raise self._busy("no turn to write within", patience)
        self._lock_gate_file(deadline, patience)

    def _busy(self, what: str, patience: float) -> StoreError:
        """What to raise after a wait: another error where all of ``patience`` was spent in attempts."""
        over = attempt.waited >= patience if attempt else True
        self._hasty |= over and patience > LITTLE_PATIENCE
        problem = f"is busy: {what} {patience:g} s; have a process that stands still (stopped, frozen) go on, or end it"
        return (StoreError if over and attempt else StoreBusyError)(str(self.path), problem)

    def _give_back(self, turn: Any) -> None:
        """Let the next one write, if this thread is the writer."""
        if is_mine(turn):
            if self._gate_file.is_open():
                fcntl.lockf(self._gate_file.descriptor, fcntl.LOCK_UN)
            turn.release()

    def _lock_gate_file(self, deadline: float, patience: float) -> None:
        """Take the lock that stands in front of LMDB's own, whose wait can neither end nor be interrupted."""
        delay = _FIRST_TRY
        while True:
            try:
                fcntl.lockf(self._gate_file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    raise self._busy("another process has been writing for", patience) from None
            time.sleep(delay)
            delay = min(2 * delay, _LAST_TRY)

    def make_durable(self) -> None:
        """From here on commit with fsync.

        Raises:
            StoreError: it is in use, and cannot be opened anew for this.
        """
        with self._opening:
            try:
                self.durable = True
                self.close()
            finally:
                self.durable = self._env is None
            if not self.durable:
                raise StoreError(str(self.path), "is in use, and was not opened with durable=True: open it so first")

    def close(self) -> None:
        """Close the environment in this process, unless it is in use for too long. The next use opens it again."""
        with self._opening:
            if GATE.alone(self._close):
                self.spent = False


def _read(env: lmdb.Environment, body: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    transaction = env.begin()
    try:
        return body(*arguments, transaction)
    finally:
        transaction.abort()  # what `with` does for a read, at a twentieth less of a hit


def _write(env: lmdb.Environment, body: Callable[[Transaction], T], undo: Callable[[], object]) -> T:
    number = 0
    try:
        with env.begin(write=True) as transaction:
            number = transaction.id()
            return body(transaction)
    except BaseException:
        if number > env.info()["last_txnid"]:  # else an interrupt came when it was committed already
            undo()
        raise


def _file_named(name: str, directory: int) -> descriptors.File:
    return descriptors.file_in(os.stat(name, dir_fd=directory, follow_symlinks=False))
