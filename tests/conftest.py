"""What every test is held to: a time limit, no skip unasked for, and nothing left behind.

The time limit is in ``pyproject.toml``. Nothing left behind means, after each test: no process that the test
started, orphans included, and no exclusive lock; after the session: no abandoned place of a store.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests import _leftovers

if TYPE_CHECKING:
    from collections.abc import Generator

UNSKIPPABLE = os.environ.get("BATCHE_CI") == "1"
"""On a machine that has all that the tests need, a skip is a failure."""

NOT_EVERYWHERE = {"torch"}
"""Packages that are installed in a test environment of their own: tests that need them may skip elsewhere."""

hypothesis.settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,  # a shared machine stalls; the limit of a whole test catches what hangs
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # for the same reason
)
hypothesis.settings.register_profile("torture", hypothesis.settings.get_profile("ci"), max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    processes, locks = _leftovers.descendants(), _leftovers.exclusive_locks()
    yield
    left = _leftovers.end(_leftovers.descendants() - processes)
    assert not left, f"processes left behind: {left}"
    held = _leftovers.exclusive_locks() - locks
    assert not held, f"exclusive locks left behind: {held}"


def pytest_sessionstart(session: pytest.Session) -> None:
    _leftovers.adopt_orphans()
    session.config.stash[_PLACES] = _leftovers.places()


@pytest.hookimpl(trylast=True)  # after xdist has ended its workers
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for places that nobody uses and that the next start of a program did not remove."""
    if hasattr(session.config, "workerinput"):
        return
    left = _leftovers.abandoned(since=session.config.stash[_PLACES])
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[_LEFT] = left


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left: set[str] = config.stash.get(_LEFT, set())
    for place in sorted(left):
        terminalreporter.line(f"FAILED: place left behind: {place}", red=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    xfailed = hasattr(report, "wasxfail")
    if report.skipped and not xfailed and item.get_closest_marker("may_skip") is None:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = _skip_reason(report.longrepr)
    if UNSKIPPABLE and not _needs_absent_package(reason) and not _needs_newer_python(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped where no test may be: {reason}"


def _skip_reason(longrepr: Any) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


def _needs_absent_package(reason: str) -> bool:
    found = re.search(r"could not import '(\w+)", reason)
    return found is not None and found[1] in NOT_EVERYWHERE and importlib.util.find_spec(found[1]) is None


def _needs_newer_python(reason: str) -> bool:
    found = re.search(r"new in 3\.(\d+)", reason)
    return found is not None and sys.version_info < (3, int(found[1]))


_PLACES = pytest.StashKey[set[str]]()
_LEFT = pytest.StashKey[set[str]]()
