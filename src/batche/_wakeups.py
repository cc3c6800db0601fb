"""Waking those of this process who wait for somebody else's computation.

A wake-up only wakes: what is true is read from the store afterwards. A lost one costs a poll's delay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from types import TracebackType

from batche._forks import renew_after_fork
from batche._types import Key


class Wakeups:
    """Who in this process waits for which key. One for each store, which it may keep alive."""

    def __init__(self, store: object = None) -> None:
        self._store = store
        self._lock = RLock()  # re-entrant: a signal handler may call a cached function at any point
        self._listeners: dict[Key, dict[Callable[[], object], None]] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = RLock()
        self._listeners = {}

    def listen(self, keys: Sequence[Key], ring: Callable[[], object]) -> Listening:
        """Have ``ring()`` called once something happened to one of ``keys``, until the context is left.

        It is called once: who goes on waiting renews the listening, and only then looks at the store. So a crowd that
        waits for one key is woken by its first, and not by each of the others again.

        ``ring`` is called in whatever thread it happened, and must neither wait nor raise.
        """
        return Listening(self, keys, ring)

    def wake(self, keys: Iterable[Key]) -> None:
        """Ring for everybody who listens to one of ``keys``."""
        if not self._listeners:
            return
        with self._lock:
            rings = {ring: None for key in keys for ring in self._listeners.pop(key, ())}
        for ring in rings:
            ring()

    def wake_all(self) -> None:
        """Ring for everybody."""
        with self._lock:
            keys = list(self._listeners)
        self.wake(keys)

    def _add(self, keys: Sequence[Key], ring: Callable[[], object]) -> None:
        with self._lock:
            for key in keys:
                self._listeners.setdefault(key, {})[ring] = None

    def _discard(self, keys: Sequence[Key], ring: Callable[[], object]) -> None:
        with self._lock:
            for key in keys:
                rings = self._listeners.get(key)
                if rings is not None:
                    rings.pop(ring, None)
                    if not rings:
                        self._listeners.pop(key, None)


class Listening:
    """The time between `Wakeups.listen` and the end of its ``with``."""

    def __init__(self, wakeups: Wakeups, keys: Sequence[Key], ring: Callable[[], object]) -> None:
        self._wakeups = wakeups
        self._keys = keys
        self._ring = ring

    def renew(self) -> None:
        """Have ``ring`` called again."""
        self._wakeups._add(self._keys, self._ring)

    def __enter__(self) -> Listening:
        try:
            self.renew()
            return self
        except BaseException:
            self.end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """What the end of ``with`` does. Called inside of it as well: a signal handler may raise in one of the two."""
        self._wakeups._discard(self._keys, self._ring)
