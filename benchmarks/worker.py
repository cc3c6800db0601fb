"""A process of one peer: reads what to do, a JSON object a line, and answers how long it took.

Every peer has a process of its own, so that none has the others' objects in its heap, and two versions of one package
can be measured side by side. Items and results are made, and answers checked, outside of what is timed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import PEERS, Peer, in_memory
from benchmarks.workload import KINDS, Kind, drawn, items

FILLED_AT_ONCE: Final = 1000
WARM_UPS: Final = 3
WARM_BATCH: Final = 500


class Worker:
    """What one process does for one peer."""

    def __init__(self, peer: Peer, kind: Kind) -> None:
        self._peer = peer
        self._kind = kind

    def fill(self, entries: int) -> dict[str, Any]:
        for first in range(0, entries, FILLED_AT_ONCE):
            self._put(range(first, min(first + FILLED_AT_ONCE, entries)))
        return {}

    def limit(self, batch: int) -> dict[str, Any]:
        self._peer.limit(batch)
        return {}

    def get(self, seed: int, entries: int, batch: int, batches: int) -> dict[str, Any]:
        """Read ``batches`` batches, drawn from ``entries`` entries."""
        numbers = [drawn(seed * batches + place, entries, batch) for place in range(batches)]
        asked = [items(part) for part in numbers]
        settle()
        seconds, right = 0.0, True
        for part, texts in zip(numbers, asked, strict=True):
            began = time.perf_counter()
            results = self._peer.get_many(texts)
            seconds += time.perf_counter() - began
            right &= self._is_right(part, results)
        return self._answer(seconds, batch * batches, right=right)

    def put(self, first: int, batch: int, batches: int) -> dict[str, Any]:
        """Store ``batches`` batches of items from number ``first`` on, which nobody has stored."""
        settle()
        parts = [range(start, start + batch) for start in range(first, first + batch * batches, batch)]
        seconds = sum(self._put(part) for part in parts)
        right = self._is_right(parts[-1], self._peer.get_many(items(parts[-1])), some=not self._peer.exact)
        return self._answer(seconds, batch * batches, right=right)

    def _answer(self, seconds: float, number: int, *, right: bool) -> dict[str, Any]:
        entries, version = self._peer.entries(), self._peer.version
        return {"seconds": seconds, "items": number, "right": right, "entries": entries, "version": version}

    def _put(self, numbers: range) -> float:
        texts, values = items(numbers), [self._kind.value(number) for number in numbers]
        began = time.perf_counter()
        self._peer.set_many(texts, values)
        return time.perf_counter() - began

    def _is_right(self, numbers: Sequence[int], results: Sequence[Any], *, some: bool = False) -> bool:
        """Whether these are the results of the items; ``some`` allows for entries that were evicted."""
        if len(results) != len(numbers):
            return False
        there = [(result, number) for result, number in zip(results, numbers, strict=True) if result is not None]
        all_there = len(there) == len(numbers) or some
        return all_there and all(self._kind.same(result, self._kind.value(number)) for result, number in there)


def settle() -> None:
    """Have garbage collected, and what other peers left to be written to the disk written, before time is taken."""
    gc.collect()
    os.sync()


def warm_up(peer: Peer, kind: Kind) -> None:
    """Have the code of a peer run a few times, in a cache that is not the one to be measured."""
    worker = Worker(peer, kind)
    for first in range(0, WARM_UPS * WARM_BATCH, WARM_BATCH):
        worker.put(first, WARM_BATCH, 1)
        worker.get(first, WARM_BATCH, WARM_BATCH, 1)


def serve(peer: Peer, kind: Kind) -> None:
    """Do what each line of the input asks, until it ends."""
    worker = Worker(peer, kind)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


def main(name: str, kind: str, capacity: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=in_memory()) as directory:
        for use, size in (warm_up, WARM_UPS * WARM_BATCH), (serve, capacity):
            own = Path(directory) / use.__name__
            own.mkdir()
            with PEERS[name](own, KINDS[kind], size) as peer:
                use(peer, KINDS[kind])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
