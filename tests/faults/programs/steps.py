"""What a writer does in its life, and a process that kills itself at a chosen line of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import batche
from batche import cache_batch_variable
from batche.stores.lmdb import sweeping
from tests.faults._recount_open import recount
from tests.faults.programs.storms import answer
from tests.processes._tools import until

_SOURCE: Final = str(Path(batche.__file__).parent / "stores" / "lmdb")
_HASTE: Final = 0.005
MOST: Final = 12
"""Entries that the store may hold."""
HELD: Final = [100, 101, 102]
"""Items that the first owner is killed over."""
ITEMS: Final = range(24)


def function_in(place: Path) -> Any:
    """The cached function of a life: it evicts, and dies where it is told to."""

    def compute(items: list[int]) -> list[list[Any]]:
        if items[0] == HELD[0] and not (place.parent / "held.flag").exists():
            (place.parent / "held.flag").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [answer(item) for item in items]

    sweeping.MOURNING = _HASTE  # type: ignore[misc]  # or each of thousands of lives would last two seconds
    options: dict[str, Any] = {"store": str(place), "name": "life", "version": "1", "maxsize": MOST, "strict": True}
    return cache_batch_variable("items", **options)(compute)


def begin(place: Path) -> int:
    """Fill the store, count, and be killed while owning: its lane and claims are to be buried by others."""
    function = function_in(place)
    function(list(ITEMS[:MOST]))
    function(HELD)
    return 1


def live(place: Path) -> int:
    """Write in all the ways there are."""
    function = function_in(place)
    function([0, 1, 12, 13, 14])
    function([15, 16])
    function.cache_invalidate([13, 14])
    function([17, 18, HELD[0]])
    function.cache_clear()
    function([1, 2, 3])
    function.cache_info()
    return 0


def die_at(step: int, place: Path) -> int:
    """Live, and be killed at the line number ``step`` that runs in the store. 0 if there are fewer."""
    left = [step]

    def count(frame: FrameType) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return _live_watched(count, place)


def note_lines(notes: Path, place: Path) -> int:
    """Live, and write down each line of the store that runs, in order."""
    lines: list[str] = []
    status = _live_watched(lambda frame: lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}"), place)
    notes.write_text("\n".join(lines))
    return status


def _live_watched(watch: Callable[[FrameType], None], place: Path) -> int:
    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            watch(frame)
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_SOURCE) else None

    sys.settrace(call)
    try:
        return live(place)
    finally:
        sys.settrace(None)


def look(place: Path) -> int:
    """Use the store after them; print what is wrong with it, and return how much that is."""
    function = function_in(place)
    wrong = []
    for _ in range(2):
        batch = [*ITEMS, *HELD]
        if function(batch) != [answer(item) for item in batch]:
            wrong.append("an answer is wrong")
    store = function.store

    def is_swept() -> bool:
        function.cache_invalidate([-1])
        return recount(store).claims == 0

    try:
        until(is_swept, "no claim is left", 10)
    except TimeoutError:
        wrong.append(f"{recount(store).claims} claims are left")
    found = recount(store)
    wrong += found.wrong
    if found.entries != MOST:
        wrong.append(f"{found.entries} entries, not {MOST}")
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr, flush=True)
    return len(wrong)
