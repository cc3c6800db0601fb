"""What does a call with one item cost, for an item that is in the cache and for one that is not?

Timed is the call alone. Redis is asked by the same commands as for a batch, and diskcache+transact without the
transaction, which is of use to a batch only: so it is diskcache in shared memory here. An item that is not in the cache
is stored; its result is prepared, so nothing is computed.
"""

from __future__ import annotations

from benchmarks.questions import Question, Sizes, Target

CALLS = 200
HIT_TARGETS = [Target("redis", limit=0.2), Target("redis+hiredis", limit=0.2)]


def questions(sizes: Sizes) -> list[Question]:
    room = sizes.entries + CALLS * sizes.rounds
    hit = Question(
        "single-item hits",
        "lists",
        "get",
        capacity=room,
        filled=sizes.entries,
        batch=1,
        batches=CALLS,
        rounds=sizes.rounds,
        targets=HIT_TARGETS,
    )
    miss = hit._replace(name="single-item misses", operation="put", targets=[])
    return [hit, miss]
