"""What does an item cost that is in the cache already, in a batch of such items?

Timed is the whole call that a user makes: keys made from the items, entries found, decoded, and put in a list in the
order of the items. Each batch is drawn at random from all entries, the same for every peer. Finding an entry is a use
of it for every peer but Redis, which keeps recency only where a limit is set.
"""

from __future__ import annotations

from benchmarks.questions import Question, Sizes, Target

TARGETS = [
    Target("redis", limit=1.0, aim=0.8),
    Target("redis+hiredis", limit=1.0, aim=0.8),
    Target("diskcache", limit=0.08),
]


def questions(sizes: Sizes) -> list[Question]:
    return [
        Question(
            f"warm hits, {kind}",
            kind,
            "get",
            capacity=sizes.entries,
            filled=sizes.entries,
            batch=sizes.batch,
            batches=5,
            rounds=sizes.rounds,
            targets=TARGETS,
        )
        for kind in ("lists", "arrays")
    ]
