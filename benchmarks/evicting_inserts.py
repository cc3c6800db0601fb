"""What does an item cost that nobody has, when the cache is full?

As in `misses`, but as many entries are evicted as come, the least recently used first: exactly so by batche, batche
0.1.1 and diskcache; by samples of five (``allkeys-lru``) by Redis, whose limit is the memory
it used when filled and what the commands of a batch need.
"""

from __future__ import annotations

from benchmarks.misses import TARGETS
from benchmarks.questions import Question, Sizes


def questions(sizes: Sizes) -> list[Question]:
    return [
        Question(
            f"evicting inserts, {kind}",
            kind,
            "put",
            capacity=sizes.entries,
            filled=sizes.entries,
            limited=True,
            batch=sizes.batch,
            batches=5,
            rounds=max(2, sizes.rounds // 2),
            targets=TARGETS,
        )
        for kind in ("lists", "arrays")
    ]
