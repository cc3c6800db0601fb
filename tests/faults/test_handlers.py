"""Guarantees 7 and 9: handlers of signals, finalisers and fork hooks may use the cache, and fork, at any moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults._injection import SIGNALS, sample
from tests.faults.programs import acting, interrupted
from tests.faults.programs.acting import ACTS, Act, Acted
from tests.faults.programs.interrupted import answer_to, as_told, batch_of
from tests.processes._tools import Actor, Cast, Scene
from tests.processes.programs.scenes import call, contains

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")

STEPS = 10
"""Steps of a call at which something happens, where not all are tried."""


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_what_happens_in_the_midst_of_a_call_harms_neither(tmp_path: Path, act: Act, stored: bool) -> None:
    scene = Scene.at(tmp_path)
    with Cast() as cast:
        actor, other = cast.actors(2)
        other.run(call, scene, as_told, [0])
        whole = acted(actor, other, scene, 0, act, batch_of(1), stored=stored)
        whole = acted(actor, other, scene, 0, act, batch_of(2), stored=stored)
        wrong = []
        for number, step in enumerate(sample(whole.places, STEPS, seed=len(act.__name__)), 3):
            items = batch_of(number)
            found = acted(actor, other, scene, step, act, items, stored=stored)
            followed, waits = other.run(interrupted.follow, scene, items)
            if (found.answer, found.right, found.left) != (answer_to(items), [True] if found.place else [], []):
                wrong.append(found)
            if (followed, waits, alone(actor, call, scene, as_told, items)) != (answer_to(items), 0, answer_to(items)):
                wrong.append(found)
            assert other.run(contains, scene, as_told, items) == [True] * len(items)
        counted = alone(actor, interrupted.count, scene)
    assert wrong == []
    assert counted.stored == counted.recounted


def alone(actor: Actor, function: Callable[..., Any], *arguments: Any) -> Any:
    """What an actor comes to that has no thread beside its first: a fork in C may find its locks taken."""
    return actor.begin(function, *arguments, in_main_thread=True).result()


def acted(actor: Actor, other: Actor, scene: Scene, step: int, act: Act, items: list[int], *, stored: bool) -> Acted:
    if stored:
        other.run(call, scene, as_told, items)
    found: Acted = alone(actor, acting.act_at, scene, SIGNALS, step, act, items)
    return found


@pytest.mark.parametrize("what", ["calls", "forks"])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_users_fork_hooks_call_and_fork_before_and_after_ours(tmp_path: Path, when: str, what: str) -> None:
    scene = Scene.at(tmp_path)
    program = [sys.executable, "-c", acting._HOOKS, when, what, str(tmp_path)]
    ended = subprocess.run(
        program, cwd=Path(__file__).parents[2], timeout=60, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    expected = {"before True", "parent True", "child True", "fork True", "counts True", "left []"}
    assert set(scene.journal("hooks").lines()) == expected
