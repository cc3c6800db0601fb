"""Which models are explored, and how far: a small form in every test run, an exhaustive one by ``tox -e model``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.model._checker import Model, Report, explore
from tests.model._claims import Claims
from tests.model._nesting import Nesting
from tests.model._recency import Recency
from tests.model._sweeping import Sweeping

Choice = tuple[Callable[..., Model], dict[str, Any]]

SMALL: Final[list[Choice]] = [
    (Claims, {"callers": 2, "items": 2, "crashes": 2, "newcomers": 1, "failing": "raise interrupt refuse"}),
    (Claims, {"callers": 2, "items": 2, "crashes": 1, "invalidations": 1, "failing": "raise"}),
    (Claims, {"callers": 2, "items": 2, "crashes": 1, "clears": 1, "failing": "raise"}),
    (Claims, {"callers": 2, "items": 2, "crashes": 1, "batch_size": 1, "most_keys": 1}),
    (Claims, {"callers": 3, "items": 1, "crashes": 1, "again": 1, "failing": "raise"}),
    (Claims, {"callers": 2, "items": 2, "crashes": 1, "refreshers": 1, "filled": True, "failing": "raise refuse"}),
    (Claims, {"callers": 2, "items": 2, "crashes": 1, "timeouts": 2, "failing": "raise"}),
    (Claims, {"callers": 2, "items": 2, "timeouts": 2, "batch_size": 1}),
    (Claims, {"callers": 3, "items": 1, "refreshers": 1, "timeouts": 1, "expirations": 1, "filled": True}),
    (Nesting, {"processes": 2, "items": 2, "crashes": 1, "may_raise": True}),
    (Sweeping, {"processes": 2, "keys": 2, "most": 1}),
    (Sweeping, {"processes": 2, "keys": 2, "most": 2}),
    (Recency, {"reads": 1, "crashes": 1, "deletes": 1}),
    (Recency, {"copies": True, "crashes": 1}),
]

LARGE: Final[list[Choice]] = [
    (Claims, {"callers": 3, "items": 3, "crashes": 3}),
    (Claims, {"callers": 3, "items": 3, "crashes": 1, "failing": "raise"}),
    (Claims, {"callers": 3, "items": 3, "crashes": 1, "batch_size": 1}),
    (Claims, {"callers": 3, "items": 3, "most_keys": 1}),
    (Claims, {"callers": 3, "items": 2, "crashes": 3, "newcomers": 1, "failing": "raise"}),
    (Claims, {"callers": 3, "items": 2, "crashes": 3, "failing": "raise", "most_keys": 1}),
    (Claims, {"callers": 3, "items": 2, "crashes": 1, "invalidations": 1, "failing": "raise"}),
    (Claims, {"callers": 3, "items": 2, "crashes": 1, "clears": 1}),
    (Claims, {"callers": 3, "items": 1, "crashes": 3, "newcomers": 1, "failing": "raise interrupt refuse"}),
    (Claims, {"callers": 3, "items": 1, "again": 3, "failing": "raise refuse"}),
    (Claims, {"callers": 3, "items": 2, "refreshers": 1, "filled": True, "failing": "raise"}),
    (Claims, {"callers": 3, "items": 1, "refreshers": 2, "filled": True, "crashes": 2, "failing": "raise refuse"}),
    (Claims, {"callers": 3, "items": 1, "refreshers": 1, "again": 1, "timeouts": 2, "invalidations": 1, "crashes": 1}),
    (Claims, {"callers": 3, "items": 2, "timeouts": 2, "crashes": 1}),
    (Claims, {"callers": 3, "items": 1, "expirations": 2, "timeouts": 1, "again": 1, "filled": True, "crashes": 1}),
    (Claims, {"callers": 2, "items": 2, "refreshers": 1, "filled": True, "batch_size": 1, "crashes": 1, "timeouts": 1}),
    (Nesting, {"processes": 3, "items": 2, "crashes": 1, "may_raise": True}),
    (Nesting, {"processes": 2, "items": 3, "batch_size": 1, "crashes": 1}),
    (Nesting, {"processes": 2, "items": 3, "depth": 3, "largest": 1}),
    (Sweeping, {"processes": 3, "keys": 1, "most": 1}),
    (Sweeping, {"processes": 2, "calls": 2, "keys": 2, "most": 1}),
    (Recency, {"readers": 1, "reads": 1, "writers": 2, "writes": 2}),
    (Recency, {"writers": 2, "readers": 0, "writes": 2, "deletes": 1, "crashes": 1}),
    (Recency, {"keys": 4, "maxsize": 3, "readers": 2, "crashes": 1}),
    (Recency, {"copies": True, "readers": 1, "reads": 1, "writers": 2, "crashes": 1, "deletes": 1}),
]

SUBTLE: Final[list[Choice]] = [
    # flaws that only a large form shows
    (Recency, {"readers": 2, "reads": 2, "flaws": frozenset({"ticks go back"})}),
    (Recency, {"readers": 2, "writes": 2, "flaws": frozenset({"look and store are two"})}),
    (Recency, {"writers": 2, "writes": 2, "flaws": frozenset({"passed over"})}),
]

ALL: Final = [*LARGE, *SMALL, *SUBTLE]

FLAWS: Final[list[tuple[str, str, Callable[..., Model], dict[str, Any]]]] = [
    # what is left out, what must come of it, and where that is seen
    ("no re-read", "computed again though it is stored", Claims, {"callers": 2, "items": 1}),
    ("claims not looked at", "two owners", Claims, {"callers": 2, "items": 1}),
    ("token not looked at", "is leaked", Claims, {"callers": 2, "items": 1, "crashes": 1, "newcomers": 1}),
    ("serial not looked at", "is leaked", Claims, {"callers": 2, "items": 2, "again": 1, "failing": "raise"}),
    ("the dead hold on", "is leaked", Claims, {"callers": 2, "items": 1, "crashes": 1}),
    ("word not cleared", "is leaked", Claims, {"callers": 2, "items": 1, "failing": "raise"}),
    ("drop nothing", "is leaked", Claims, {"callers": 2, "items": 2, "failing": "refuse", "batch_size": 1}),
    ("release by key", "is not its owner's", Claims, {"callers": 3, "items": 1, "invalidations": 1}),
    ("store without a claim", "stale result", Claims, {"callers": 2, "items": 1, "invalidations": 1}),
    ("invalidation leaves claims", "stale result", Claims, {"callers": 2, "items": 1, "invalidations": 1}),
    ("epoch not raised", "stale result", Claims, {"callers": 2, "items": 1, "clears": 1}),
    ("endless patience", "waited for more than 2", Claims, {"callers": 3, "items": 1, "again": 2, "failing": "raise"}),
    ("a new owner is no strike", "waited for", Claims, {"callers": 3, "items": 1, "again": 2, "failing": "raise"}),
    ("only commits wake", "deadlock", Claims, {"callers": 2, "items": 1, "failing": "raise"}),
    ("only commits wake", "deadlock", Claims, {"callers": 2, "items": 1, "crashes": 1}),
    ("waits while it holds claims", "deadlock", Claims, {"callers": 2, "items": 2, "most_keys": 1}),
    ("force leaves the claim", "is not its owner's", Claims, {"callers": 2, "items": 1, "refreshers": 1}),
    ("store without a claim", "its claim was voided", Claims, {"callers": 2, "items": 1, "refreshers": 1}),
    ("store without a claim", "its claim was voided", Claims, {"callers": 2, "items": 1, "timeouts": 1}),
    ("an heir needs no claim", "stale", Claims, {"callers": 2, "items": 1, "timeouts": 1, "invalidations": 1}),
    ("an heir leaves the claim", "computed again though", Claims, {"callers": 2, "items": 1, "timeouts": 1}),
    ("commits not told", "waits on for an owner", Claims, {"callers": 3, "items": 1, "refreshers": 1}),
    ("the impatient wait on", "livelock", Claims, {"callers": 2, "items": 1, "timeouts": 1}),
    ("newer_than not looked at", "too old", Claims, {"callers": 2, "items": 1, "refreshers": 1, "filled": True}),
    ("newer_than not looked at", "too old", Claims, {"callers": 2, "items": 1, "expirations": 1, "filled": True}),
    ("refresh removes first", "nobody removed it", Claims, {"callers": 2, "items": 1, "refreshers": 1, "filled": True}),
    ("no rule", "deadlock", Nesting, {"processes": 2, "items": 2}),
    ("the oldest counts", "deadlock", Nesting, {"processes": 2, "items": 3, "depth": 3, "largest": 1}),
    ("ends not noted", "stay for good", Sweeping, {"processes": 2}),
    ("nobody looks for the dead", "stay for good", Sweeping, {"processes": 2}),
    ("mourning not noted", "stay for good", Sweeping, {"processes": 2}),
    ("a piece counts as a pass", "stay for good", Sweeping, {"processes": 3, "keys": 2, "most": 1}),
    ("every pass ends the mourning", "stay for good", Sweeping, {"processes": 3, "keys": 2}),
    ("swept noted before the commit", "stay for good", Sweeping, {"processes": 2}),
    ("mourning noted after the pass", "goes before its waiters", Sweeping, {"processes": 3}),
    ("the last of a piece is looked at again", "goes before its waiters", Sweeping, {"processes": 3, "keys": 2}),
    ("marks of others not noticed", "goes before its waiters", Sweeping, {"processes": 3, "keys": 2, "most": 1}),
    ("not looked at again", "less recent", Recency, {}),
    ("not sorted", "less recent", Recency, {"reads": 2}),
    ("outdated after the commit", "after its entry has gone", Recency, {"copies": True}),
    ("freed before the commit", "can never be evicted", Recency, {"crashes": 1}),
]


def explore_one(number: int) -> tuple[Report, bool]:
    """Explore one of `ALL`, known by its number in every process; the report, and whether it is as it must be."""
    model, options = ALL[number]
    report = explore(model(**options))
    return report, (report.found is None) == ("flaws" not in options)
