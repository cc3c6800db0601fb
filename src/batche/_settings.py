"""What is the same for every call of one decorated function in this process."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    nobody: Call = field(init=False)
    """A call that never holds anything: calls that only hit are counted in its name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nobody", Call((0, 0), 0, self.namespace))
