"""A storm of kills: workers on overlapping batches, and a killer that ends a random one every few milliseconds.

What must hold is read from a journal outside of the cache, and from a recount of the store afterwards.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults._journal import Line
from tests.faults._recount_open import lock_holders, readers, recount
from tests.faults._report import Report
from tests.faults.programs.storms import Plan, Worker, answer, batch_of, quietly
from tests.processes._tools import until

TAKEOVER: Final = 0.25
"""Seconds within which a dead owner's items are taken over."""
LENIENCE: Final = 8
"""How many times as long as promised it may take on a machine that others use."""
_STANDSTILL: Final = 0.05
"""Seconds that a stopped worker stands still, on average."""
_LAST_CALL: Final = 30.0
"""Seconds within which every call is over once nobody is killed any more."""


def kill_storm(plan: Plan) -> Report:
    """Run one storm. In a process of its own, with one thread: it forks its workers and reaps them."""
    report = Report(plan.fault)
    if plan.store is None:
        multiprocessing.current_process().authkey = os.urandom(32)  # a runtime place of its own
    worker = Worker(plan)
    _Killer(plan, worker, report).run()
    story = Story(plan.book.lines())
    report.injected["caught computing"] = story.caught
    report.found["calls"] = len(story.returned)
    _check_answers(story, report)
    if not plan.stopping:  # an owner that stands still is waited for
        _check_waits(story, report)
    if not plan.evicting:
        _check_once(story, report)
        _check_counts(worker, story, report)
    _check_store(worker, story, report)
    return report


class _Killer:
    """Starts workers, kills them, and reaps them."""

    def __init__(self, plan: Plan, worker: Worker, report: Report) -> None:
        self.plan = plan
        self.worker = worker
        self.report = report
        self.chance = random.Random(plan.seed)
        self.living: dict[int, int] = {}
        self.dying: set[int] = set()
        self.stopped: dict[int, float] = {}
        self.started = 0

    def run(self) -> None:
        for _ in range(self.plan.workers):
            self._start()
        unreplaced = self.plan.workers // 2  # at the end, so that nobody takes the rows of the dead
        for left in reversed(range(self.plan.kills)):
            time.sleep(self.chance.expovariate(1 / self.plan.pace))  # the pace of the injection
            if self.plan.stopping:
                self._stop()
                self._resume(time.monotonic())
            self._kill()
            self._reap()
            if left >= unreplaced:
                self._start()
        time.sleep(10 * self.plan.pace)  # so that some of the others ask for what the last of the dead owned
        self.plan.stop.touch()
        self._resume(float("inf"))
        self.report.injected["kills"] = self.plan.kills
        try:
            until(self._all_ended, "all workers have ended", _LAST_CALL)
        except TimeoutError:
            self.report.lost.append(f"workers {sorted(self.living.values())} never came to the end of their calls")
            self._end_all()

    def _start(self) -> None:
        self.started += 1
        pid = os.fork()
        if pid == 0:
            quietly(self.worker.run, self.started)
        self.living[pid] = self.started

    def _kill(self) -> None:
        pid = self.chance.choice(list(self.living))
        serial = self.living.pop(pid)
        self.plan.book.note("killed", serial, 0, 0, pid=pid)
        os.kill(pid, signal.SIGKILL)
        self.dying.add(pid)
        self._add("killed while stopped", self.stopped.pop(pid, None) is not None)

    def _stop(self) -> None:
        pid = self.chance.choice(list(self.living))
        os.kill(pid, signal.SIGSTOP)
        self.stopped[pid] = time.monotonic() + self.chance.expovariate(1 / _STANDSTILL)
        self._add("stops", 1)

    def _resume(self, now: float) -> None:
        """Let those go on who have stood still for long enough by ``now``."""
        for pid in [pid for pid, until_then in self.stopped.items() if until_then <= now]:
            del self.stopped[pid]
            os.kill(pid, signal.SIGCONT)

    def _add(self, what: str, number: int) -> None:
        if self.plan.stopping:
            self.report.injected[what] = self.report.injected.get(what, 0) + number

    def _all_ended(self) -> bool:
        self._reap()
        return not (self.living or self.dying)

    def _reap(self) -> None:
        while self.living or self.dying:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self.dying.discard(pid)
            serial = self.living.pop(pid, None)
            if serial is not None and status != 0:
                self.report.lost.append(f"worker {serial} ended by itself with status {status}")

    def _end_all(self) -> None:
        for pid in self.living:
            os.kill(pid, signal.SIGKILL)
        for pid in [*self.living, *self.dying]:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


Asked = tuple[int, int]
"""A worker and the number of its call."""


@dataclass
class _Death:
    """A worker that was killed, and the items that its last call had begun to compute."""

    when: int
    items: set[int]


class Story:
    """The journal, put together."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.called: dict[Asked, Line] = {}
        self.returned: dict[Asked, Line] = {}
        self.wrong: list[Asked] = []
        self.failed: list[Asked] = []
        self.killed: dict[int, int] = {}
        self.began: defaultdict[int, list[Asked]] = defaultdict(list)
        self.slowest = 0.0
        """Seconds that the function took at most, on this machine as it was."""
        self._computing: defaultdict[Asked, set[int]] = defaultdict(set)
        self._since: dict[tuple[Asked, int], int] = {}
        for line in lines:
            getattr(self, f"_{line.what}")((line.worker, line.call), line)
        self.deaths = [self._death(worker, when) for worker, when in self.killed.items()]

    def _called(self, asked: Asked, line: Line) -> None:
        self.called[asked] = line

    def _returned(self, asked: Asked, line: Line) -> None:
        self.returned[asked] = line

    def _wrong(self, asked: Asked, line: Line) -> None:
        self.wrong.append(asked)

    def _failed(self, asked: Asked, line: Line) -> None:
        self.failed.append(asked)

    def _killed(self, asked: Asked, line: Line) -> None:
        self.killed[line.worker] = line.when

    def _begin(self, asked: Asked, line: Line) -> None:
        self.began[line.number].append(asked)
        self._computing[asked].add(line.number)
        self._since[asked, line.number] = line.when

    def _end(self, asked: Asked, line: Line) -> None:
        self.slowest = max(self.slowest, (line.when - self._since[asked, line.number]) / 1e9)

    def _death(self, worker: int, when: int) -> _Death:
        unfinished = [asked for asked in self._computing if asked[0] == worker and asked not in self.returned]
        return _Death(when, {item for asked in unfinished for item in self._computing[asked]})

    @property
    def caught(self) -> int:
        """Kills that came upon an owner between the beginning of its computation and the end of its call."""
        return sum(bool(death.items) for death in self.deaths)

    def seconds(self, asked: Asked) -> float:
        return (self.returned[asked].when - self.called[asked].when) / 1e9

    def deaths_on(self, asked: Asked) -> int:
        """How many owners of items of this call died while it ran."""
        called, returned = self.called[asked], self.returned[asked]
        batch, died = set(batch_of(called.number)), [death for death in self.deaths if called.when <= death.when]
        return sum(death.when <= returned.when and not batch.isdisjoint(death.items) for death in died)


def _check_answers(story: Story, report: Report) -> None:
    report.check(not story.wrong, f"{len(story.wrong)} calls were answered wrongly")
    report.check(not story.failed, f"{len(story.failed)} calls raised")
    unended = [asked for asked in story.called if asked not in story.returned and asked[0] not in story.killed]
    report.check(not unended, f"{len(unended)} calls of workers that were not killed did not return")


def _check_once(story: Story, report: Report) -> None:
    """An item is computed once, and once more for each kill that caught its owner at it."""
    report.found["items"] = len(story.began)
    report.found["computed"] = sum(map(len, story.began.values()))
    for item, calls in story.began.items():
        kept = [asked for asked in calls if asked in story.returned]
        report.check(len(kept) <= 1, f"item {item} was computed by {len(kept)} calls that nobody killed: {kept}")


def _check_waits(story: Story, report: Report) -> None:
    """A call takes as long as its own computing and one of those it waits for, and more only for owners that died."""
    longest = excess = 0.0
    for asked in story.returned:
        took, deaths = story.seconds(asked), story.deaths_on(asked)
        promised = 2 * story.slowest + TAKEOVER + deaths * (story.slowest + TAKEOVER)
        longest, excess = max(longest, took), max(excess, took / promised)
        report.check(took <= LENIENCE * promised, f"call {asked} took {took:.3f} s, with {deaths} deaths upon it")
    report.found["slowest function (ms)"] = round(1000 * story.slowest)
    report.found["longest call (ms)"] = round(1000 * longest)
    report.found["of what is promised (%)"] = round(100 * excess)


def _check_counts(worker: Worker, story: Story, report: Report) -> None:
    """Every position of a call that returned was counted once; of a killed one, all or none."""
    counted = worker.function.cache_info()
    positions = counted.hits + counted.misses + counted.waits
    least = sum(line.number for line in story.returned.values())
    cut_short = [line.number for asked, line in story.called.items() if asked not in story.returned]
    most = least + sum(len(batch_of(number)) for number in cut_short)
    report.found["takeovers"] = counted.takeovers
    report.check(least <= positions <= most, f"{positions} positions counted, not {least} to {most}")
    report.check(counted.errors == 0, f"{counted.errors} errors of the store")


def _check_store(worker: Worker, story: Story, report: Report) -> None:
    """The store opens, answers all that was ever asked, and holds what it says it holds, and nothing of the dead."""
    asked = sorted({item for line in story.called.values() for item in batch_of(line.number)})
    for start in range(0, len(asked), 1000):
        part = asked[start : start + 1000]
        report.check(worker.function(part) == [answer(item) for item in part], f"items from {start} on are wrong")
    store = worker.function.store
    try:
        until(lambda: not _write_once_more(worker), "no claim is left", LENIENCE * 2.0)
    except TimeoutError:
        report.lost.append(f"{recount(store).claims} claims of the dead were never swept")
    found = recount(store)
    report.lost += found.wrong
    report.found["entries"] = found.entries
    _check_limits(worker, found.entries, found.bytes, report)
    left = readers(store) - {os.getpid()}
    report.check(not left, f"{len(left)} readers of dead processes are left")
    holders = lock_holders(store._opened.place.path) - {os.getpid()}
    report.check(not holders, f"locks are left: {holders}")


def _write_once_more(worker: Worker) -> int:
    """Be the next writer; the claims that are written down after it."""
    worker.function.cache_invalidate([-1])
    return recount(worker.function.store).claims


def _check_limits(worker: Worker, entries: int, size: int, report: Report) -> None:
    told = worker.function.cache_info()
    report.check((told.currsize, told.bytes) == (entries, size), f"{told} where {entries} entries of {size} bytes are")
    report.check(told.maxsize is None or entries <= told.maxsize, f"{entries} entries, over {told.maxsize}")
    report.check(told.max_bytes is None or size <= told.max_bytes, f"{size} bytes, over {told.max_bytes}")


def plan_in(directory: Path, **plan: object) -> Plan:
    """A plan in a directory of its own, which is made."""
    directory.mkdir()
    return Plan(directory, **plan)  # type: ignore[arg-type]  # the fields by name, which Plan checks
