"""Who lives: a table of the processes that share a place, and a word for each call that holds claims.

A process holds a row by `fcntl.lockf` on one byte of a lock file: the kernel drops the lock when the process
dies, whatever killed it, and does not give it to a forked child. The row has the process's random token and a
word for each of its running calls. A claim names row, token and word, and holds while all three do. So a call
ends all its claims by one 8-byte store.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import RLock
from typing import Final
from weakref import WeakSet

from batche._boot import random_word
from batche._forks import Forkable, renew_after_fork
from batche.errors import StoreError
from batche.stores.lmdb.damage import check_file
from batche.stores.lmdb.lockfile import LockFile
from batche.stores.lmdb.words import WORD, Words, allocate

FILES: Final = ("workers", "workers.lock")
ROWS: Final = 1024
ROW_WORDS: Final = 64
_LEAVING: Final = 5
FIRST_CALL: Final = 8
"""Words of a row before those of its calls: token (2), pid, start time, PID namespace, leaving, and two spare."""
TABLE_BYTES: Final = ROWS * ROW_WORDS * WORD
ABANDONED: Final = 1 << 63
"""Set in the word of a call that ended without seeing an outcome: for its waiters it is dead."""
_PF_EXITING: Final = 0x4
_FLAGS, _STARTED = 6, 19
"""Fields of a ``/proc`` stat file, counted from behind the command's name."""
_LINUX: Final = sys.platform == "linux"
_FLOCK: Final = struct.Struct("hhqqi4x" if sys.platform == "linux" else "qqihh")


class State(Enum):
    """What became of a call."""

    RUNNING = "running"
    ENDED = "ended"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a call is written down: what a claim of it carries."""

    row: int
    word: int
    serial: int
    token: tuple[int, int]


class Workers:
    """The table of one place, as this process sees it. Thread-safe; a forked child has no row until it needs one."""

    def __init__(self, directory: Path, *, inside: int | None = None) -> None:
        self._directory = directory
        self._open(inside)
        self._mutex = RLock()  # re-entrant: a signal handler may begin a call at any point
        self.on_lost: WeakSet[Forkable] = WeakSet()
        """What belongs to this process's rows, and is to be begun anew with them."""
        self._reset()
        renew_after_fork(self)

    def _open(self, inside: int | None) -> None:
        words = Words(self._directory / "workers", inside=inside).view
        self._locks = LockFile(self._directory / "workers.lock", inside=inside)
        self._words = words

    def renew(self, inside: int | None = None) -> None:
        """Go over to a table that took the place of this one, with another token: calls that run now hold no claims."""
        with self._mutex:
            self._open(inside)
            self._reset()
        self._tell_lost()

    def _tell_lost(self) -> None:
        for lost in list(self.on_lost):
            lost.after_fork()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self.token = (random_word(), random_word())
        self._rows: list[int] = []
        self._free: deque[int] = deque()  # first in, first out: a word rests as long as it can before it is used again
        self._serials = itertools.count(1)

    def after_fork(self) -> None:
        self._mutex = RLock()
        self._reset()

    # ---- this process ----

    def row(self) -> int:
        """The number of a row of this process; takes one if it has none.

        `StoreError` in a child that was forked without Python's hooks: the rows are its parent's.
        """
        if self._pid != os.getpid():
            raise StoreError(
                str(self._directory), "cannot be used by a process that was forked without Python's fork hooks"
            )
        self.look()
        if not self._rows:
            with self._mutex:
                if not self._rows:
                    self._take_row()
        return self._rows[0]

    def look(self) -> None:
        """Begin anew where somebody has closed the lock file for us, and so told the others that this process died."""
        if not self._locks.is_open():
            with self._mutex:
                if not self._locks.is_open():
                    self._open(None)  # both files: the one that is there may be another table's
                    self._reset()
            self._tell_lost()

    def begin(self) -> Handle:
        """Write down a call that is about to claim."""
        self.row()
        index = self._free_word()
        serial = next(self._serials)
        self._words[index] = serial
        return Handle(index // ROW_WORDS, index, serial, self.token)

    def _free_word(self) -> int:
        while True:
            try:
                return self._free.popleft()
            except IndexError:
                with self._mutex:
                    if not self._free:
                        self._take_row()

    def end(self, handle: Handle, *, abandoned: bool = False) -> None:
        """End a call and so all its claims. Of a call that another process began (a fork's copy) it ends nothing."""
        if handle.token == self.token and self._words[handle.word] == handle.serial:  # the second time does nothing
            self._words[handle.word] = handle.serial | ABANDONED if abandoned else 0
            self._free.append(handle.word)

    def _take_row(self) -> None:
        for row in range(ROWS):
            if row not in self._rows and self._lock(row):
                self._write_row(row)
                self._rows.append(row)
                self._free.extend(range(row * ROW_WORDS + FIRST_CALL, (row + 1) * ROW_WORDS))
                return
        problem = f"has no room for another process: {ROWS} rows are in use; give some of them a store= of their own"
        raise StoreError(str(self._directory), problem)

    def _lock(self, row: int) -> bool:
        try:
            fcntl.lockf(self._locks.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True

    def _write_row(self, row: int) -> None:
        start = row * ROW_WORDS
        for index in range(start, start + ROW_WORDS):
            self._words[index] = 0
        self._words[start + 2] = os.getpid()
        self._words[start + 3] = _start_time(os.getpid())
        self._words[start + 4] = pid_namespace()
        self._words[start], self._words[start + 1] = self.token

    # ---- others ----

    def state(self, handle: Handle) -> State:
        """What became of the call that ``handle`` stands for."""
        word = self._words[handle.word] if handle.word < len(self._words) else 0
        if self._token_of(handle.row) != handle.token:
            return State.DEAD  # rows change hands only by death or leaving
        if word == handle.serial | ABANDONED:
            return State.DEAD
        if word != handle.serial:
            return State.ENDED
        return State.RUNNING if self.alive(handle.row, handle.token) else State.DEAD

    def alive(self, row: int, token: tuple[int, int]) -> bool:
        """Whether the process that holds ``row`` under ``token`` lives."""
        if token == self.token:
            return True
        return self._token_of(row) == token and self._is_locked(row) and not self._is_exiting(row)

    def leave(self) -> None:
        """Say that this process is about to end."""
        for row in self._rows if self._pid == os.getpid() else ():
            self._words[row * ROW_WORDS + _LEAVING] = 1

    def stays(self, row: int, token: tuple[int, int]) -> bool:
        """Whether another process holds ``row`` under ``token``, and is not about to end."""
        return token != self.token and self.alive(row, token) and not self._words[row * ROW_WORDS + _LEAVING]

    def others_live(self) -> bool:
        """Whether another process has a row: then the system has not gone down since."""
        return self._is_locked(0, ROWS)

    def _token_of(self, row: int) -> tuple[int, int]:
        """The token in a row; nobody's for a row that there is not, as a damaged record may name."""
        if row >= ROWS:
            return 0, 0
        start = row * ROW_WORDS
        return self._words[start], self._words[start + 1]

    def _is_locked(self, row: int, rows: int = 1) -> bool:
        self.look()  # the locks of another file would tell that everybody is dead
        ask = _pack_flock(row, rows)
        return _lock_type(fcntl.fcntl(self._locks.descriptor, fcntl.F_GETLK, ask)) != fcntl.F_UNLCK

    def _is_exiting(self, row: int) -> bool:
        """Whether the kernel is taking the process apart: its lock may take half a second to drop, by its memory."""
        start = row * ROW_WORDS
        pid, started, namespace = (self._words[start + i] for i in (2, 3, 4))
        if not (_LINUX and started and namespace and namespace == pid_namespace()):
            return False
        try:
            return is_exiting(pid, started)
        except OSError:  # it cannot be looked at, for want of a descriptor say: then the lock alone tells
            return False


def _pack_flock(row: int, rows: int) -> bytes:
    if _LINUX:
        return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, row, rows, 0)
    return _FLOCK.pack(row, rows, 0, fcntl.F_WRLCK, os.SEEK_SET)


def _lock_type(answer: bytes) -> int:
    fields = _FLOCK.unpack(answer)
    return int(fields[0] if _LINUX else fields[3])


def pid_namespace() -> int:
    """The inode of this process's PID namespace; 0 where there is none, or where ``/proc`` tells of another one's pids.

    So it is after ``unshare --pid`` without a ``/proc`` of its own: there a pid means somebody else, or nobody.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return 0
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _stat_fields(path: str) -> list[bytes] | None:
    """The fields of a ``/proc`` stat file after the command's name, which may hold anything; `None`: it is not there.

    Raises:
        OSError: it cannot be read, which says nothing of the process.
    """
    try:
        with open(path, "rb") as file:  # text would import a codec, and a fork meanwhile hang
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _start_time(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 where nobody can tell."""
    try:
        fields = _stat_fields(f"/proc/{pid}/stat")
    except OSError:
        return 0
    return int(fields[_STARTED]) if fields else 0


def is_exiting(pid: int, started: int) -> bool:
    """Whether every task of process ``pid`` that began at ``started`` is exiting, or it is gone.

    Raises:
        OSError: that cannot be told.
    """
    fields = _stat_fields(f"/proc/{pid}/stat")
    if fields is None:
        return os.path.exists("/proc/self/stat")
    if int(fields[_STARTED]) != started:
        return True
    return _exits(fields) and all(map(_exits, _tasks(pid)))


def _exits(fields: list[bytes]) -> bool:
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def _tasks(pid: int) -> Iterator[list[bytes]]:
    """The stat fields of each task of a process that is still there."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return
    for task in tasks:
        fields = _stat_fields(f"/proc/{pid}/task/{task}/stat")
        if fields is not None:
            yield fields


def check(directory: int) -> str | None:
    """What is wrong with the files of the table in ``directory``; they are not opened, and any content will do."""
    return check_file(directory, "workers", TABLE_BYTES) or check_file(directory, "workers.lock", 0)


def new_table(directory: Path, *, inside: int | None = None) -> None:
    """Make the table of a new place."""
    allocate(directory / "workers", TABLE_BYTES, inside=inside)
    allocate(directory / "workers.lock", ROWS, inside=inside)
