"""What is the same for every call of one decorated function in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from batche._reports import Reports
from batche._types import Call
from batche._wakeups import Wakeups
from batche.codecs import Codec
from batche.stores.base import Store


@dataclass(frozen=True, slots=True)
class Settings:
    """A function that has found its store, as the engine sees it."""

    function: str
    namespace: bytes
    store: Store
    codec: Codec
    wakeups: Wakeups
    reports: Reports
    batch_size: int | None = None
    strict: bool = False
    ttl: int | None = None
    """Nanoseconds after its storing for which an entry counts."""
    wait_timeout: int | None = None
    """Nanoseconds for which a call waits for somebody else's computation."""
    copy: bool = True
    cache_if: Callable[[Any, Any], object] | None = None
    on_failed: Literal["raise", "return"] = "raise"
    check: Callable[[int, Any], None] | None = None
    """Raises for a result, of the item at a position of the batch, that is not what the function's annotation says."""
    counts: bool = True
    """Whether positions count, as hits, misses or waits."""
    nobody: Call = field(init=False)
    """A call that never holds anything: calls that only hit are counted in its name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nobody", Call((0, 0), 0, self.namespace))
