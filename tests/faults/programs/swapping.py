"""Somebody who has a directory's path lead elsewhere, right after any system call of who is about to use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from tests.processes._tools import exit_status, fork

Made = Callable[[Path], Callable[[list[int]], list[Any]]]
"""Makes a cached function of a place; its own answer to each item is `OWN`."""
OWN = "own"
_NOT_REACHED = 7


class Swap:
    """Has ``path`` lead to ``planted`` from right after the ``number``-th system call that Python makes."""

    def __init__(self, path: Path, planted: Path, ours: Path, number: int) -> None:
        self.left = number
        self.path, self.planted, self.ours = path, planted, ours

    def __call__(self, frame: object, event: str, called: object) -> None:
        if event == "c_return" and getattr(called, "__module__", "") == "posix":
            self.left -= 1
            if self.left == 0:
                self.path.rename(self.ours)
                self.path.symlink_to(self.planted)


def attack_after_each(place: Path, path: Path, planted: Path, made: Made, stride: int) -> int:
    """Swap ``path`` for ``planted`` after every ``stride``-th system call of a first call; how many it makes."""
    moved = place.with_name("moved")
    for number in count(stride, stride):
        status = exit_status(fork(partial(_attacked, place, Swap(path, planted, moved, number), made)))
        if status != 0:
            assert status == _NOT_REACHED, f"after step {number}"
            return number
        for put in (path, *path.parent.glob(f"{path.name}.damaged-*")):
            put.unlink() if put.is_symlink() else shutil.rmtree(put, ignore_errors=True)
        moved.rename(path)
    raise AssertionError("there is no end to it")


def _attacked(place: Path, swap: Swap, made: Made) -> int:
    function = made(place)
    sys.setprofile(swap)
    answer = function([1])
    sys.setprofile(None)
    assert answer == [OWN]
    assert str(swap.planted) not in _mapped()
    return _NOT_REACHED if swap.left > 0 else 0


def _mapped() -> str:
    """What this process has mapped and open."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return "\n".join([Path("/proc/self/maps").read_text(), *links])
