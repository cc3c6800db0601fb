"""What a question is, and the numbers that come of asking it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

OURS: Final = "batche"
"""The peer that the others are compared with."""
DIGITS: Final = 4
"""Of a ratio, behind the point."""


class Sizes(NamedTuple):
    """How much is measured."""

    entries: int = 20_000
    batch: int = 1_000
    rounds: int = 30


QUICK: Final = Sizes(entries=4_000, batch=500, rounds=6)


class Target(NamedTuple):
    """What an item may cost at most, and should cost, as a part of what it costs with another peer."""

    peer: str
    limit: float
    aim: float | None = None


class Question(NamedTuple):
    """One thing to measure, the same way for every peer."""

    name: str
    kind: str
    operation: Literal["get", "put"]
    capacity: int
    filled: int
    batch: int
    batches: int
    rounds: int
    fresh: bool = False
    limited: bool = False
    targets: Sequence[Target] = ()


class Spread(NamedTuple):
    """The middle of some numbers, and the quarters on both sides of it."""

    median: float
    lower: float
    upper: float
    least: float


def spread(numbers: Sequence[float]) -> Spread:
    lower, _, upper = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(statistics.median(numbers), lower, upper, min(numbers))


class Outcome(NamedTuple):
    """What one peer did in all rounds of a question."""

    version: str
    nanoseconds: list[float]  # an item's, in each round
    right: bool
    entries: int | None


class Answer(NamedTuple):
    """What came of a question."""

    question: Question
    outcomes: dict[str, Outcome]

    def ratios(self, peer: str) -> Spread | None:
        """What an item costs with batche as a part of what it costs with ``peer``, round by round."""
        ours, theirs = self.outcomes.get(OURS), self.outcomes.get(peer)
        if ours is None or theirs is None:
            return None
        return spread([our / their for our, their in zip(ours.nanoseconds, theirs.nanoseconds, strict=True)])

    def verdicts(self) -> list[tuple[Target, float, str]]:
        """Each target whose peer was measured, with the ratio and what it comes to."""
        found = [(target, self.ratios(target.peer)) for target in self.question.targets]
        rounded = [(target, round(ratio.median, DIGITS)) for target, ratio in found if ratio]
        return [(target, ratio, _verdict(target, ratio)) for target, ratio in rounded]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.question._asdict(),
            "targets": [
                {**target._asdict(), "ratio": ratio, "verdict": verdict} for target, ratio, verdict in self.verdicts()
            ],
            "peers": {name: self._peer_as_json(name) for name in self.outcomes},
        }

    def _peer_as_json(self, name: str) -> dict[str, Any]:
        outcome, ratios = self.outcomes[name], self.ratios(name)
        return {
            "version": outcome.version,
            "right": outcome.right,
            "entries": outcome.entries,
            "ns_per_item": _rounded(spread(outcome.nanoseconds), 1),
            "ratio_of_batche": _rounded(ratios, DIGITS) if ratios else None,
            "rounds": [round(number, 1) for number in outcome.nanoseconds],
        }


def _verdict(target: Target, ratio: float) -> str:
    if ratio > target.limit:
        return "not met"
    return "met" if target.aim is None or ratio > target.aim else "met, and the aim too"


def _rounded(numbers: Spread, digits: int) -> dict[str, float]:
    return {name: round(number, digits) for name, number in numbers._asdict().items()}
