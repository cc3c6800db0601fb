"""Processes of two PID namespaces that use one place share it, or one of them is refused; nobody is taken for dead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.programs import namespaced
from tests.processes._tools import LONGEST, Scene, until

_CAN = sys.platform == "linux" and shutil.which("unshare") is not None
pytestmark = [
    pytest.mark.skipif(not _CAN, reason="there are no PID namespaces without Linux and its unshare"),
    pytest.mark.may_skip("a machine may forbid its users namespaces"),
]


@pytest.fixture(autouse=True)
def _allowed() -> None:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if subprocess.run(["unshare", *user, "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("namespaces are not allowed here")


@pytest.mark.parametrize("own_proc", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_two_processes_of_one_pid_do_not_share_and_both_answer(tmp_path: Path, *, strict: bool, own_proc: bool) -> None:
    scene = Scene.at(tmp_path, strict=strict)
    with namespaced.start(scene, "hold", own_proc=own_proc, name="owner") as owner:
        scene.flag("inside-1").wait()
        with namespaced.start(scene, "ask", own_proc=own_proc, name="other") as other:
            until(lambda: len(scene.journal().lines()) == 3 or other.poll() is not None, "the other one is refused")
            scene.flag("go-1").set()
            assert other.wait(LONGEST) == 0
        assert owner.wait(LONGEST) == 0
    assert scene.journal("pids").lines() == ["1", "1"]
    assert scene.journal("warnings-owner").lines() == []
    answers, warnings = scene.journal("answers-other").lines(), scene.journal("warnings-other").lines()
    if strict:
        assert len(answers) == 1
        assert "PID namespace" in answers[0]
        assert warnings == []
    else:
        assert answers == ["[30]", "[10]"]
        assert len(warnings) == 1
        assert "PID namespace" in warnings[0]


@pytest.mark.parametrize("own_proc", [True, False])
def test_a_living_owner_in_a_namespace_is_waited_for_whatever_its_pid_is_outside(
    tmp_path: Path, *, own_proc: bool
) -> None:
    scene = Scene.at(tmp_path)
    with namespaced.start(scene, "family", own_proc=own_proc, name="family") as family:
        assert family.wait(LONGEST) == 0
    assert scene.journal("family").lines()[1:] == ["0", "0"]
    assert scene.journal().lines() == ["1"]


def test_an_owner_outside_is_waited_for_while_it_lives_and_no_longer(tmp_path: Path) -> None:
    scene = Scene.at(tmp_path)
    scene.flag("go-3").set()
    with namespaced.start(scene, "hold", own_proc=True, name="owner") as owner:
        scene.flag("inside-1").wait()
        waiting = namespaced.Waiter(scene)
        assert waiting.is_waiting()
        owner.kill()
        until(lambda: scene.journal().lines() == ["1", "1"], "the waiter takes over")
        scene.flag("go-1").set()
        assert waiting.answer() == [10]
