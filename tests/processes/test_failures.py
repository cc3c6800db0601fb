"""Guarantee 4: nobody waits in a queue behind a function that fails or whose results are not stored."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.processes._tools import Actor, Cast, Scene
from tests.processes.programs import interrupts
from tests.processes.programs.scenes import (
    Behaviour,
    FailedError,
    call,
    call_in_threads,
    exiting_once,
    failing_always,
    failing_once,
    info,
    interrupted_once,
    succeeding,
    unstorable,
    wait_for_waiters,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def behind_one_owner(
    cast: Cast, scene: Scene, behaviour: Behaviour, *, processes: int, threads: int
) -> tuple[BaseException | None, list[Any], Actor]:
    """What the owner of item 1 raised, and what each of the threads got that waited for it; then a living actor."""
    owner, *others = cast.actors(processes + 1)
    owning = owner.begin(call, scene, behaviour, [1])
    scene.flag("inside").wait()
    crowds = [other.begin(call_in_threads, scene, behaviour, [1], threads) for other in others]
    for other in others:
        other.run(wait_for_waiters, scene, behaviour, threads)
    scene.flag("go").set()
    answers = [answer for crowd in crowds for answer in crowd.result()]
    try:
        owning.result()
    except BaseException as error:
        return error, answers, others[0]
    return None, answers, others[0]


def most_calls_of_one_thread(scene: Scene) -> int:
    return max(scene.journal("calls").counts().values())


def test_an_exception_goes_to_its_own_caller_and_a_transient_one_costs_one_more_call(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        raised, answers, actor = behind_one_owner(cast, scene, failing_once, processes=4, threads=16)
        counted = actor.run(info, scene, failing_once)
    assert isinstance(raised, FailedError)
    assert answers == [[10]] * 64
    assert len(scene.journal("calls").lines()) == 2
    assert (counted.misses, counted.hits + counted.waits, counted.takeovers) == (2, 63, 0)


def test_behind_a_function_that_always_fails_each_caller_gets_the_exception_of_its_own_one_call(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        raised, answers, actor = behind_one_owner(cast, scene, failing_always, processes=4, threads=16)
        counted = actor.run(info, scene, failing_always)
    callers = Counter(error.args for error in [raised, *answers] if isinstance(error, FailedError))
    assert len(callers) == 65
    assert most_calls_of_one_thread(scene) == 1
    assert len(scene.journal("calls").lines()) == 65
    assert (counted.currsize, counted.takeovers) == (0, 0)


def test_nobody_queues_for_results_that_cannot_be_stored(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, codec="msgpack")
    with Cast() as cast:
        answers = cast.actor().run(interrupts.locks_behind_one_owner, scene, unstorable, 16)
        counted = cast.actor().run(info, scene, unstorable)
    assert answers == ["lock"] * 17
    assert most_calls_of_one_thread(scene) == 1
    assert (counted.misses, counted.currsize) == (17, 0)
    assert 1 < counted.rejected <= 17  # who computes without a claim does not try to store


@pytest.mark.parametrize("maxsize", [0, 1])
def test_nobody_queues_for_a_store_that_keeps_too_little(tmp_path: Path, maxsize: int) -> None:
    scene = Scene.at(tmp_path, maxsize=maxsize)
    with Cast() as cast:
        _, answers, actor = behind_one_owner(cast, scene, succeeding, processes=2, threads=8)
        counted = actor.run(info, scene, succeeding)
    assert answers == [[10]] * 16
    assert most_calls_of_one_thread(scene) == 1
    assert counted.misses == len(scene.journal("calls").lines()) == (17 if maxsize == 0 else 1)
    assert counted.currsize == maxsize


def test_sixteen_waiters_on_items_that_evict_one_another_all_get_their_answers(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, maxsize=1)
    with Cast() as cast:
        owner, *others = cast.actors(3)
        owning = owner.begin(call, scene, succeeding, [1, 2, 3])
        scene.flag("inside").wait()
        crowds = [other.begin(call_in_threads, scene, succeeding, [1, 2, 3], 8) for other in others]
        for other in others:
            other.run(wait_for_waiters, scene, succeeding, 8)
        scene.flag("go").set()
        assert owning.result() == [10, 20, 30]
        assert [answer for crowd in crowds for answer in crowd.result()] == [[10, 20, 30]] * 16
        counted = owner.run(info, scene, succeeding)
    assert counted.currsize == 1
    assert counted.hits + counted.misses + counted.waits == 17 * 3


@pytest.mark.parametrize(("behaviour", "raises"), [(interrupted_once, KeyboardInterrupt), (exiting_once, SystemExit)])
def test_after_an_interrupt_one_waiter_takes_over_and_the_others_wait_on(
    tmp_path: Path, behaviour: Behaviour, raises: type[BaseException]
) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        raised, answers, actor = behind_one_owner(cast, scene, behaviour, processes=2, threads=8)
        counted = actor.run(info, scene, behaviour)
    assert isinstance(raised, raises)
    assert answers == [[10]] * 16
    assert len(scene.journal("calls").lines()) == 2
    assert (counted.misses, counted.takeovers) == (2, 1)


def test_a_signal_handler_that_raises_at_any_moment_leaves_no_claim_lock_or_closed_gate(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, maxsize=50)
    with Cast() as cast:
        stormed = cast.actor()
        report = stormed.begin(interrupts.storm, scene, 3.0, in_main_thread=True).result()
        assert report.interrupted > 100
        assert report.wrong == 0
        assert report.inside_the_gate == 0
        assert report.reports == []
        assert report.claims_that_hold == 0
        assert stormed.begin(interrupts.still_caches, scene, in_main_thread=True).result()
