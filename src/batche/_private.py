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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

from batche import _runtime
from batche._forks import renew_after_fork
from batche.errors import StoreError
from batche.stores.base import attempt

RETRY: Final = 1.0
"""Seconds until what could not be removed is tried again, and for which a process that leaves removes."""
SHARE: Final = 0.02
"""Seconds that a call spends on the entries of other functions."""


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
            _runtime.on_leave(self.leave)
            self._leaves = True

    def orphan(self, namespace: bytes, maker: int) -> None:
        """Note that a function was collected. Called by the collector: only notes it.

        Only in the process that decorated it: the copies of its children come and go with their tasks.
        """
        if os.getpid() == maker:
            self.orphans.append(namespace)

    def may_discard(self) -> bool:
        """Whether there are some to `discard`, for the one thread or task that then does it."""
        if not self.orphans or time.monotonic() < self._again:
            return False
        self._again = time.monotonic() + RETRY
        return True

    def discard(self) -> None:
        """Remove the entries of functions that were collected, but of those that a child still counts in.

        It is part of somebody's call: it waits for nobody, and what is left after `SHARE` is left for later.
        """
        namespaces, until = list[bytes](), time.monotonic() + SHARE
        with suppress(IndexError):  # another thread may take some of them
            while True:
                namespaces.append(self.orphans.popleft())
        with attempt:
            kept = self._forget(namespaces, until)
        self.orphans.extend(kept)
        self._again = time.monotonic() + RETRY if kept else 0.0
        for namespace in set(namespaces).difference(kept):
            self.used.pop(namespace, None)

    def leave(self) -> None:
        """Before this process leaves its place: remove what nobody will use again, as far as one second goes."""
        used, self.used = self.used, {}  # first, because opening the store may come to leave as well
        ended = [namespace for namespace, maker in used.items() if _has_ended(maker)]
        gone = set(ended).difference(self._forget(ended, time.monotonic() + RETRY))
        self.used.update((namespace, maker) for namespace, maker in used.items() if namespace not in gone)

    def _forget(self, namespaces: Sequence[bytes], until: float) -> list[bytes]:
        """Remove the entries of ``namespaces``; those for which that could not be done, by then or at all for now."""
        kept: list[bytes] = []
        try:
            store = self._open()
            for number, namespace in enumerate(namespaces if store is not None else ()):
                if time.monotonic() > until:
                    return [*kept, *namespaces[number:]]
                if store is not None and not store.forget(namespace):
                    kept.append(namespace)
        except StoreError:
            return list(namespaces)  # what is left does no harm, and goes with the place
        return kept


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
