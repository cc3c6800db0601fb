"""Four workers score overlapping lists of words; each word is scored once for all of them.

Run it with ``python examples/pool.py``.
"""

from __future__ import annotations

import multiprocessing

from batche import cache_batch_variable

VOWELS = frozenset("aeiou")


@cache_batch_variable("words", maxsize=10_000)
def score(words: list[str], weight: int = 1) -> list[int]:
    return [weight * sum(letter in VOWELS for letter in word) for word in words]


def main() -> None:
    words = [f"{first}{second}" for first in ("sea", "moon", "wood", "rain") for second in ("land", "side", "light")]
    parts = [words[start:] + words[:start] for start in range(0, len(words), 3)]
    with multiprocessing.Pool(4) as pool:
        totals = [sum(scores) for scores in pool.map(score, parts)]
    info = score.cache_info()
    print(f"totals: {totals}")
    print(f"{len(parts) * len(words)} words asked for, {info.misses} computed, {info.hits + info.waits} shared")


if __name__ == "__main__":
    main()
