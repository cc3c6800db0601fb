"""Guarantee 7 under load: forks from threads while others read, write, compute and wait."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults._fork_storm import fork_storm
from tests.faults._report import Report
from tests.processes._tools import Cast, Scene

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")

FORKS = 40


def test_children_and_parent_go_on_through_a_storm_of_forks(tmp_path: Path) -> None:
    with Cast() as cast:
        storm = cast.actor().begin(fork_storm, Scene.at(tmp_path), FORKS)
        assert storm.is_done(within=90)
        report = storm.result()
    assert isinstance(report, Report)
    assert report.lost == []
    assert report.injected["forks"] == FORKS
