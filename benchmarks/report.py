"""Answers as text and as JSON."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks import machine
from benchmarks.questions import OURS, Answer, Sizes, Spread, spread
from benchmarks.workload import DESCRIBED

FORMAT: Final = 1
"""Of the JSON; raised when a field changes its meaning."""


def as_json(answers: Sequence[Answer], sizes: Sizes, absent: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.machine(),
        "python": machine.python(),
        "sizes": sizes._asdict(),
        "kinds": DESCRIBED,
        "absent": dict(absent),
        "questions": [answer.as_json() for answer in answers],
    }


def table(answer: Answer) -> str:
    """One question as text: a line for each peer, and one for each target."""
    return "\n".join([_heading(answer), *_rows(answer), *_verdicts(answer), ""])


def _heading(answer: Answer) -> str:
    columns = f"{'ns per item':>11}  {'quartiles':>17}  {'batche is':>9}  {'quartiles':>13}"
    return f"{answer.question.name:<26}{columns}"


def _rows(answer: Answer) -> Iterator[str]:
    for name, outcome in answer.outcomes.items():
        cost = spread(outcome.nanoseconds)
        row = f"  {name:<24}{cost.median:>11,.0f}  {_between(cost, ',.0f'):>17}"
        ratios = answer.ratios(name) if name != OURS else None
        if ratios:
            row += f"  {ratios.median:>8.3f}x  {_between(ratios, '.3f'):>13}"
        yield row if outcome.right else row + "  WRONG RESULTS"


def _between(numbers: Spread, form: str) -> str:
    return f"{numbers.lower:{form}} - {numbers.upper:{form}}"


def _verdicts(answer: Answer) -> Iterator[str]:
    for target, ratio, verdict in answer.verdicts():
        aim = f", aim {target.aim}x" if target.aim is not None else ""
        yield f"  at most {target.limit}x {target.peer}{aim}: {ratio:.3f}x, {verdict}"
