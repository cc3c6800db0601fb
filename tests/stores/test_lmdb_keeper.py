"""The thread that makes marks in time: what an interrupt of the one who asks for it must not leave behind."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Final

import pytest

if sys.platform == "win32":
    pytest.skip("there is no keeper on Windows", allow_module_level=True)

from batche._forks import Fork
from batche.stores.lmdb.keeper import Keeper
from tests.faults._injection import SIGNALS, Signalled, Steps, raiser
from tests.processes._tools import LONGEST

LATER: Final = 1000.0
PATH: Final = Path("a place")


def never(path: Path) -> float | None:
    raise AssertionError(f"{path} is looked at before it is due")


def watch(keeper: Keeper, step: int) -> int:
    """Have a path watched, and a handler raise at that step; how many there are."""
    steps = Steps(SIGNALS, step, raiser(Signalled))
    with contextlib.suppress(Signalled), steps:
        keeper.watch(PATH, LATER)
    return len(steps.places)


@pytest.mark.filterwarnings("ignore:Exception ignored in thread started by")  # one whose start was interrupted
def test_a_handler_that_raises_at_any_step_of_watching_leaves_no_lock_taken() -> None:
    keeper = Keeper(never)
    steps = watch(keeper, 0)
    keeper.before_fork(Fork())  # ends its thread
    assert steps > 10
    for step in range(1, steps + 1):
        keeper = Keeper(never)
        watch(keeper, step)
        other = threading.Thread(target=keeper.watch, args=(PATH, LATER), daemon=True)
        other.start()
        other.join(LONGEST)
        assert not other.is_alive(), f"another thread waits for ever after an interrupt at step {step} of {steps}"
        assert keeper.paths() == [PATH]
        keeper.before_fork(Fork())
