"""A thread that does for a process what is due some time after a write. There is none while nothing is.

It holds nothing but paths: neither a store nor an interpreter stays alive for it. It ends before each fork and begins
again after it, so that nobody forks from a process with one thread more than he started.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import TIMEOUT_MAX, Condition, RLock, Thread, current_thread
from typing import Final, TypeAlias

from batche._forks import Fork, Order

Look: TypeAlias = Callable[[Path], float | None]
"""Does what is due for a path; returns the seconds after which it wants to be called again, `None` for never."""
_LONGEST_WAIT_OF_A_FORK: Final = 0.1
_BEING_LOOKED_AT: Final = float("inf")


class Keeper:
    """Calls ``look`` for each path, when that is due. Thread-safe; a forked child begins with none."""

    order = Order.THREADS  # its thread may want any lock

    def __init__(self, look: Look) -> None:
        self._look = look
        self.after_fork()

    def after_fork(self) -> None:
        self._pid = os.getpid()
        self._lock = RLock()  # re-entrant: a signal handler may watch at any point
        self._changed = Condition(self._lock)  # which is not entered itself: a handler that raises may leave it locked
        self._due: dict[Path, float] = {}
        self._thread: Thread | None = None

    def watch(self, path: Path, seconds: float) -> None:
        """Have ``path`` looked at within ``seconds``, and then for as long as that wants to be."""
        with self._lock:
            due = time.monotonic() + seconds
            self._due[path] = min(due, self._due.get(path, due))
            self._begin()
            self._changed.notify_all()

    def paths(self) -> list[Path]:
        """What is watched; nothing in a child that was forked without Python's hooks."""
        with self._lock:
            return list(self._due) if self._pid == os.getpid() else []

    def _begin(self) -> None:
        """Have a thread, also where a signal handler raised while one was being started."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = thread = Thread(target=self._run, name="batche-keeper", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or may have no more threads
            self._thread = None

    def _run(self) -> None:
        while (path := self._next()) is not None:
            seconds = self._look(path)
            with self._lock:
                if seconds is None and self._due.get(path) == _BEING_LOOKED_AT:
                    del self._due[path]
                elif seconds is not None:
                    self._due[path] = min(time.monotonic() + seconds, self._due.get(path, _BEING_LOOKED_AT))
                self._changed.notify_all()  # a fork may have put another thread in the place of this one

    def _next(self) -> Path | None:
        """The path that is due, once one is; `None` where this thread shall end."""
        with self._lock:
            while self._thread is current_thread():
                if not self._due:
                    self._thread = None
                    break
                path = min(self._due, key=self._due.__getitem__)
                left = self._due[path] - time.monotonic()
                if left <= 0:
                    self._due[path] = _BEING_LOOKED_AT
                    return path
                self._changed.wait(min(left, TIMEOUT_MAX))
        return None

    def before_fork(self, fork: Fork) -> None:
        """End the thread. One that waits for the disk goes on and ends later: it holds nothing that a child needs."""
        fork.undo += [self._go_on]
        thread, self._thread = self._thread, None
        if thread is not None and thread is not current_thread():
            with self._lock:
                self._changed.notify_all()
            with contextlib.suppress(RuntimeError):  # a signal handler forks while it is being started
                thread.join(_LONGEST_WAIT_OF_A_FORK)

    def _go_on(self) -> None:
        with self._lock:
            if self._due:
                self._begin()
