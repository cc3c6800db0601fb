"""Calls that end by something other than an answer."""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from batche.stores.lmdb.gate import GATE
from batche.stores.lmdb.workers import State
from batche.stores.lmdb.writing import claimed_keys
from tests.processes._tools import Scene
from tests.processes.programs.scenes import (
    Behaviour,
    call,
    call_in_threads,
    contains,
    function,
    plain,
    wait_for_waiters,
)


def locks_behind_one_owner(scene: Scene, behaviour: Behaviour, threads: int) -> list[str]:
    """The kinds of result that an owner and the threads that waited for it got; locks cannot leave a process."""
    answers: list[Any] = []
    owner = threading.Thread(target=lambda: answers.append(call(scene, behaviour, [1])))
    owner.start()
    scene.flag("inside").wait()
    crowd = threading.Thread(target=lambda: answers.extend(call_in_threads(scene, behaviour, [1], threads)))
    crowd.start()
    wait_for_waiters(scene, behaviour, threads)
    scene.flag("go").set()
    owner.join()
    crowd.join()
    return [type(result).__name__ for answer in answers for result in answer]


class Interrupted(BaseException):
    """Raised by the handler of a signal, wherever the main thread is."""


@dataclass(frozen=True)
class Report:
    interrupted: int
    wrong: int
    inside_the_gate: int
    reports: list[str]
    claims_that_hold: int


def storm(scene: Scene, seconds: float) -> Report:
    """Call again and again, interrupted at random moments; what that has left behind."""
    cached = function(scene, plain)
    cached([0])
    chance = random.Random(1)
    interrupted = wrong = 0
    signal.signal(signal.SIGALRM, _interrupt)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        batch = [chance.randrange(200) for _ in range(chance.randrange(1, 8))]
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0012))
            answer = cached(batch)
            signal.setitimer(signal.ITIMER_REAL, 0)
            wrong += answer != [10 * item for item in batch]
        except Interrupted:
            interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    return Report(interrupted, wrong, len(GATE._inside), sorted(cached._reports._said), _claims_that_hold(cached))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _claims_that_hold(cached: Any) -> int:
    opened = cached.store._opened
    claims = opened.lmdb.read(lambda transaction: claimed_keys(transaction, b"", 100_000))
    judge = cached.store._claims.judge
    return sum(judge(raw, 0, {})[0] is State.RUNNING for _, raw in claims)


def still_caches(scene: Scene) -> bool:
    """Whether a new item is stored by a call of this thread."""
    call(scene, plain, [1000])
    return contains(scene, plain, [1000]) == [True]
