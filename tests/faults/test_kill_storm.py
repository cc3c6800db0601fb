"""Guarantees 2, 3 and 8 while workers are killed at random, checked from a journal outside of the cache."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests import _leftovers
from tests.faults._kill_steps import kill_steps
from tests.faults._kill_storm import kill_storm, plan_in
from tests.faults._report import Report
from tests.faults.programs.storms import Plan
from tests.processes._tools import Cast, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bound of a takeover is promised for Linux")

KILLS = 100


def some(steps: list[int]) -> list[int]:
    return random.Random(0).sample(steps, 24)


def run(plan: Plan) -> Report:
    with Cast() as cast:
        storm = cast.actor().begin(kill_storm, plan, in_main_thread=True)
        assert storm.is_done(within=90)
        report = storm.result()
    assert isinstance(report, Report)
    return report


def test_nothing_is_lost_when_workers_are_killed(tmp_path: Path) -> None:
    report = run(plan_in(tmp_path / "storm", kills=KILLS))
    assert report.lost == []
    assert report.injected["caught computing"] > KILLS / 50
    assert report.found["calls"] > KILLS / 10


def test_a_runtime_place_outlives_killed_members_and_goes_with_the_last(tmp_path: Path) -> None:
    places = _leftovers.places()
    report = run(plan_in(tmp_path / "storm", kills=30, options=(("store", None),), seed=3))
    assert report.lost == []
    until(lambda: _leftovers.places() <= places, "the runtime place is gone")


def test_a_store_survives_a_writer_that_is_killed_at_any_line(tmp_path: Path) -> None:
    with Cast() as cast:
        lives = cast.actor().begin(kill_steps, tmp_path / "lives", some, in_main_thread=True)
        assert lives.is_done(within=90)
        report = lives.result()
    assert report.lost == []
    assert report.injected["kills"] > 20


def test_nothing_is_lost_when_workers_are_killed_while_they_evict(tmp_path: Path) -> None:
    limits = (("maxsize", 40), ("max_bytes", "128KiB"))
    report = run(plan_in(tmp_path / "storm", kills=KILLS, evicting=True, options=limits, seed=1))
    assert report.lost == []
    assert report.injected["caught computing"] > KILLS / 50
