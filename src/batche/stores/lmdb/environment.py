"""One LMDB environment: opened once for each inode and process, passed through the fork gate, written in turn."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import lmdb

from batche._places import as_store_error, entered
from batche._process import renew_after_fork
from batche.errors import StoreError
from batche.stores.base import PATIENCE, StoreBusyError, attempt
from batche.stores.lmdb.damage import FORMAT, LOCK_BYTES, DamagedError, UnreadableError, read_format
from batche.stores.lmdb.gate import GATE, ForkedUncleanlyError, GateClosedError
from batche.stores.lmdb.lockfile import LockFile
from batche.stores.lmdb.records import IDENTITY
from batche.stores.lmdb.words import allocate

MAP_BYTES: Final = 64 << 30
"""Address space, not room: it is fixed at creation, because resizing a shared map breaks other processes."""
_FIRST_MAP: Final = 1 << 20
READERS: Final = 1022
"""As many as fit in a lock file of `LOCK_BYTES`."""
_CLOSING: Final = 1.0
"""Seconds that an environment which nobody uses any more may take to be closed before it is opened again."""
_FIRST_TRY: Final = 0.00005
_LAST_TRY: Final = 0.002

T = TypeVar("T")


_DAMAGE: Final = (
    UnreadableError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)
"""What says that the file itself is wrong."""
_SPENT: Final = (lmdb.PanicError, lmdb.BadTxnError)
"""What says that this process cannot use the file as it has it open: it may be fine when it is opened again."""


class Transaction(Protocol):
    """The part of an LMDB transaction that is used here."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def put(self, key: bytes, value: bytes, /, *, overwrite: bool = True) -> bool: ...

    def pop(self, key: bytes, /) -> bytes | None: ...

    def delete(self, key: bytes, /) -> bool: ...

    def cursor(self) -> Any: ...

    def id(self) -> int: ...


class EpochRead(NamedTuple):
    """A namespace's epoch as of a transaction's number: the same for every other that reads the same commit."""

    transaction: int
    namespace: bytes
    epoch: int


_NONE_READ: Final = EpochRead(-1, b"", 0)


class Environment:
    """An open environment. ``read`` and ``write`` run a function inside a transaction of its own.

    Such a function must be short and plain: no waiting, no encoding, no user's code. Values it returns are bytes;
    they are decoded outside.
    """

    def __init__(self, path: Path, *, durable: bool = False, inside: int | None = None) -> None:
        self.path = path
        self.durable = durable
        self.damaged = 0
        """How often reading or writing has found the file to be wrong since it was examined."""
        self.spent = False
        """Whether it must be closed and opened again to go on."""
        self._env: lmdb.Environment | None = None
        self._broken = ""
        self.epoch_read = _NONE_READ  # by the last read of any thread, and only for the files that are open
        self._file: tuple[int, int] | None = None
        self._gate_file = LockFile(path / "gate", inside=inside)
        self._renew()
        GATE.heirs.add(self)  # before it is open: a fork at any moment finds what it has to close
        renew_after_fork(self)
        self._open_again()

    def _renew(self) -> None:
        self._opening = RLock()
        self._turn = RLock()  # re-entrant so that an interrupted acquire can be told and undone

    after_fork = _renew

    def forked(self, *, clean: bool) -> None:
        """In a forked child: close what was inherited, so that the next use opens it anew; or never touch it."""
        if not clean:
            self._broken = "this process was forked while the store was in use, and cannot use it"
        elif self._env is not None:
            self._env.close()
            self._env = None

    def _open(self) -> lmdb.Environment:
        size = int(self.about()["map_size"])
        deadline = time.monotonic() + _CLOSING
        while True:
            try:
                self._env = env = GATE.through(self._opened, size)
            except lmdb.MemoryError:
                size //= 2  # an address space limit (ulimit -v); what is there still has to fit
            except (GateClosedError, ForkedUncleanlyError, lmdb.Error) as error:
                if "already open" not in str(error) or time.monotonic() > deadline:
                    raise self._trouble(error) from error
                time.sleep(_FIRST_TRY)  # another thread has just dropped the last use of it, and is closing it
            else:
                return env

    def _opened(self, size: int) -> lmdb.Environment:
        with self._entered() as directory:
            env = _open_lmdb(directory, size, self.path, durable=self.durable)
            env.reader_check()
            self.epoch_read = _NONE_READ
            return env

    @contextmanager
    def _entered(self) -> Iterator[int]:
        """A descriptor of the directory, checked to be private and to hold the file that was opened first."""
        with as_store_error(str(self.path)), entered(self.path) as directory:
            status = os.stat("data.mdb", dir_fd=directory, follow_symlinks=False)
            file = (status.st_dev, status.st_ino)
            if self._file not in (None, file):
                raise StoreError(str(self.path), "was replaced while it was in use")
            self._file = file
            yield directory

    def about(self) -> dict[str, Any]:
        """What was written down when the environment was made."""
        try:
            with self._entered() as directory:
                return read_format(directory)
        except DamagedError as error:
            raise error.at(self.path) from error

    def _handle(self) -> lmdb.Environment:
        if self._broken:
            raise StoreError(str(self.path), self._broken)
        return self._env or self._open_again()

    def _open_again(self) -> lmdb.Environment:
        with self._opening:
            return self._env or self._open()

    def _trouble(self, error: Exception) -> StoreError:
        self.damaged += 2 if isinstance(error, UnreadableError) else isinstance(error, _DAMAGE)
        self.spent |= isinstance(error, _SPENT)
        kind = DamagedError if isinstance(error, _DAMAGE) else StoreError
        remedy = "; it may be damaged: it is set aside if this is so, or delete it" if kind is DamagedError else ""
        return kind(str(self.path), f"{type(error).__name__}: {error}{remedy}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (GateClosedError, ForkedUncleanlyError, OSError, lmdb.Error, UnreadableError) as error:
            raise error if isinstance(error, StoreError) else self._trouble(error) from error

    def read(self, body: Callable[..., T], *arguments: Any) -> T:
        """Run ``body(*arguments, transaction)`` in a read transaction. Waits for no writer."""
        env = self._env if self._env is not None and not self._broken else self._handle()
        try:
            return GATE.through(_read, env, body, arguments)
        except lmdb.ReadersFullError:
            with self._errors():
                GATE.through(env.reader_check)
                return GATE.through(_read, env, body, arguments)
        except (GateClosedError, ForkedUncleanlyError, lmdb.Error, UnreadableError) as error:
            if self._env is env or not isinstance(error, lmdb.Error):
                raise self._trouble(error) from error
            with self._errors():  # it was closed beside this call
                return GATE.through(_read, self._handle(), body, arguments)

    def write(self, body: Callable[[Transaction], T], *, after: Callable[[T], object], patience: float = PATIENCE) -> T:
        """Run ``body`` in a write transaction of its own, after at most ``patience`` seconds of waiting for a turn.

        ``after`` is called with what it returned once that is committed, and before another writer's turn.
        """
        turn = self._turn  # a signal handler that forks leaves the child of the fork with another
        with self._errors():
            if _is_mine(turn):
                raise GateClosedError("this thread is already writing (a signal handler or a finaliser)")
            try:
                try:
                    self._take(turn, patience)
                    result = GATE.through(_write, self._handle(), body)
                    after(result)
                    return result
                finally:
                    self._give_back(turn)
            finally:
                self._give_back(turn)  # again, because a signal handler may have raised in the midst of it

    def _take(self, turn: Any, patience: float) -> None:
        """Become the only writer. The wait ends after ``patience`` seconds, or by a signal handler that raises."""
        patience = 0.0 if attempt else patience
        deadline = time.monotonic() + patience
        if not turn.acquire(timeout=patience):
            raise StoreBusyError(str(self.path), f"is busy: no turn to write within {patience:g} s")
        self._lock_gate_file(deadline, patience)

    def _give_back(self, turn: Any) -> None:
        """Let the next one write, if this thread is the writer."""
        if _is_mine(turn):
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
                    raise StoreBusyError(
                        str(self.path), f"is busy: another process has been writing for {patience:g} s"
                    ) from None
            time.sleep(delay)
            delay = min(2 * delay, _LAST_TRY)

    def sync(self) -> None:
        """Have the operating system write all committed entries to the disk."""
        env = self._handle()
        with self._errors():
            GATE.through(env.sync, True)

    def close(self) -> None:
        """Close the environment in this process, unless it is in use for too long. The next use opens it again."""
        with self._opening, GATE.alone() as nobody_inside:
            if nobody_inside and self._env is not None:
                self._env.close()
                self._env = None
                self.spent = False


def _read(env: lmdb.Environment, body: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    transaction = env.begin()
    try:
        return body(*arguments, transaction)
    finally:
        transaction.abort()  # what `with` does for a read, at a twentieth less of a hit


def _write(env: lmdb.Environment, body: Callable[[Transaction], T]) -> T:
    with env.begin(write=True) as transaction:
        return body(transaction)


def _is_mine(turn: Any) -> bool:
    return bool(turn._is_owned())  # as Condition does


def _open_lmdb(directory: int, size: int, path: Path, *, durable: bool) -> lmdb.Environment:
    """Open the files in ``directory``, whatever its ``path`` leads to by now.

    LMDB wants a path: on Linux that of the descriptor. Elsewhere the path is looked at before and after, and what
    remains is somebody who can rename the directory, and does so twice in between.
    """
    name = f"/proc/self/fd/{directory}"
    by_descriptor = os.path.exists(name)
    env = lmdb.open(
        name if by_descriptor else str(path),
        map_size=size,
        create=False,
        mode=0o600,
        sync=durable,
        metasync=durable,
        max_readers=READERS,
        max_spare_txns=0,
        lib_version=0,
    )
    if not by_descriptor and not os.path.samestat(os.fstat(directory), path.lstat()):
        env.close()
        raise StoreError(str(path), "was replaced while it was being opened")
    return env


def _make_data(path: Path, identity: int, directory: int) -> None:
    with _open_lmdb(directory, _FIRST_MAP, path, durable=False) as env, env.begin(write=True) as transaction:
        transaction.put(IDENTITY, identity.to_bytes(8, "big"))


def make(path: Path, identity: int, directory: int, **about: Any) -> None:
    """Make the files of a new environment in its empty ``directory``. The caller has it to itself.

    What is mapped is allocated in full first: opening on a full file system would be SIGBUS, this is an error.
    """
    about = {"format": FORMAT, "identity": identity, "map_size": MAP_BYTES, **about}
    allocate(path / "lock.mdb", LOCK_BYTES, inside=directory)
    allocate(path / "gate", 1, inside=directory)
    try:
        GATE.through(_make_data, path, identity, directory)
    except (GateClosedError, ForkedUncleanlyError, lmdb.Error) as error:
        raise StoreError(str(path), f"cannot be made: {error}") from error
    draft = os.open("format", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with open(draft, "wb") as file:  # text would import a codec: not fork-safe
        file.write(json.dumps(about).encode())
