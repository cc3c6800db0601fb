"""How much one transaction may do, and what a call claims within that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batche._types import Call, Key
from batche.stores.lmdb.growth import pages_to_claim

MOST_KEYS: Final = 1024
"""Keys of one transaction: a fork, an event loop and a writer wait for no more than that."""
MOST_BYTES: Final = 4 << 20
"""Bytes of one transaction, for the same reason."""
LEAST_BYTES: Final = 1 << 20
"""Bytes that a store without a stated limit may use however little is free."""
_TRIED: Final = 64
"""Keys that are tried beyond a limit, because some may be taken."""


class Following:
    """What a call claims next: the first of ``keys``, as many as one transaction may, until ``limit`` are won.

    ``force``: also those that somebody else owns.
    """

    def __init__(self, call: Call, keys: Sequence[Key], limit: int | None, *, force: bool = False) -> None:
        self.call = call
        self.keys = keys[: MOST_KEYS if limit is None else min(MOST_KEYS, limit + _TRIED)]
        self.limit = limit
        self.died = 0  # owners that claims were taken over from
        self.force = force

    @property
    def pages(self) -> int:
        """The pages that claiming all of them needs, at the most."""
        return pages_to_claim(len(self.keys))

    def may_take(self, pages: int | None) -> None:
        """Claim them all, however few pages there are: a claim is small."""

    def first(self, number: int) -> Following:
        """The same for the first ``number`` keys only."""
        return (
            self if number == len(self.keys) else Following(self.call, self.keys[:number], self.limit, force=self.force)
        )
