"""What `batche.testing` asks of the decorated functions of this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from batche._forks import ProcessLock

Listener: TypeAlias = Callable[[list[Any]], object]
"""Called with the items that a function is about to be given."""


class Hooks:
    """Whether caching is off, for all threads of this process. A forked child begins as its parent was.

    ``off`` counts who wants it so; a call reads it, which costs it about 20 ns.
    """

    def __init__(self) -> None:
        self.off = 0
        self._switching = ProcessLock()

    def switch(self, by: int) -> None:
        """Count one more (1) or one less (-1) who wants caching to be off."""
        with self._switching.lock:
            self.off += by


hooks: Final = Hooks()
