"""The algorithm, written once: how a call comes by the results of its items.

`Run.steps` is a generator that yields what it needs done and is sent what came of it; it does no I/O itself.
It claims a part, computes it, stores it and claims the next in one step, and waits only once nothing unclaimed
is left and it holds no claim. So overlapping batches cannot deadlock, and callers of one list share its work.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from batche import _calls
from batche._batches import results_of
from batche._boot import boot_ns
from batche._made_once import made_once
from batche._places import BegunAnewError
from batche._plan import Plan
from batche._results import Results
from batche._settings import Settings
from batche._steps import Claim, Compute, Delete, Listen, Owners, Put, Read, Step, Steps, Wait
from batche._types import MINE, NOTHING_IS, Call, Entry, Key, Owner, Stored
from batche.errors import StoreError
from batche.stores.base import Answer

FIRST_POLL: Final = 0.0005
"""Seconds until a waiter first looks again."""
LAST_POLL: Final = 0.01
"""Seconds between looks once a wait has lasted a while; looking doubles from `FIRST_POLL`."""
LAST_POLL_HERE: Final = 0.1
"""The same where all owners are in this process, which wakes who waits: but another process may take claims over."""
LONG_WAIT: Final = 30.0
"""Seconds of waiting for one owner that are worth a line in the log."""
MOST_STRIKES: Final = 2
"""How many owners of one key may end without an entry before a waiter computes it without waiting."""


class Run:
    """One call under way: what it found, what it owns, what others own.

    With ``refresh`` it computes all its items, whatever entries there are and whoever else computes them; the old
    entries are served meanwhile, and stay where the function fails.
    """

    # A call that only hits does without these: see `_prepare`.
    _mine: list[Key]
    _alone: list[Key]  # to be computed without a claim
    _taken: dict[Key, Owner]
    _strikes: Counter[Key]
    _expired: set[Key]
    _since: dict[Key, int]  # since when it waits for somebody else, by the boot clock; its own computing is no wait

    def __init__(self, settings: Settings, plan: Plan, *, refresh: bool = False) -> None:
        self.settings = settings
        self.plan = plan
        self.refresh = refresh
        self._found: Sequence[Entry | None] | None = None
        self._trouble: StoreError | None = None

    @made_once
    def call(self) -> Call:
        """What the claims of this run name."""
        return _calls.new_call(self.settings.namespace)

    @made_once
    def results(self) -> Results:
        """What this run has so far; a call that only hits does without it."""
        return Results(self.settings, self.plan)

    def recall(self) -> list[Any] | None:
        """The results where every item has an entry, which takes no step; `None` where `steps` are to be run."""
        settings, plan = self.settings, self.plan
        try:
            self._found = found = settings.store.read(plan.by_use)
        except StoreError as error:
            self._trouble = error  # told by the steps
            return None
        if not all(found) or (settings.ttl is not None and not all(self._fresh(found))):
            return None
        decode = settings.codec.decode
        try:
            results = [decode(entry[0]) for entry in found]  # type: ignore[index]  # all are there
        except Exception:  # a user's codec may raise anything
            return None  # the steps find out which
        if plan.by_use is not plan.keys:  # there are duplicates
            results = self.results.spread(results)
        try:
            settings.store.release(settings.nobody, counts={"hits": len(results)})
        except StoreError as trouble:  # a store that breaks its promise must not break the function
            self._tell(trouble)
        return results

    def has(self, entries: Sequence[Entry | None]) -> list[bool]:
        """Which positions have an entry, given the entries of the distinct keys in order of use."""
        fresh = self._fresh(entries)
        there = {key for key, entry in zip(self.plan.by_use, fresh, strict=True) if entry is not None}
        return [key in there for key in self.plan.keys]

    def _prepare(self) -> None:
        self.call.holds = False  # there from here on: a fork's copy of this run must tell that it is one
        self._lost = False  # whether the store is of no use to the rest of this call
        self._unclaimed: list[Key] = []
        self._mine, self._alone, self._taken = [], [], {}
        self._strikes = Counter()
        self._expired, self._since = set(), {}

    # ---- the algorithm ----

    def steps(self) -> Steps:
        """Answer every position of the plan; returns the list of results."""
        self._prepare()
        yield from self._look_up()
        yield from self._fill()
        return self.results.merge()

    def _look_up(self) -> Steps:
        if self.refresh:
            self._unclaimed = self.plan.distinct()
            return
        found = self._found
        trouble, self._trouble = self._trouble, None  # its traceback holds this run
        if trouble is not None:
            self._go_on_without(trouble)
        elif found is None:
            found = yield from self._try(Read(self.plan.by_use))
        if found is None or not any(found):
            self._unclaimed = self.plan.distinct()
            return
        missing, unreadable = set(), []
        for key, old, entry in zip(self.plan.by_use, found, self._fresh(found), strict=True):
            if entry is None:
                missing.add(key)
                if old is not None:
                    self._expired.add(key)
            elif not self.results.accept(key, entry, "hits"):
                unreadable.append(key)
        if unreadable:
            yield from self._try(Delete(unreadable))
            missing.update(unreadable)
        self._unclaimed = self.plan.in_order(missing)

    def _newer_than(self) -> int:
        """When an entry must have been stored to count, by the wall clock in nanoseconds."""
        if self.refresh:
            return NOTHING_IS
        return 0 if self.settings.ttl is None else time.time_ns() - self.settings.ttl

    def _fresh(self, entries: Sequence[Entry | None]) -> Sequence[Entry | None]:
        """``entries`` without those that have expired."""
        newer_than = self._newer_than()
        if not newer_than:
            return entries
        return [entry if entry is not None and entry[1] > newer_than else None for entry in entries]

    def _fill(self) -> Steps:
        while True:
            if self._unclaimed and (not self._mine or self.settings.batch_size is None):
                yield from self._claim()
            elif self._mine or self._alone:
                yield from self._compute_part()
            elif self._taken:
                yield from self._wait()
            else:
                return

    def _claim(self) -> Steps:
        self.call.holds = True  # before it does, so that a call from within the step knows
        self.call.newer_than = self._newer_than()
        answers = yield from self._try(Claim(self._unclaimed, self.refresh))
        self._sort(answers or None)  # a store that tries none of the keys is of no use to them
        self.call.holds = bool(self._mine)

    def _sort(self, answers: Sequence[Answer] | None) -> None:
        """Take the answers to a claim of the first unclaimed keys; `None`: no store, so compute all alone."""
        if answers is None:
            self._alone += [*self._unclaimed, *self._taken]
            self._unclaimed, self._taken = [], {}
            return
        tried, self._unclaimed = self._unclaimed[: len(answers)], self._unclaimed[len(answers) :]
        if not self._expired and answers.count(MINE) == len(answers):
            self._mine += tried
            return
        youngest = _calls.youngest_holder(around=self.call)
        for key, answer in zip(tried, answers, strict=True):
            if answer is MINE:
                self._mine.append(key)
                if key in self._expired:
                    self._expired.discard(key)
                    self.results.count("expirations")
            elif isinstance(answer, Owner):
                self._leave_to(key, answer, youngest)
            elif not self.results.accept(key, answer, "waits" if key in self._since else "hits"):
                self._alone.append(key)

    def _leave_to(self, key: Key, owner: Owner, youngest: tuple[int, int] | None) -> None:
        """Wait for ``owner`` later on, unless that could last for ever or has failed too often."""
        if self._strikes[key] < MOST_STRIKES and _calls.may_wait_for(owner, youngest):
            self._taken[key] = owner
            self._since.setdefault(key, boot_ns())
        else:
            self._alone.append(key)

    def _compute_part(self) -> Steps:
        part = self._next_part()
        mine, self._mine = self._mine, []
        begun = boot_ns()
        result = yield Compute(self.plan.items_of(part))
        self._put_off_waits(boot_ns() - begun)
        results = results_of(result, len(part), self.settings.function)
        self.results.add(part, results)
        yield from self._store(mine, [key for key in part if key in self.call.heir_of])

    def _next_part(self) -> list[Key]:
        """The claimed keys and as many of those without a claim as one call may hold, in first-seen order."""
        size = self.settings.batch_size
        room = len(self._alone) if size is None else max(0, size - len(self._mine))
        extra, self._alone = self._alone[:room], self._alone[room:]
        return self.plan.in_order({*self._mine, *extra}) if extra else self._mine

    def _store(self, mine: list[Key], overdue: list[Key]) -> Steps:
        """Store what was computed under a claim, also of an owner who was waited for, and claim the next part."""
        if not mine and not overdue and not self._unclaimed:
            return
        entries = self.results.encode(self.plan.in_order({*mine, *overdue}) if overdue else mine)
        kept = {key for key, _ in entries} if len(entries) < len(mine) + len(overdue) else mine
        drop = [key for key in mine if key not in kept] if kept is not mine else []
        self.call.newer_than = self._newer_than()
        following = [] if self.refresh else self._unclaimed  # which are claimed by force
        stored: Stored | None = yield from self._try(Put(entries, drop, following))
        self.settings.wakeups.wake([*mine, *overdue])
        if self.refresh:
            yield from self._outdate(drop, stored)
        self.results.reject_large(stored)
        self._sort(stored.claims if stored is not None else None)
        self.call.holds = stored is None or bool(self._mine)

    def _outdate(self, dropped: Sequence[Key], stored: Stored | None) -> Steps:
        """Remove the old entries of refreshed items whose new results are not stored, but of those that failed."""
        outdated = [key for key in dropped if not self.results.has_failed(key)]
        if stored is not None:
            outdated += stored.too_large
        if outdated:
            yield from self._try(Delete(outdated))

    def _wait(self) -> Steps:
        """Wait until the claim of some key is over; then read it, or put it up for a claim again."""
        keys = list(self._taken)
        over = yield from self._watch(keys)
        if not over:
            self._lose_patience(keys)
            return
        entries = yield from self._try(Read(over))
        for key, entry in zip(over, self._fresh(entries or [None] * len(over)), strict=True):
            if entry is None or not self.results.accept(key, entry, "waits"):
                self._unclaimed.append(key)
        self._unclaimed = self.plan.in_order(set(self._unclaimed))

    def _watch(self, keys: list[Key]) -> Steps:
        """Look at the owners of ``keys`` until one is done; returns the keys whose claims are over."""
        owners: Sequence[Owner | None] | None = None
        delay = FIRST_POLL
        with (yield Listen(keys)) as bell:
            while True:
                owners = yield from self._try(Owners(keys, owners))
                if owners is None:
                    self._sort(None)
                    return []
                over = self._judge(keys, owners)
                left = self._patience_left()
                if over or self._alone or left <= 0:
                    self._pass_on(keys, owners, over)
                    return over
                self._tell_long_wait()
                yield Wait(bell, min(delay, left))
                delay = min(2 * delay, self._last_poll())

    def _judge(self, keys: Sequence[Key], owners: Sequence[Owner | None]) -> list[Key]:
        """Drop from the taken keys those whose claims are over; an owner that ended without an entry is a strike."""
        over = []
        for key, owner in zip(keys, owners, strict=True):
            if owner is None or not owner.alive:
                del self._taken[key]
                self._strikes[key] += owner is None
                over.append(key)
            elif owner.call != self._taken[key].call:
                del self._taken[key]
                self._strikes[key] += not owner.took_over
                self._leave_to(key, owner, _calls.youngest_holder(around=self.call))
        return over

    def _pass_on(self, keys: Sequence[Key], owners: Sequence[Owner | None], over: Sequence[Key]) -> None:
        """Wake those of this process whose waits may be over too: they need not find it out each by itself."""
        if any(owner is not None and not owner.alive for owner in owners):
            self.settings.wakeups.wake_all()
        else:
            self.settings.wakeups.wake(over)

    def _last_poll(self) -> float:
        """Seconds between looks in the end: an owner in this process rings when it is done."""
        here = os.getpid()
        return LAST_POLL if any(owner.pid != here for owner in self._taken.values()) else LAST_POLL_HERE

    # ---- the limit of a wait ----

    def _patience_left(self) -> float:
        """Seconds until the first wait has lasted as long as one may."""
        if self.settings.wait_timeout is None or not self._taken:
            return float("inf")
        begun = min(self._since[key] for key in self._taken)
        return (begun + self.settings.wait_timeout - boot_ns()) / 1e9

    def _put_off_waits(self, nanoseconds: int) -> None:
        """Leave the time in which this call computed out of its waits: an owner has had all of their limit then."""
        for key in self._taken:
            self._since[key] += nanoseconds

    def _lose_patience(self, keys: Sequence[Key]) -> None:
        """Compute those of ``keys`` too that were waited for long enough: of this call and the owner, who is done
        first stores them, and ends the claim.

        To take the claim here and now would keep the owner's result out: where callers come more often than the
        function takes to end, nothing would ever be stored.
        """
        if self.settings.wait_timeout is None:
            return
        begun = boot_ns() - self.settings.wait_timeout
        for key in keys:
            if key in self._taken and self._since[key] <= begun:
                self.call.heir_of[key] = self._taken.pop(key).call
                self._alone.append(key)

    # ---- trouble ----

    def _try(self, step: Step) -> Steps:
        """Have a step of the store done; `None` where the store cannot do it, or is not this process's to touch."""
        if self._lost or self._inherited:
            return None
        try:
            return (yield step)
        except StoreError as error:
            self._go_on_without(error)
            return None

    def _go_on_without(self, error: StoreError) -> None:
        """Count and tell that a step came to nothing, and raise where that is wanted."""
        self.results.count("errors")
        self._lost = not isinstance(error, BegunAnewError)
        if self.settings.strict:
            raise error
        self._tell(error)

    def _tell(self, error: StoreError) -> None:
        before = "" if isinstance(error, BegunAnewError) else "computing without the store: "
        self.settings.reports.once(f"store: {error.problem}", f"{before}{error}")

    @property
    def _inherited(self) -> bool:
        """Whether this is a fork's copy of a call that its parent is making."""
        return self.call.pid != os.getpid()

    def _tell_long_wait(self) -> None:
        longest = min(self._taken, key=self._since.__getitem__)
        owner, waited = self._taken[longest], (boot_ns() - self._since[longest]) / 1e9
        if waited > LONG_WAIT:
            age = (boot_ns() - owner.since) / 1e9
            self.settings.reports.once(
                f"wait for {owner.call}",
                f"waiting {waited:.0f} s for process {owner.pid}, which has been computing for {age:.0f} s",
            )

    # ---- the end ----

    def end(self, *, abandoned: bool) -> None:
        """Give up every claim and count every position. Never waits, never raises; a fork's copy does nothing."""
        if self._inherited:
            return
        self._release(self.call, self.results.counted(), abandoned=abandoned)
        if self.call.holds:
            self.call.holds = False
            self.settings.wakeups.wake(self.plan.first)

    def _release(self, call: Call, counts: Mapping[str, int], *, abandoned: bool = False) -> None:
        try:
            self.settings.store.release(call, abandoned=abandoned, counts=counts)
        except StoreError as trouble:  # a store that breaks its promise must not break the function
            self._tell(trouble)

    def let_go(self) -> None:
        """Release the claims that are held still, because a signal handler raised in the midst of `end`."""
        if (self.call.holds or self.call.handle is not None) and not self._inherited:
            with suppress(StoreError):  # told by `end`
                self.settings.store.release(self.call, abandoned=True)
            self.call.holds = False
