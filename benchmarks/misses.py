"""What does an item cost that nobody has: found missing, claimed, and stored?

Each round begins with a new process and an empty cache, which grows to all its entries while it is timed. The result
of each item is prepared, so nothing is computed. For batche the call looks for the items, claims them, encodes what
the function returns, stores it and gives the claims back; for batche 0.1.1 it is the same call. Redis and diskcache
only pack and store: they are not asked first whether the items are there, and nobody is kept from computing them too.
"""

from __future__ import annotations

from benchmarks.questions import Question, Sizes, Target

TARGETS = [Target("redis", limit=2.0, aim=1.5), Target("redis+hiredis", limit=2.0, aim=1.5)]


def questions(sizes: Sizes) -> list[Question]:
    return [
        Question(
            f"misses, {kind}",
            kind,
            "put",
            capacity=sizes.entries + 1,
            filled=1,  # so that files are made and opened
            batch=sizes.batch,
            batches=sizes.entries // sizes.batch,
            rounds=max(2, sizes.rounds // 2),
            fresh=True,
            targets=TARGETS,
        )
        for kind in ("lists", "arrays")
    ]
