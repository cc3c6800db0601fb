"""Are the bounds in time kept that are promised? ``python -m benchmarks.bounds [--rounds N] [--json FILE]``.

Each is measured with real processes, from the fault on until the first call that goes on after it.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from batche import cache_batch_variable
from benchmarks import machine
from benchmarks.questions import Spread, spread

MIB: Final = 1 << 20
SETTLING: Final = 0.05
"""Seconds in which whoever begins to wait has begun."""

_processes: Final[Any] = multiprocessing.get_context("fork")


class Bound(NamedTuple):
    """What is promised, in milliseconds, and what takes the time."""

    name: str
    at_most: float
    measure: Callable[[Path], float]


def _cached(place: Path, work: Callable[[], object]) -> Any:
    def compute(items: list[int]) -> list[int]:
        work()
        return items

    return cache_batch_variable("items", store=place, name="bounds", version="1")(compute)


def _own(place: Path, memory: int, computing: Any) -> None:
    """Compute for ever, in a process that has so many MiB of memory in use."""
    used = bytearray(b"1") * (memory * MIB)
    _cached(place, lambda: (computing.set(), time.sleep(60), used))([1])


def takeover(memory: int, place: Path) -> float:
    """Seconds from the death of an owner until somebody who waited for it computes."""
    computing, begun = _processes.Event(), list[float]()
    owner = _processes.Process(target=_own, args=(place, memory, computing))
    owner.start()
    computing.wait()
    waiter = threading.Thread(target=_cached(place, lambda: begun.append(time.monotonic())), args=([1],))
    waiter.start()
    time.sleep(SETTLING)
    killed = time.monotonic()
    owner.kill()
    waiter.join()
    owner.join()
    return begun[0] - killed


def deletion(place: Path) -> float:
    """Seconds from the removal of a directory in use until a call computes again, and stores elsewhere."""
    computed = list[float]()
    function = _cached(place, lambda: computed.append(time.monotonic()))
    function([1])
    removed = time.monotonic()
    shutil.rmtree(place)
    while len(computed) < 2:
        function([1])
        time.sleep(0.001)
    return computed[1] - removed


BOUNDS: Final = (
    Bound("takeover from an owner that was killed", 250, lambda place: takeover(1, place)),
    Bound("takeover from one of 1 GiB", 250, lambda place: takeover(1024, place)),
    Bound("a removed directory is noticed", 1000, deletion),
)


def measured(bound: Bound, rounds: int) -> list[float]:
    """Milliseconds, once for each round."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bounds-") as directory:
            found.append(1000 * bound.measure(Path(directory) / "place"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all; 1 where a bound was not kept."""
    parser = argparse.ArgumentParser("python -m benchmarks.bounds", description="Bounds in time, kept or not.")
    parser.add_argument("--rounds", type=int, default=50, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results go")
    options = parser.parse_args(arguments)
    logging.getLogger("batche").setLevel(logging.ERROR)  # what is done to the stores here they would tell
    found = {bound: measured(bound, options.rounds) for bound in BOUNDS}
    for bound, times in found.items():
        print(_row(bound, spread(times), max(times)))
    if options.json is not None:
        options.json.write_text(json.dumps(_as_json(found), indent=1) + "\n", encoding="utf-8")
    return 0 if all(max(times) <= bound.at_most for bound, times in found.items()) else 1


def _row(bound: Bound, times: Spread, most: float) -> str:
    kept = "kept" if most <= bound.at_most else "NOT KEPT"
    return f"{bound.name:<40} median {times.median:7.1f} ms, most {most:7.1f} ms of {bound.at_most:g}: {kept}"


def _as_json(found: dict[Bound, list[float]]) -> dict[str, Any]:
    return {
        "machine": machine.machine(),
        "python": machine.python(),
        "bounds": [
            {"name": bound.name, "at_most_ms": bound.at_most, "ms": [round(number, 2) for number in times]}
            for bound, times in found.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
