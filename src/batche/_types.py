"""The nouns that pass between the engine and the stores: slotted, and frozen but for `Call`, which a run changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

Key: TypeAlias = bytes
"""An 8-byte namespace and a 20-byte digest: `KEY_BYTES` bytes."""

CallId: TypeAlias = tuple[int, int]
"""Boot-time nanoseconds at which the call began, and a random number: a total order over all calls."""

NAMESPACE_BYTES: Final = 8
DIGEST_BYTES: Final = 20
KEY_BYTES: Final = NAMESPACE_BYTES + DIGEST_BYTES


class Missing(Enum):
    """The type of `MISS`, so that type checkers can tell it from a result."""

    MISS = "miss"


MISS: Final = Missing.MISS
"""No result here. Compared with ``is``, so that no result, `None` included, is taken for it."""


class Mine(Enum):
    """The type of `MINE`."""

    MINE = "mine"


MINE: Final = Mine.MINE
"""The answer to a claim that its caller won."""


Entry: TypeAlias = tuple[Any, int]
"""A result under its key, as a store hands it out: what was put (bytes in every store but a mapping's), and the wall
clock at which it was stored, in nanoseconds. A plain tuple, because making anything with names costs a hit a tenth."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a claim.

    ``alive`` is `False` for one that was killed or cancelled: its items are to be taken over. ``since`` is
    the boot-time clock at which its call began, in nanoseconds. ``took_over`` says that the claim passed to it
    from an owner that died, not from one that ended without an entry.
    """

    call: CallId
    pid: int
    alive: bool = True
    took_over: bool = False

    @property
    def since(self) -> int:
        return self.call[0]


NOTHING_IS: Final = (1 << 63) - 1
"""What no entry is newer than: see `Call.newer_than`."""


@dataclass(slots=True, eq=False)
class Call:
    """One call of a decorated function, as the claims it takes name it.

    ``holds`` says whether it may still hold claims; ``handle`` belongs to the store that gave the claims. To this
    call an entry is there only if it was stored after ``newer_than``, a wall clock in nanoseconds. For some keys it is
    ``heir_of`` a call that it waited for in vain: those it may store under that call's claims too.
    """

    id: CallId
    pid: int
    namespace: bytes
    holds: bool = False
    newer_than: int = 0
    heir_of: dict[Key, CallId] = field(default_factory=dict)
    handle: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a ``put`` did.

    ``kept`` is the set of keys that were stored; ``too_large`` those over the limit. ``claims`` answers the
    claims that were made in the same step, aligned with what was asked. ``rest`` is the number of entries at the end
    that were not tried, and are to be put again: only while an `attempt` is made may there be any.
    """

    kept: frozenset[Key]
    too_large: frozenset[Key]
    claims: list[Any]
    rest: int = 0


class CacheInfo(NamedTuple):
    """One function's counts over all processes that share its store, dead ones included.

    Begins as `functools` has it. Every position of every batch is exactly one hit, miss or wait.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int
    waits: int = 0
    evictions: int = 0
    expirations: int = 0
    takeovers: int = 0
    rejected: int = 0
    errors: int = 0
    bytes: int = 0
    max_bytes: int | None = None
    near_hits: int = 0
