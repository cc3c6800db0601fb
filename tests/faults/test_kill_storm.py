"""Guarantees 2, 3 and 8 while workers are killed at random, checked from a journal outside of the cache."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults._kill_storm import kill_storm, plan_in
from tests.faults._report import Report
from tests.faults.programs.storms import Plan
from tests.processes._tools import Cast

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bound of a takeover is promised for Linux")

KILLS = 100


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
    assert report.injected["caught computing"] > KILLS / 10
    assert report.found["calls"] > KILLS


def test_nothing_is_lost_when_workers_are_killed_while_they_evict(tmp_path: Path) -> None:
    limits = (("maxsize", 40), ("max_bytes", "128KiB"))
    report = run(plan_in(tmp_path / "storm", kills=KILLS, evicting=True, options=limits, seed=1))
    assert report.lost == []
    assert report.injected["caught computing"] > KILLS / 10
