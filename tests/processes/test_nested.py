"""Guarantee 5 for calls inside batch functions: whatever waits for whatever, no circle of waits closes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes._tools import Cast, Scene
from tests.processes.programs import nesting
from tests.processes.programs.scenes import Behaviour, call, plain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def test_a_function_may_call_itself_with_the_items_it_computes(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        assert cast.actor().run(call, scene, nesting.overlapping, [1, 2]) == [10, 20]


def test_a_function_may_recur_into_smaller_items(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        tasks = [
            actor.begin(call, scene, nesting.fibonacci, [n, 30, n + 1]) for n, actor in enumerate(cast.actors(3), 20)
        ]
        assert [task.result() for task in tasks] == [
            [6765, 832040, 10946],
            [10946, 832040, 17711],
            [17711, 832040, 28657],
        ]


def test_two_functions_that_call_each_other_from_two_processes_both_finish(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        one, other = cast.actors(2)
        tasks = [one.begin(call, scene, nesting.first, [1, 2]), other.begin(call, scene, nesting.second, [1, 2])]
        assert [task.result() for task in tasks] == [[10, 20], [10, 20]]


def test_who_holds_1_and_wants_2_and_who_holds_2_and_wants_1_both_finish(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        tasks = [
            actor.begin(call, scene, nesting.crossing, [item, 10 + item])
            for item, actor in enumerate(cast.actors(2), 1)
        ]
        assert [task.result() for task in tasks] == [[10, 110], [20, 120]]


@pytest.mark.parametrize("behaviour", [nesting.through_to_thread, nesting.through_copied_context])
def test_a_call_in_another_thread_but_in_the_same_context_is_a_nested_one(tmp_path: Path, behaviour: Behaviour) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        assert cast.actor().run(call, scene, behaviour, [1]) == [10]
    assert scene.journal().lines() == ["1", "1"]


def test_sixty_random_acyclic_recursions_across_three_processes_finish(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        tasks = [actor.begin(nesting.walk, scene, seed, 60) for seed, actor in enumerate(cast.actors(3))]
        assert [task.result() for task in tasks] == [0, 0, 0]


def test_a_signal_handler_does_not_wait_for_the_call_that_it_interrupts_in_its_codec(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, codec=nesting.Signalled(tmp_path))
    with Cast() as cast:
        task = cast.actor().begin(nesting.call_with_handler, scene, [1, 2], in_main_thread=True)
        assert task.result() == [10, 20]
    assert scene.journal("handled").lines() == ["10", "20"]


def test_a_signal_handler_does_not_wait_for_the_call_that_it_interrupts_in_its_claim(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        task = cast.actor().begin(nesting.call_with_handler_once_claimed, scene, [1, 2], in_main_thread=True)
        assert task.result() == [10, 20]
    assert scene.journal("handled").lines() == ["10", "20"]
    assert scene.journal().lines() == ["1", "2", "1", "2"]


def test_codecs_that_want_what_the_other_call_holds_do_not_wait_in_a_circle(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path, codec=nesting.Calling(tmp_path))
    with Cast() as cast:
        tasks = [actor.begin(call, scene, plain, [item]) for item, actor in enumerate(cast.actors(2), 1)]
        assert [task.result() for task in tasks] == [[10], [20]]
