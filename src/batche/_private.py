"""The entries of private functions, which go with the function: those of each decoration that no name can find.

A function that is collected is noted, and its entries are removed by the next call of any function that has to
compute, by the next private function that comes into use, or when the process leaves the runtime place. What is left
then of functions that this process made, or whose maker has ended, goes as well.

Limit: of processes that are killed the entries stay until the whole place goes.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

from batche import _runtime
from batche._process import renew_after_fork
from batche.errors import StoreError

RETRY: Final = 1.0
"""Seconds until what could not be removed is tried again."""


class Forgetful(Protocol):
    """The store of all private functions of the runtime place."""

    def forget(self, namespace: bytes, /) -> bool:
        """Remove all that is kept for ``namespace``, unless another living process counts in it; whether it is gone."""
        ...


Open: TypeAlias = Callable[[], Forgetful | None]
"""Opens it; `None` where nobody has made it yet."""


class Private:
    """What this process knows of its private functions; a forked child begins with none."""

    def __init__(self, opens: Open) -> None:
        self._open = opens
        self._leaves = False
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.orphans: deque[bytes] = deque()
        self._again = 0.0  # when to look again at those that a child still counts in, by the monotonic clock
        self.used: dict[bytes, int] = {}
        """The namespaces that were used here, and the pids of their makers."""

    def use(self, namespace: bytes, maker: int) -> None:
        """Note that the function of ``namespace``, which process ``maker`` decorated, is used here."""
        self.used[namespace] = maker
        if not self._leaves:
            self._leaves = True
            _runtime.on_leave(self.leave)

    def orphan(self, namespace: bytes, maker: int) -> None:
        """Note that a function was collected. Called by the collector: only notes it.

        Only in the process that decorated it: the copies of its children come and go with their tasks.
        """
        if os.getpid() == maker:
            self.orphans.append(namespace)

    def is_due(self) -> bool:
        """Whether there are some to `discard`."""
        return bool(self.orphans) and time.monotonic() >= self._again

    def discard(self) -> None:
        """Remove the entries of functions that were collected, but of those that a child still counts in."""
        namespaces = []
        with suppress(IndexError):  # another thread may take some of them
            while True:
                namespaces.append(self.orphans.popleft())
        kept = [namespace for namespace in namespaces if not self._forget(namespace)]
        self.orphans.extend(kept)
        self._again = time.monotonic() + RETRY if kept else 0.0
        for namespace in set(namespaces).difference(kept):
            self.used.pop(namespace, None)

    def leave(self) -> None:
        """Before this process leaves its place: remove what nobody will use again."""
        used, self.used = self.used, {}  # first, because opening the store may come to leave as well
        for namespace, maker in used.items():
            if not (_has_ended(maker) and self._forget(namespace)):
                self.used[namespace] = maker

    def _forget(self, namespace: bytes) -> bool:
        try:
            store = self._open()
            return store is None or store.forget(namespace)
        except StoreError:
            return False  # what is left does no harm, and goes with the place


def _has_ended(maker: int) -> bool:
    """Whether a process is gone, or is this one, which is about to go."""
    if maker == os.getpid():
        return True
    try:
        os.kill(maker, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
