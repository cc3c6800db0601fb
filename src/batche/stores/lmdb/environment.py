"""One LMDB environment: opened once for each inode and process, passed through the fork gate, written in turn."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import lmdb

from batche._process import renew_after_fork
from batche.errors import StoreError
from batche.stores.base import PATIENCE, StoreBusyError, attempt
from batche.stores.lmdb.gate import GATE, ForkedUncleanlyError, GateClosedError
from batche.stores.lmdb.lockfile import LockFile
from batche.stores.lmdb.words import allocate

FORMAT: Final = 1
"""The version of all that is written in an environment's directory."""
MAP_BYTES: Final = 64 << 30
"""Address space, not room: it is fixed at creation, because resizing a shared map breaks other processes."""
READERS: Final = 1022
"""As many as fit in a lock file of `LOCK_BYTES`."""
LOCK_BYTES: Final = 1 << 16
_CLOSING: Final = 1.0
"""Seconds that an environment which nobody uses any more may take to be closed before it is opened again."""
_FIRST_TRY: Final = 0.00005
_LAST_TRY: Final = 0.002

T = TypeVar("T")


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

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self.durable = durable
        self._env: lmdb.Environment | None = None
        self._broken = ""
        self.epoch_read = _NONE_READ  # by the last read of any thread, and only for the files that are open
        self._gate_file = LockFile(path / "gate")
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
        env = lmdb.open(
            str(self.path),
            map_size=size,
            create=True,
            mode=0o600,
            sync=self.durable,
            metasync=self.durable,
            max_readers=READERS,
            max_spare_txns=0,
            lib_version=0,
        )
        env.reader_check()
        self.epoch_read = _NONE_READ
        return env

    def about(self) -> dict[str, Any]:
        """What was written down when the environment was made."""
        try:
            about: dict[str, Any] = json.loads((self.path / "format").read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(
                str(self.path), f"is not a store, or is damaged ({error}); delete the directory"
            ) from error
        if about.get("format") != FORMAT:
            raise StoreError(str(self.path), f"was written by another version of batche (format {about.get('format')})")
        return about

    def _handle(self) -> lmdb.Environment:
        if self._broken:
            raise StoreError(str(self.path), self._broken)
        return self._env or self._open_again()

    def _open_again(self) -> lmdb.Environment:
        with self._opening:
            return self._env or self._open()

    def _trouble(self, error: Exception) -> StoreError:
        return StoreError(str(self.path), f"{type(error).__name__}: {error}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (GateClosedError, ForkedUncleanlyError, OSError, lmdb.Error) as error:
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
        except (GateClosedError, ForkedUncleanlyError, lmdb.Error) as error:
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

    def check_readers(self) -> None:
        """Free the places of readers that were killed: one in a read keeps every page that is freed after it."""
        env = self._handle()
        with self._errors():
            GATE.through(env.reader_check)

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


def make(path: Path, **about: Any) -> None:
    """Make the files of a new environment in an empty or half-made directory. The caller has it to itself.

    What is mapped is allocated in full first: opening on a full file system would be SIGBUS, this is an error.
    """
    try:
        allocate(path / "lock.mdb", LOCK_BYTES)
        allocate(path / "gate", 1)
        written = json.dumps({"format": FORMAT, "map_size": MAP_BYTES, **about})
        draft = path / "format.new"
        draft.write_text(written)
        draft.rename(path / "format")
    except OSError as error:
        raise StoreError(str(path), f"cannot be made: {error}") from error
