"""Inject faults for minutes, and print a table of what was injected and of what was lost.

``python -m tests.faults.torture``. Names of faults as arguments choose some. The status is 1 if anything was lost.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from tests import _leftovers
from tests.faults._fork_storm import fork_storm
from tests.faults._kill_steps import kill_steps
from tests.faults._kill_storm import kill_storm, plan_in
from tests.faults._report import Report
from tests.processes._tools import Cast, Scene

LIMIT: Final = 1800.0
"""Seconds after which a fault is given up, and counts as lost."""
_LIMITS: Final = (("maxsize", 40), ("max_bytes", "128KiB"))
_COLUMNS: Final = (34, 48, 72)

Fault = Callable[[Path], Report]


def _storm(directory: Path, **plan: object) -> Report:
    return kill_storm(plan_in(directory, **plan))


def _forks(directory: Path) -> Report:
    directory.mkdir()
    return fork_storm(Scene.at(directory), 200)


def _each_line(directory: Path) -> Report:
    return kill_steps(directory, lambda steps: steps)


FAULTS: Final[Mapping[str, Fault]] = {
    "kills": partial(_storm, kills=1000),
    "kills-crowded": partial(_storm, kills=1000, workers=16, pace=0.004, seed=1),
    "kills-evicting": partial(_storm, kills=1000, evicting=True, options=_LIMITS, seed=2),
    "kills-runtime": partial(_storm, kills=300, options=(("store", None),), seed=3),
    "stops": partial(_storm, kills=500, stopping=True, seed=4),
    "stops-evicting": partial(_storm, kills=500, stopping=True, evicting=True, options=_LIMITS, seed=5),
    "lines": _each_line,
    "forks": _forks,
}


def inject(fault: Fault, directory: Path) -> Report:
    """Run one in a process of its own, which must leave no other behind, nor a runtime place."""
    processes, places = _leftovers.descendants(), _leftovers.places()
    with Cast() as cast:
        running = cast.actor().begin(fault, directory, in_main_thread=True)
        report = running.result() if running.is_done(within=LIMIT) else Report(directory.name, lost=["it never ended"])
    assert isinstance(report, Report)
    left = _leftovers.end(_leftovers.descendants() - processes)
    report.check(not left, f"processes left: {left}")
    report.check(not _leftovers.places() - places, "a runtime place is left")
    return report


def _row(*cells: str) -> str:
    return " | ".join(cell.ljust(width) for cell, width in zip(cells, _COLUMNS, strict=False)) + " | " + cells[-1]


def _told(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{number:g} {name}" for name, number in numbers.items())


def main(names: list[str]) -> int:
    _leftovers.adopt_orphans()
    print(_row("fault", "injected", "found", "lost"), flush=True)
    lost = 0
    with tempfile.TemporaryDirectory() as directory:
        for name in names or FAULTS:
            begun = time.monotonic()
            report = inject(FAULTS[name], Path(directory) / name)
            seconds = {"s": round(time.monotonic() - begun)}
            print(_row(report.fault, _told(report.injected), _told(report.found | seconds), str(len(report.lost))))
            print(*report.lost[:10], sep="\n", end="\n" * bool(report.lost), flush=True)
            lost += len(report.lost)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
