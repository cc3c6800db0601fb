"""Answers as an SVG: one bar for each peer of each question, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from benchmarks.questions import OURS

LEFT: Final = 130
WIDTH: Final = 520
RIGHT: Final = 170
BAR: Final = 16
GAP: Final = 4
HEADING: Final = 34
BOTTOM: Final = 34
OURS_FILL: Final = "#1f6f5c"
FILL: Final = "#b9c0c6"


class Scale:
    """From nanoseconds to places: decades of one width."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.first = math.floor(math.log10(min(numbers)))
        self.last = max(math.ceil(math.log10(max(numbers))), self.first + 1)

    def width(self, number: float) -> float:
        return WIDTH * (math.log10(number) - self.first) / (self.last - self.first)

    def decades(self) -> Iterator[int]:
        return (10**power for power in range(self.first, self.last + 1))


def svg(results: dict[str, Any]) -> str:
    """The plot of the results that `report.as_json` made."""
    questions = results["questions"]
    scale = Scale([peer["ns_per_item"]["median"] for question in questions for peer in question["peers"].values()])
    body: list[str] = []
    y = 0
    for question in questions:
        body += _question(question, y, scale)
        y += HEADING + len(question["peers"]) * (BAR + GAP)
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{y + BOTTOM}" viewBox="0 0 {LEFT + WIDTH + RIGHT} {y + BOTTOM}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>',
        '<rect width="100%" height="100%" fill="#fff"/>',
        *_grid(scale, y),
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _grid(scale: Scale, height: int) -> Iterator[str]:
    for decade in scale.decades():
        x = LEFT + scale.width(decade)
        yield f'<line x1="{x:.1f}" y1="{HEADING - GAP}" x2="{x:.1f}" y2="{height + GAP}" stroke="#e4e7ea"/>'
        yield f'<text x="{x:.1f}" y="{height + 20}" text-anchor="middle">{_time(decade)}</text>'


def _question(question: dict[str, Any], top: int, scale: Scale) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="{top + HEADING - 9}" font-weight="bold">{escape(question["name"])}, per item</text>'
    for number, (name, peer) in enumerate(question["peers"].items()):
        yield from _bar(name, peer, top + HEADING + number * (BAR + GAP), scale)


def _bar(name: str, peer: dict[str, Any], y: int, scale: Scale) -> Iterator[str]:
    cost = peer["ns_per_item"]["median"]
    width, text = scale.width(cost), y + BAR - 4
    label = _time(cost) if name == OURS else f"{_time(cost)} (batche: {peer['ratio_of_batche']['median']:.2g}x)"
    fill = OURS_FILL if name == OURS else FILL
    yield f'<text x="{LEFT - 8}" y="{text}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{fill}"/>'
    yield f'<text x="{LEFT + width + 6:.1f}" y="{text}">{label}</text>'


def _time(nanoseconds: float) -> str:
    if nanoseconds < 1e3:
        return f"{nanoseconds:.3g} ns"
    if nanoseconds < 1e6:
        return f"{nanoseconds / 1e3:.3g} µs"
    return f"{nanoseconds / 1e6:.3g} ms"
