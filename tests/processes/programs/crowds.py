"""Many threads of many processes that ask for overlapping batches."""

from __future__ import annotations

import random
import threading
from itertools import accumulate

from tests.processes._tools import Scene
from tests.processes.programs.scenes import call, plain

ITEMS = 150
"""Different items that may be asked for."""
_WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(ITEMS)))
"""Zipf: the item of rank r is asked for about 1/r as often as the first."""


def batches(seed: int, number: int, longest: int = 24) -> list[list[int]]:
    """Batches of items by Zipf's law, duplicates included; the same for the same seed."""
    chance = random.Random(seed)
    lengths = [chance.randrange(longest) for _ in range(number)]
    return [chance.choices(range(ITEMS), cum_weights=_WEIGHTS, k=length) for length in lengths]


def ask(scene: Scene, seeds: list[int], number: int) -> int:
    """One thread for each seed asks for its batches; the number of positions answered wrongly."""
    wrong: list[int] = []
    start = threading.Barrier(len(seeds))

    def one(seed: int) -> None:
        start.wait()
        for batch in batches(seed, number):
            answer = call(scene, plain, batch)
            wrong.append(sum(got != 10 * item for got, item in zip(answer, batch, strict=True)))

    threads = [threading.Thread(target=one, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(wrong) + 1_000_000 * (len(wrong) != len(seeds) * number)
