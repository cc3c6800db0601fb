"""The driver's wait: who rings the bell, and when."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

from batche import _drive
from batche._wakeups import Wakeups

KEY = b"k" * 28


def test_a_bell_rung_before_the_wait_or_twice_ends_one_wait() -> None:
    wakeups = Wakeups()
    with _drive._listen(wakeups, [KEY]) as bell:
        wakeups.wake([KEY])
        wakeups.wake([KEY])
        waiter = threading.Thread(target=bell.wait, args=(60,), daemon=True)
        waiter.start()
        waiter.join(30)
        assert not waiter.is_alive()


def test_a_bell_may_be_rung_at_any_point_of_its_own_threads_wait() -> None:
    """As a signal handler does that invalidates an item which the call under it waits for."""
    wakeups, rung = Wakeups(), list[int]()

    def ring_at_each_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            wakeups.wake([KEY])
            rung.append(frame.f_lineno)
        return ring_at_each_line

    def wait() -> None:
        with _drive._listen(wakeups, [KEY]) as bell:
            sys.settrace(lambda frame, event, _: ring_at_each_line if frame.f_code.co_name == "wait" else None)
            try:
                bell.wait(60)
            finally:
                sys.settrace(None)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    waiter.join(30)
    assert not waiter.is_alive()
    assert rung
