"""What a test can leave behind, and how it is found: processes, exclusive locks, places of stores."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOTS = [Path("/dev/shm"), Path(tempfile.gettempdir())]
PLACES = ["batche-run-*", "batche-shm-*"]
GRACE = 5.0
"""Seconds that a process may take to end by itself after its test."""

_SET_CHILD_SUBREAPER = 36
_START_AND_END = """
from batche import cache_batch_variable

@cache_batch_variable("items", name="leftovers")
def double(items):
    return [2 * item for item in items]

assert double([1]) == [2]
"""


def adopt_orphans() -> None:
    """Make orphans among this process's descendants its children, so that `descendants` sees them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> set[psutil.Process]:
    """All living processes below this one, without the servants that Python keeps for as long as it lives."""
    multiprocessing.active_children()  # reaps those that have ended
    return {child for child in psutil.Process().children(recursive=True) if child.pid not in _servants()}


def end(processes: set[psutil.Process]) -> list[str]:
    """Wait for these to end by themselves, kill those that do not, and say which these were."""
    _, alive = psutil.wait_procs(processes, timeout=GRACE)
    described = [_describe(process) for process in alive]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE)
    return described


def exclusive_locks() -> set[str]:
    """The files on which this process holds an exclusive `flock`, by device and inode.

    Guards of creation and removal are of this kind, and are never held for long. Membership of a place is a
    shared lock, and liveness a lock of the other family: both last as long as the process, and are not listed.
    """
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines if "->" not in line]
    return {f[5] for f in fields if f[1] == "FLOCK" and f[3] == "WRITE" and f[4] == str(os.getpid())}


def places() -> set[str]:
    return {str(path) for root in ROOTS for pattern in PLACES for path in root.glob(pattern)}


def abandoned(*, since: set[str]) -> set[str]:
    """Places made since, which no living process has open, and which a program that starts does not remove.

    Places of killed processes are removed by the next program that starts one: so one is started first. A process
    that was just killed, of other tests perhaps, may hold its place's lock for a while: so this is done for `GRACE`.
    """
    left, deadline = _unused(places() - since), time.monotonic() + GRACE
    while left:
        subprocess.run([sys.executable, "-c", _START_AND_END], check=True, timeout=60)
        left &= _unused(places())
        if time.monotonic() > deadline:
            break
    return left


def _unused(candidates: set[str]) -> set[str]:
    unused = set(candidates)
    for pid in psutil.pids():
        unused -= {place for place in unused if any(path.startswith(place) for path in _open_paths(pid))}
    return unused


def _open_paths(pid: int) -> list[str]:
    paths = []
    with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile, as the one that listed them is
                paths.append(str(descriptor.readlink()))
    return paths


def _servants() -> set[int]:
    """The resource trackers and the fork server: started once, they end with the process that started them."""
    servants = [
        _attribute("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        _attribute("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
        _attribute("loky.backend.resource_tracker", "_resource_tracker", "_pid"),
    ]
    return {pid for pid in servants if isinstance(pid, int)}


def _attribute(module: str, instance: str, name: str) -> object:
    return getattr(getattr(sys.modules.get(module), instance, None), name, None)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)
