"""Guarantee 4 in full: what a failing function costs each of those who wait for it, in threads of several processes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from batche import ResultLengthError
from tests.processes._tools import Cast, Scene
from tests.processes.programs import failing
from tests.processes.programs.failing import Outcome
from tests.processes.programs.scenes import (
    Behaviour,
    FailedError,
    failing_always,
    failing_once,
    info,
    succeeding,
    wait_for_waiters,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")

MOST_STRIKES = 2
"""Owners that a caller waits for in vain before it computes."""


def behind_one_owner(
    scene: Scene, behaviour: Behaviour, items: list[int], *, waiters: int = 64, processes: int = 4
) -> list[Outcome]:
    """What became of an owner, which is the first, and of the threads of so many processes that waited for it."""
    with Cast() as cast:
        owner, *others = cast.actors(processes + 1)
        owning = owner.begin(failing.outcomes, scene, behaviour, items, 1)
        scene.flag("inside").wait()
        crowds = [other.begin(failing.outcomes, scene, behaviour, items, waiters // processes) for other in others]
        for other in others:
            other.run(wait_for_waiters, scene, behaviour, waiters // processes)
        scene.flag("go").set()
        outcomes = [outcome for task in [owning, *crowds] for outcome in task.result()]
    assert len(outcomes) == 1 + waiters
    return outcomes


def most_owners_waited_for(outcomes: list[Outcome]) -> int:
    return max(outcome.owners_waited_for for outcome in outcomes)


def calls(scene: Scene) -> Counter[str]:
    """How often each thread called the function."""
    return scene.journal("calls").counts()


def test_one_failure_costs_one_more_call_whoever_waits(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    owner, *waiters = outcomes = behind_one_owner(scene, failing_once, [1, 2, 3])
    assert owner.raised is not None
    assert owner.raised.args == owner.caller
    assert [waiter.answer for waiter in waiters] == [[10, 20, 30]] * 64
    assert calls(scene).total() == 2
    assert 1 <= most_owners_waited_for(outcomes) <= MOST_STRIKES


def test_a_function_that_always_fails_costs_each_caller_two_waits_and_its_own_one_call(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    outcomes = behind_one_owner(scene, failing_always, [1, 2, 3])
    assert all(isinstance(outcome.raised, FailedError) for outcome in outcomes)
    assert [outcome.raised.args for outcome in outcomes if outcome.raised] == [outcome.caller for outcome in outcomes]
    assert set(calls(scene).values()) == {1}
    assert 1 <= most_owners_waited_for(outcomes) <= MOST_STRIKES


@pytest.mark.parametrize("behaviour", [failing.short, failing.long])
def test_a_wrong_number_of_results_is_each_callers_own_error(tmp_path: Path, behaviour: Behaviour) -> None:
    scene = Scene.at(tmp_path)
    outcomes = behind_one_owner(scene, behaviour, [1, 2], waiters=16, processes=2)
    assert {type(outcome.raised) for outcome in outcomes} == {ResultLengthError}
    assert sorted(calls(scene).values()) == [1] * 17
    assert most_owners_waited_for(outcomes) <= MOST_STRIKES


def test_nobody_waits_in_a_queue_for_results_that_no_codec_takes(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, codec="msgpack")
    outcomes = behind_one_owner(scene, failing.opaque, [1])
    assert [outcome.answer for outcome in outcomes] == [["Opaque"]] * 65
    assert sorted(calls(scene).values()) == [1] * 65
    assert 1 <= most_owners_waited_for(outcomes) <= MOST_STRIKES


def test_sixteen_waiters_on_items_that_evict_one_another(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, maxsize=1)
    outcomes = behind_one_owner(scene, succeeding, [1, 2], waiters=16, processes=2)
    assert [outcome.answer for outcome in outcomes] == [[10, 20]] * 17
    assert max(calls(scene).values()) <= 2  # one for each item
    assert most_owners_waited_for(outcomes) <= MOST_STRIKES
    with Cast() as cast:
        counted = cast.actor().run(info, scene, succeeding)
    assert counted.currsize == 1
    assert counted.hits + counted.misses + counted.waits == 2 * 17


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (failing.interrupted_thrice, KeyboardInterrupt),
        (failing.exiting_thrice, SystemExit),
        (failing.closed_thrice, GeneratorExit),
        (failing.aborted_thrice, failing.AbortedError),
    ],
)
def test_owners_that_end_by_no_exception_count_as_dead_and_are_taken_over_by_one(
    tmp_path: Path, behaviour: Behaviour, error: type[BaseException]
) -> None:
    scene = Scene.at(tmp_path)
    outcomes = behind_one_owner(scene, behaviour, [1], waiters=16)
    assert Counter(type(outcome.raised) for outcome in outcomes) == {error: 3, type(None): 14}
    assert all(outcome.answer == [10] for outcome in outcomes if not outcome.raised)
    assert calls(scene).total() == 4  # three that ended so, and the one whose result all others got
    with Cast() as cast:
        counted = cast.actor().run(info, scene, behaviour)
    assert (counted.misses, counted.takeovers) == (4, 3)
