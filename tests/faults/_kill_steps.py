"""SIGKILL of a writer at each line of its life, one life for each; after each the store is used and recounted."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from tests.faults._report import Report
from tests.faults.programs import steps
from tests.processes._tools import exit_status, fork

KILLED: Final = -signal.SIGKILL


def kill_steps(directory: Path, choose: Callable[[list[int]], Iterable[int]]) -> Report:
    """Let a writer die at the steps that ``choose`` takes of all those at which another line of the source runs.

    In a process with one thread: it forks.
    """
    report = Report("SIGKILL of a writer at each line")
    directory.mkdir()
    for step in choose(_steps(directory)):
        life = directory / str(step)
        life.mkdir()
        _live_once(step, life / "place", report)
        shutil.rmtree(life)
    return report


def _live_once(step: int, place: Path, report: Report) -> None:
    _begin(place)
    if exit_status(fork(partial(steps.die_at, step, place))) == KILLED:
        report.injected["kills"] = report.injected.get("kills", 0) + 1
    wrong = exit_status(fork(partial(steps.look, place)))
    report.check(wrong == 0, f"killed at step {step}: {wrong} things are wrong")


def _begin(place: Path) -> None:
    if exit_status(fork(partial(steps.begin, place))) != KILLED:
        raise AssertionError("the first owner was to be killed")


def _steps(directory: Path) -> list[int]:
    """The numbers of the steps at which a line runs for the first time in a life."""
    notes = directory / "lines"
    (directory / "life").mkdir()
    _begin(directory / "life" / "place")
    if exit_status(fork(partial(steps.note_lines, notes, directory / "life" / "place"))) != 0:
        raise AssertionError("the writer was to live")
    lines = notes.read_text().splitlines()
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        first.setdefault(line, number)
    return list(first.values())
