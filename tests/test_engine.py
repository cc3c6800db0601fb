"""The algorithm: its steps one by one, its threads, and what it does with a store that fails."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain
from typing import Any

import pytest

from batche import BatchError, Failed, ResultLengthError, StoreError, _calls, _engine, cache_batch_variable
from batche._binding import Copies, wakeups_of
from batche._drive import drive
from batche._engine import Run
from batche._plan import split
from batche._reports import Reports
from batche._settings import Settings
from batche._steps import Claim, Compute, Delete, Listen, Owners, Put, Read, Wait
from batche._types import MINE, NOTHING_IS, Call, Entry, Owner, Stored
from batche.stores.base import Answer
from batche.stores.mapping import MappingStore

SPACE = b"function"
BELL = object()
PATIENCE = 30.0
"""Seconds after which a test that waits for another thread gives up."""
THREADS = 8
SECOND = 10**9


def key(item: str) -> bytes:
    return SPACE + item.encode().ljust(20, b".")


def keys(items: Iterable[str]) -> list[bytes]:
    return [key(item) for item in items]


def upper(items: list[str]) -> list[str]:
    return [item.upper() for item in items]


class Recording:
    """A function that keeps what it was given."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = []

    def __call__(self, items: list[str]) -> list[str]:
        self.parts.append(items)
        return upper(items)


def settings(store: MappingStore | None = None, **options: Any) -> Settings:
    store = store if store is not None else MappingStore()
    return Settings("upper", SPACE, store, Copies(), wakeups_of(store), Reports("upper"), **options)


def run_of(items: str, chosen: Settings | None = None) -> Run:
    return Run(chosen or settings(), split(list(items), keys(items)))


def someone(moment: int = 1, *, alive: bool = True, took_over: bool = False) -> Owner:
    return Owner((moment, moment), os.getpid(), alive=alive, took_over=took_over)


def stored(*items: str, claims: Sequence[Answer] = ()) -> Stored:
    return Stored(frozenset(keys(items)), frozenset(), list(claims))


def entry(value: object) -> Entry:
    return value, 0


class Stepping:
    """A run whose every step is looked at and answered by hand."""

    def __init__(self, run: Run) -> None:
        self._steps = run.steps()
        self.step = next(self._steps)

    def answer(self, step: object, answer: object = None) -> None:
        """Expect ``step`` and answer it, or have it fail where the answer is an exception."""
        assert self.step == step
        self.step = self._steps.throw(answer) if isinstance(answer, Exception) else self._steps.send(answer)

    def last(self, step: object, answer: object = None) -> list[Any]:
        """Expect ``step`` to be the last one; returns the results."""
        with pytest.raises(StopIteration) as done:
            self.answer(step, answer)
        results: list[Any] = done.value.value
        return results


def outcomes(run: Run) -> dict[str, int]:
    return {name: number for name, number in run.results.counted().items() if number}


# ---- step by step ----


def test_a_batch_of_hits_is_one_read() -> None:
    run = run_of("ab")
    assert Stepping(run).last(Read(keys("ab")), [entry("A"), entry(None)]) == ["A", None]
    assert outcomes(run) == {"hits": 2}


def test_only_the_missing_are_claimed_computed_and_stored_in_first_seen_order() -> None:
    run = run_of("cabc")
    steps = Stepping(run)
    steps.answer(Read(keys("abc")), [entry("A"), None, None])  # the last of the keys is the last used
    steps.answer(Claim(keys("cb")), [MINE, MINE])
    steps.answer(Compute(["c", "b"]), ["C", "B"])
    assert steps.last(Put([(key("b"), "B"), (key("c"), "C")], [], []), stored("c", "b")) == ["C", "A", "B", "C"]
    assert outcomes(run) == {"misses": 2, "hits": 2}


def test_a_part_is_stored_and_the_next_one_claimed_in_one_step() -> None:
    run = run_of("abcde", settings(batch_size=2))
    steps = Stepping(run)
    steps.answer(Read(keys("abcde")), [None] * 5)
    steps.answer(Claim(keys("abcde")), [MINE, MINE])
    steps.answer(Compute(["a", "b"]), ["A", "B"])
    steps.answer(Put([(key("a"), "A"), (key("b"), "B")], [], keys("cde")), stored("a", "b", claims=[MINE, MINE]))
    steps.answer(Compute(["c", "d"]), ["C", "D"])
    steps.answer(Put([(key("c"), "C"), (key("d"), "D")], [], keys("e")), stored("c", "d", claims=[MINE]))
    steps.answer(Compute(["e"]), ["E"])
    assert steps.last(Put([(key("e"), "E")], [], []), stored("e")) == list("ABCDE")
    assert outcomes(run) == {"misses": 5}


def test_it_claims_and_computes_all_it_can_before_it_waits() -> None:
    run = run_of("abc", settings(batch_size=1))
    steps = Stepping(run)
    steps.answer(Read(keys("abc")), [None] * 3)
    steps.answer(Claim(keys("abc")), [someone(), MINE])
    steps.answer(Compute(["b"]), ["B"])
    steps.answer(Put([(key("b"), "B")], [], keys("c")), stored("b", claims=[MINE]))
    steps.answer(Compute(["c"]), ["C"])
    steps.answer(Put([(key("c"), "C")], [], []), stored("c"))
    assert not run.call.holds
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    owners = [someone()]
    steps.answer(Owners(keys("a"), None), owners)
    steps.answer(Wait(BELL, _engine.FIRST_POLL))
    steps.answer(Owners(keys("a"), owners), [None])
    assert steps.last(Read(keys("a")), [entry("A")]) == list("ABC")
    assert outcomes(run) == {"misses": 2, "waits": 1}


def test_an_answer_shorter_than_what_was_asked_is_asked_on() -> None:
    steps = Stepping(run_of("ab"))
    steps.answer(Read(keys("ab")), [None, None])
    steps.answer(Claim(keys("ab")), [entry("A")])
    assert steps.last(Claim(keys("b")), [entry("B")]) == ["A", "B"]


def test_an_entry_that_came_between_the_read_and_the_claim_is_a_hit() -> None:
    run = run_of("a")
    steps = Stepping(run)
    steps.answer(Read(keys("a")), [None])
    assert steps.last(Claim(keys("a")), [entry("A")]) == ["A"]
    assert outcomes(run) == {"hits": 1}


@pytest.mark.parametrize(("here", "longest"), [(False, _engine.LAST_POLL), (True, _engine.LAST_POLL_HERE)])
def test_looking_doubles_its_pause_up_to_the_longest_which_is_longer_for_owners_that_ring(
    here: bool, longest: float
) -> None:
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    owner = Owner((1, 1), os.getpid() if here else 0)
    steps.answer(Claim(keys("a")), [owner])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    before, pause = None, _engine.FIRST_POLL
    for _ in range(12):
        now = [owner]
        steps.answer(Owners(keys("a"), before), now)
        steps.answer(Wait(BELL, pause))
        before, pause = now, min(2 * pause, longest)
    assert pause == longest


# ---- entries that are too old ----


def old(value: object) -> Entry:
    return value, time.time_ns() - 20 * SECOND


def young(value: object) -> Entry:
    return value, time.time_ns() - 2 * SECOND


def test_an_expired_entry_is_claimed_computed_and_counted() -> None:
    run = run_of("ab", settings(ttl=10 * SECOND))
    steps = Stepping(run)
    steps.answer(Read(keys("ab")), [old("A"), young("B")])
    assert abs(run.call.newer_than - time.time_ns() + 10 * SECOND) < SECOND
    steps.answer(Claim(keys("a")), [MINE])
    steps.answer(Compute(["a"]), ["new"])
    assert steps.last(Put([(key("a"), "new")], [], []), stored("a")) == ["new", "B"]
    assert outcomes(run) == {"hits": 1, "misses": 1, "expirations": 1}


def test_an_expired_entry_that_another_call_replaces_is_no_expiration_of_this_one() -> None:
    run = run_of("a", settings(ttl=10 * SECOND))
    steps = Stepping(run)
    steps.answer(Read(keys("a")), [old("A")])
    steps.answer(Claim(keys("a")), [someone()])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    steps.answer(Owners(keys("a"), None), [None])
    assert steps.last(Read(keys("a")), [young("new")]) == ["new"]
    assert outcomes(run) == {"waits": 1}


def test_an_expired_entry_is_not_served_after_its_owner_failed() -> None:
    steps = Stepping(run_of("a", settings(ttl=10 * SECOND)))
    steps.answer(Read(keys("a")), [old("A")])
    steps.answer(Claim(keys("a")), [someone()])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    steps.answer(Owners(keys("a"), None), [None])
    steps.answer(Read(keys("a")), [old("A")])
    assert steps.step == Claim(keys("a"))


def test_a_call_that_only_hits_looks_at_the_age_of_entries() -> None:
    store = MappingStore()
    chosen = settings(store, ttl=10 * SECOND)
    assert drive(run_of("a", chosen), upper) == ["A"]
    assert run_of("a", chosen).recall() == ["A"]
    assert run_of("a", settings(store, ttl=0)).recall() is None


# ---- refreshing ----


def test_refreshing_claims_all_by_force_and_reads_nothing() -> None:
    run = Run(settings(), split(list("aba"), keys("aba")), refresh=True)
    steps = Stepping(run)
    assert run.call.newer_than == NOTHING_IS
    steps.answer(Claim(keys("ab"), force=True), [MINE, MINE])
    steps.answer(Compute(["a", "b"]), ["A", "B"])
    assert steps.last(Put([(key("b"), "B"), (key("a"), "A")], [], []), stored("a", "b")) == ["A", "B", "A"]
    assert outcomes(run) == {"misses": 2, "hits": 1}


def test_refreshing_in_parts_claims_each_by_force() -> None:
    steps = Stepping(Run(settings(batch_size=1), split(list("ab"), keys("ab")), refresh=True))
    steps.answer(Claim(keys("ab"), force=True), [MINE])
    steps.answer(Compute(["a"]), ["A"])
    steps.answer(Put([(key("a"), "A")], [], []), stored("a"))
    steps.answer(Claim(keys("b"), force=True), [MINE])
    steps.answer(Compute(["b"]), ["B"])
    assert steps.last(Put([(key("b"), "B")], [], []), stored("b")) == ["A", "B"]


def test_refreshing_removes_the_old_entry_of_what_is_not_stored_but_not_of_what_failed() -> None:
    chosen = settings(cache_if=lambda item, result: item != "a", on_failed="return")
    steps = Stepping(Run(chosen, split(list("abc"), keys("abc")), refresh=True))
    failed = Failed(ValueError("b"))
    steps.answer(Claim(keys("abc"), force=True), [MINE] * 3)
    steps.answer(Compute(list("abc")), ["A", failed, "C"])
    steps.answer(Put([(key("c"), "C")], keys("ab"), []), stored("c"))
    assert steps.last(Delete(keys("a")), 1) == ["A", failed, "C"]


# ---- the limit of a wait ----


def test_who_waited_long_enough_computes_too_and_may_store_under_the_owners_claim() -> None:
    run = run_of("ab", settings(wait_timeout=SECOND))
    steps = Stepping(run)
    steps.answer(Read(keys("ab")), [None] * 2)
    steps.answer(Claim(keys("ab")), [someone(1), someone(1)])
    run._since[key("a")] -= SECOND  # it waited that long for one of them
    steps.answer(Listen(keys("ab")), nullcontext(BELL))
    steps.answer(Owners(keys("ab"), None), [someone(1), someone(1)])
    assert run.call.heir_of == {key("a"): someone(1).call}
    steps.answer(Compute(["a"]), ["A"])
    steps.answer(Put([(key("a"), "A")], [], []), stored("a"))
    assert steps.step == Listen(keys("b"))


def test_computing_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [SECOND]
    monkeypatch.setattr(_engine, "boot_ns", lambda: now[0])
    steps = Stepping(run_of("ab", settings(wait_timeout=SECOND)))
    steps.answer(Read(keys("ab")), [None] * 2)
    steps.answer(Claim(keys("ab")), [someone(), MINE])
    now[0] += 60 * SECOND
    steps.answer(Compute(["b"]), ["B"])
    steps.answer(Put([(key("b"), "B")], [], []), stored("b"))
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    steps.answer(Owners(keys("a"), None), [someone()])
    pause = steps.step
    assert isinstance(pause, Wait)
    steps.answer(pause)
    now[0] += SECOND
    steps.answer(Owners(keys("a"), [someone()]), [someone()])
    assert steps.step == Compute(["a"])


def test_a_pause_is_no_longer_than_the_patience_that_is_left() -> None:
    steps = Stepping(run_of("a", settings(wait_timeout=SECOND // 10_000)))
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone()])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    step, owners = steps.step, [someone()]
    while step == steps.step:
        steps.answer(Owners(keys("a"), step.before if isinstance(step, Owners) else None), owners)
        if isinstance(steps.step, Wait):
            assert steps.step.seconds <= 0.0001
            steps.answer(steps.step)
            step = Owners(keys("a"), owners)
    assert steps.step == Compute(["a"])


def test_with_no_patience_nobody_is_waited_for() -> None:
    steps = Stepping(run_of("a", settings(wait_timeout=0)))
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone()])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    steps.answer(Owners(keys("a"), None), [someone()])
    assert steps.step == Compute(["a"])


# ---- results that are not stored ----


def test_cache_if_sees_each_item_with_its_result_and_keeps_what_it_refuses_out() -> None:
    seen: list[tuple[str, str]] = []

    def short(item: str, result: str) -> bool:
        seen.append((item, result))
        return item != "b"

    run = run_of("abc", settings(cache_if=short))
    steps = Stepping(run)
    steps.answer(Read(keys("abc")), [None] * 3)
    steps.answer(Claim(keys("abc")), [MINE] * 3)
    steps.answer(Compute(list("abc")), list("ABC"))
    put = Put([(key("a"), "A"), (key("c"), "C")], keys("b"), [])
    assert steps.last(put, stored("a", "c")) == list("ABC")
    assert seen == [("a", "A"), ("b", "B"), ("c", "C")]
    assert outcomes(run) == {"misses": 3}


def test_failed_results_are_raised_once_all_else_is_stored() -> None:
    run = run_of("abcdb", settings(batch_size=2))
    steps = Stepping(run)
    problem = ValueError("b")
    steps.answer(Read(keys("acdb")), [None] * 4)
    steps.answer(Claim(keys("abcd")), [MINE, MINE])
    steps.answer(Compute(["a", "b"]), ["A", Failed(problem)])
    steps.answer(Put([(key("a"), "A")], keys("b"), keys("cd")), stored("a", claims=[MINE, MINE]))
    steps.answer(Compute(["c", "d"]), ["C", "D"])
    with pytest.raises(BatchError) as raised:
        steps.answer(Put([(key("c"), "C"), (key("d"), "D")], [], []), stored("c", "d"))
    assert raised.value.indices == (1, 4)
    assert raised.value.exceptions == (problem, problem)
    assert raised.value.results == ["A", Failed(problem), "C", "D", Failed(problem)]
    assert outcomes(run) == {"misses": 4, "hits": 1}


def wait_for(steps: Stepping, over: Owner | None) -> None:
    """Let the owner of ``a`` end without an entry."""
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    steps.answer(Owners(keys("a"), None), [over])
    steps.answer(Read(keys("a")), [None])


def test_a_failing_function_costs_a_caller_two_waits_and_then_one_call_without_a_claim() -> None:
    run = run_of("a")
    steps = Stepping(run)
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone(1)])
    wait_for(steps, None)
    steps.answer(Claim(keys("a")), [someone(2)])
    wait_for(steps, None)
    steps.answer(Claim(keys("a")), [someone(3)])
    assert steps.last(Compute(["a"]), ["A"]) == ["A"]  # nothing to put: there was no claim
    assert outcomes(run) == {"misses": 1}


def test_dead_owners_cost_no_patience() -> None:
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    for moment in range(1, 6):
        steps.answer(Claim(keys("a")), [someone(moment)])
        wait_for(steps, someone(moment, alive=False))
    steps.answer(Claim(keys("a")), [MINE])
    steps.answer(Compute(["a"]), ["A"])
    assert steps.last(Put([(key("a"), "A")], [], []), stored("a")) == ["A"]


def test_an_owner_that_followed_a_failed_one_is_waited_for_once() -> None:
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone(1)])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    second = [someone(2)]
    steps.answer(Owners(keys("a"), None), second)
    steps.answer(Wait(BELL, _engine.FIRST_POLL))
    steps.answer(Owners(keys("a"), second), [someone(3)])
    assert steps.last(Compute(["a"]), ["A"]) == ["A"]


def test_owners_that_took_over_from_the_dead_are_waited_for_on_and_on() -> None:
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone(1)])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    before = None
    for moment in range(2, 7):
        now = [someone(moment, took_over=True)]
        steps.answer(Owners(keys("a"), before), now)
        assert isinstance(steps.step, Wait)
        steps.answer(steps.step)
        before = now
    steps.answer(Owners(keys("a"), before), [None])
    assert steps.last(Read(keys("a")), [entry("A")]) == ["A"]


@pytest.mark.parametrize(("owner", "waits"), [(someone(5), False), (someone(15), True)])
def test_inside_a_batch_function_it_waits_only_for_younger_calls(owner: Owner, waits: bool) -> None:
    enclosing = Call((10, 10), os.getpid(), SPACE, holds=True)
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    with _calls.inside(enclosing):
        steps.answer(Claim(keys("a")), [owner])
    assert steps.step == (Listen(keys("a")) if waits else Compute(["a"]))


def test_what_is_computed_without_a_claim_fills_a_part_beside_what_is_claimed() -> None:
    enclosing = Call((10, 10), os.getpid(), SPACE, holds=True)
    steps = Stepping(run_of("abc", settings(batch_size=2)))
    steps.answer(Read(keys("abc")), [None] * 3)
    with _calls.inside(enclosing):
        steps.answer(Claim(keys("abc")), [someone(1), someone(2), MINE])
        steps.answer(Compute(["a", "c"]), ["A", "C"])
        steps.answer(Put([(key("c"), "C")], [], []), stored("c"))
        assert steps.last(Compute(["b"]), ["B"]) == list("ABC")


def test_an_entry_that_cannot_be_decoded_is_removed_and_computed_again(caplog: pytest.LogCaptureFixture) -> None:
    class Unreadable(Copies):
        def decode(self, value: Any, /) -> Any:
            return 1 // value

    chosen = settings()
    run = run_of("ab", Settings("upper", SPACE, chosen.store, Unreadable(), chosen.wakeups, chosen.reports))
    steps = Stepping(run)
    steps.answer(Read(keys("ab")), [entry(0), entry(1)])
    steps.answer(Delete(keys("a")), 1)
    steps.answer(Claim(keys("a")), [MINE])
    steps.answer(Compute(["a"]), ["A"])
    assert steps.last(Put([(key("a"), "A")], [], []), stored("a")) == ["A", 1]
    assert outcomes(run) == {"misses": 1, "hits": 1, "errors": 1}
    assert "an entry is computed again" in caplog.text


def test_what_is_too_large_is_returned_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    run = run_of("a")
    steps = Stepping(run)
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [MINE])
    steps.answer(Compute(["a"]), ["A"])
    assert steps.last(Put([(key("a"), "A")], [], []), Stored(frozenset(), frozenset(keys("a")), [])) == ["A"]
    assert outcomes(run) == {"misses": 1, "rejected": 1}
    assert "raise it to cache it" in caplog.text


def test_a_call_that_a_fork_copied_touches_the_store_no_more() -> None:
    store = MappingStore()
    run = run_of("ab", settings(store))
    run.call.pid = -1
    assert Stepping(run).last(Compute(["a", "b"]), ["A", "B"]) == ["A", "B"]
    run.end(abandoned=False)
    assert store.stats(SPACE).misses == 0


def test_a_long_wait_is_told_once_with_who_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_engine, "LONG_WAIT", 0.0)
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone()])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    owners = [someone()]
    steps.answer(Owners(keys("a"), None), owners)
    for _ in range(3):
        assert isinstance(steps.step, Wait)
        steps.answer(steps.step)
        steps.answer(Owners(keys("a"), owners), owners)
    (record,) = caplog.records
    assert f"upper: waiting 0 s for process {os.getpid()}" in record.getMessage()


@pytest.mark.parametrize("failing", [Read, Claim, Put])
def test_trouble_at_any_step_ends_the_use_of_the_store_not_the_call(failing: type) -> None:
    run = run_of("ab", settings(batch_size=1))
    trouble = StoreError("disk", "is full")
    steps = Stepping(run)
    answers: list[tuple[type, object, Any]] = [
        (Read, Read(keys("ab")), [None, None]),
        (Claim, Claim(keys("ab")), [MINE]),
        (Compute, Compute(["a"]), ["A"]),
        (Put, Put([(key("a"), "A")], [], keys("b")), None),
    ]
    before = [kind for kind, _, _ in answers].index(failing)
    for _, step, answer in answers[:before]:
        steps.answer(step, answer)
    steps.answer(answers[before][1], trouble)
    if failing is not Put:
        steps.answer(Compute(["a"]), ["A"])
    assert steps.last(Compute(["b"]), ["B"]) == ["A", "B"]
    assert outcomes(run) == {"misses": 2, "errors": 1}


def test_trouble_while_waiting_makes_the_waiter_compute() -> None:
    steps = Stepping(run_of("a"))
    steps.answer(Read(keys("a")), [None])
    steps.answer(Claim(keys("a")), [someone()])
    steps.answer(Listen(keys("a")), nullcontext(BELL))
    steps.answer(Owners(keys("a"), None), StoreError("disk", "is gone"))
    assert steps.last(Compute(["a"]), ["A"]) == ["A"]


def test_strict_lets_trouble_through() -> None:
    run = run_of("a", settings(strict=True))
    trouble = StoreError("disk", "is full")
    with pytest.raises(StoreError) as caught:
        Stepping(run).answer(Read(keys("a")), trouble)
    assert caught.value is trouble
    assert outcomes(run)["errors"] == 1


def test_a_listener_is_gone_when_the_call_ends_in_the_middle_of_a_wait() -> None:
    left = []

    class Bell:
        def __enter__(self) -> None: ...

        def __exit__(self, *reason: object) -> None:
            left.append(reason[0])

    run = run_of("a")
    generator = run.steps()
    next(generator)
    generator.send([None])
    generator.send([someone()])
    generator.send(Bell())
    generator.close()
    assert left == [GeneratorExit]


# ---- driven ----


@pytest.mark.parametrize("ended", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, StoreError])
def test_every_exit_gives_up_the_claims_and_the_exception_is_the_functions_own(ended: type[BaseException]) -> None:
    store = MappingStore()
    raised = ended("disk", "reason") if ended is StoreError else ended("reason")

    def failing(items: list[str]) -> list[str]:
        assert None not in store.owners(keys(items))
        raise raised

    with pytest.raises(ended) as caught:
        drive(run_of("ab", settings(store)), failing)
    assert caught.value is raised
    alive = [owner for owner in store.owners(keys("ab")) if owner is not None and owner.alive]
    assert alive == []
    assert drive(run_of("ab", settings(store)), upper) == ["A", "B"]
    assert store.stats(SPACE).takeovers == (0 if issubclass(ended, Exception) else 2)


def test_a_wrong_result_gives_up_the_claims_too() -> None:
    store = MappingStore()
    with pytest.raises(ResultLengthError):
        drive(run_of("ab", settings(store)), lambda items: items[:1])
    assert list(store.owners(keys("ab"))) == [None, None]


def test_parts_done_before_an_error_are_kept() -> None:
    chosen = settings(batch_size=2)

    def fails_at_e(items: list[str]) -> list[str]:
        if "e" in items:
            raise ValueError("e")
        return upper(items)

    with pytest.raises(ValueError, match="e"):
        drive(run_of("abcdef", chosen), fails_at_e)
    computed = Recording()
    drive(run_of("abcdef", chosen), computed)
    assert computed.parts == [["e", "f"]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_function_gets_at_most_a_part_at_a_time(size: int) -> None:
    computed = Recording()
    assert drive(run_of("abcdefgabc", settings(batch_size=size)), computed) == list("ABCDEFGABC")
    assert computed.parts == [list("abcdefg")[start : start + size] for start in range(0, 7, size)]


def test_two_callers_of_one_list_share_its_work() -> None:
    chosen, both = settings(batch_size=1), threading.Barrier(2, timeout=PATIENCE)
    computed: dict[int, list[str]] = {}

    def compute(items: list[str]) -> list[str]:
        mine = computed.setdefault(threading.get_ident(), [])
        mine.extend(items)
        both.wait()  # so that each part is computed while the other caller computes another
        return upper(items)

    with ThreadPoolExecutor(2) as executor:
        results = list(executor.map(lambda _: drive(run_of("abcdef", chosen), compute), range(2)))
    assert results == [list("ABCDEF")] * 2
    assert sorted(len(part) for part in computed.values()) == [3, 3]
    assert sorted(chain(*computed.values())) == list("abcdef")


# ---- threads ----


class Watched(MappingStore):
    """Tells how many looks waiters took at owners."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[int] = set()
        self.looked = threading.Condition()

    def owners(self, keys: Sequence[bytes], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        owners = super().owners(keys, before)
        with self.looked:
            self.waiting.add(threading.get_ident())
            self.looked.notify_all()
        return owners

    def await_waiters(self, number: int) -> None:
        with self.looked:
            assert self.looked.wait_for(lambda: len(self.waiting) >= number, PATIENCE)


class Crowd:
    """One owner in its function, and others that wait for it."""

    def __init__(self, executor: ThreadPoolExecutor, store: Watched, function: Callable[[list[str]], Any]) -> None:
        self._executor = executor
        self.store = store
        self.function = cache_batch_variable("items", store=store)(function)
        self.futures: list[Future[Any]] = []

    def gather(self, items: str, entered: threading.Event) -> None:
        self.futures.append(self._executor.submit(self.function, list(items)))
        assert entered.wait(PATIENCE)
        self.futures += [self._executor.submit(self.function, list(items)) for _ in range(THREADS - 1)]
        self.store.await_waiters(THREADS - 1)

    def errors(self) -> list[BaseException | None]:
        return [future.exception(PATIENCE) for future in self.futures]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as executor:
        yield executor


@pytest.mark.parametrize("make_store", [lambda: None, lambda: MappingStore(maxsize=1000)], ids=["default", "mapping"])
def test_each_item_is_computed_once_by_many_threads(
    executor: ThreadPoolExecutor, make_store: Callable[[], MappingStore | None]
) -> None:
    computed: list[int] = []
    start = threading.Barrier(THREADS, timeout=PATIENCE)

    @cache_batch_variable("items", store=make_store())
    def square(items: list[int]) -> list[int]:
        computed.extend(items)
        return [item * item for item in items]

    def call(number: int) -> list[int]:
        start.wait()
        return square(list(range(number, number + 50)))

    results = list(executor.map(call, range(THREADS)))
    assert results == [[item * item for item in range(number, number + 50)] for number in range(THREADS)]
    assert sorted(computed) == list(range(THREADS + 49))
    info = square.cache_info()
    assert info.misses == THREADS + 49
    assert info.hits + info.misses + info.waits == THREADS * 50


@pytest.mark.parametrize("make_store", [lambda: None, lambda: MappingStore(maxsize=5)], ids=["default", "mapping"])
def test_threads_that_evict_each_others_entries_still_answer_right(
    executor: ThreadPoolExecutor, make_store: Callable[[], MappingStore | None]
) -> None:
    store = make_store()

    @cache_batch_variable("items", maxsize=None if store else 5, store=store)
    def square(items: list[int]) -> list[list[int]]:
        return [[item * item] for item in items]

    def call(number: int) -> bool:
        items = [(number * step) % 17 for step in range(20)]
        return square(items) == [[item * item] for item in items]

    assert all(executor.map(call, range(100)))
    assert square.cache_info().currsize == 5


def test_waiters_get_the_owners_result_and_each_its_own_copy(executor: ThreadPoolExecutor) -> None:
    store, entered = Watched(), threading.Event()

    def listed(items: list[str]) -> list[list[str]]:
        entered.set()
        store.await_waiters(THREADS - 1)
        return [[item] for item in items]

    crowd = Crowd(executor, store, listed)
    crowd.gather("ab", entered)
    results = [future.result(PATIENCE) for future in crowd.futures]
    assert results == [[["a"], ["b"]]] * THREADS
    assert len({id(part) for result in results for part in result}) == 2 * THREADS
    info = crowd.function.cache_info()
    assert (info.misses, info.waits, info.hits) == (2, 2 * (THREADS - 1), 0)


def test_a_failure_that_passes_costs_one_more_call_however_many_waited(executor: ThreadPoolExecutor) -> None:
    store, entered, calls = Watched(), threading.Event(), []

    def fails_once(items: list[str]) -> list[str]:
        calls.append(items)
        if len(calls) == 1:
            entered.set()
            store.await_waiters(THREADS - 1)
            raise ConnectionError("the first time")
        return upper(items)

    crowd = Crowd(executor, store, fails_once)
    crowd.gather("ab", entered)
    first, *others = crowd.errors()
    assert isinstance(first, ConnectionError)
    assert others == [None] * (THREADS - 1)
    assert len(calls) == 2


def test_a_failure_that_stays_is_everybodys_own_after_one_call_each(executor: ThreadPoolExecutor) -> None:
    store, entered, calls = Watched(), threading.Event(), []

    def fails(items: list[str]) -> list[str]:
        calls.append(items)
        if not entered.is_set():
            entered.set()
            store.await_waiters(THREADS - 1)
        raise ConnectionError(str(threading.get_ident()))

    crowd = Crowd(executor, store, fails)
    crowd.gather("ab", entered)
    errors = crowd.errors()
    assert len({str(error) for error in errors}) == THREADS  # each from a call of its own thread
    assert len(calls) == THREADS
    assert crowd.function.cache_info().currsize == 0


def test_an_interrupted_owner_is_taken_over_by_one_and_the_others_wait_on(executor: ThreadPoolExecutor) -> None:
    store, entered, calls = Watched(), threading.Event(), []

    def interrupted_once(items: list[str]) -> list[str]:
        calls.append(items)
        if len(calls) == 1:
            entered.set()
            store.await_waiters(THREADS - 1)
            raise KeyboardInterrupt
        return upper(items)

    crowd = Crowd(executor, store, interrupted_once)
    crowd.gather("a", entered)
    first, *others = crowd.errors()
    assert isinstance(first, KeyboardInterrupt)
    assert others == [None] * (THREADS - 1)
    assert len(calls) == 2
    assert crowd.function.cache_info().takeovers == 1


def test_results_that_cannot_be_stored_are_computed_by_each_without_a_queue(executor: ThreadPoolExecutor) -> None:
    store, entered, calls = Watched(), threading.Event(), []

    def locks(items: list[str]) -> list[Any]:
        calls.append(items)
        if not entered.is_set():
            entered.set()
            store.await_waiters(THREADS - 1)
        return [threading.Lock() for _ in items]

    crowd = Crowd(executor, store, locks)
    crowd.gather("a", entered)
    assert crowd.errors() == [None] * THREADS
    assert len(calls) == THREADS
    assert crowd.function.cache_info().rejected >= THREADS - 1  # who computed without a claim stores nothing


def test_a_function_may_call_itself_on_the_item_it_computes() -> None:
    depth: list[list[str]] = []

    @cache_batch_variable("items", store=MappingStore())
    def recursive(items: list[str]) -> list[str]:
        depth.append(items)
        deeper: list[str] = recursive(items) if len(depth) < 3 else upper(items)
        return deeper

    assert recursive(["a"]) == ["A"]
    assert len(depth) == 3


@pytest.mark.parametrize("make_store", [lambda: None, MappingStore], ids=["default", "mapping"])
def test_functions_that_need_each_other_do_not_wait_in_a_circle(
    executor: ThreadPoolExecutor, make_store: Callable[[], MappingStore | None]
) -> None:
    store, both = make_store(), threading.Barrier(2, timeout=PATIENCE)
    inside = threading.local()

    def needing(other: Callable[[], Any]) -> Callable[[list[str]], list[str]]:
        def compute(items: list[str]) -> list[str]:
            if getattr(inside, "deep", False):
                return upper(items)
            inside.deep = True
            both.wait()  # each holds its own claim, and now wants the other's
            results: list[str] = other()(items)
            return results

        return compute

    first = cache_batch_variable("items", store=store)(needing(lambda: second))
    second = cache_batch_variable("items", store=store)(needing(lambda: first))
    futures = [executor.submit(first, ["a"]), executor.submit(second, ["a"])]
    assert [future.result(PATIENCE) for future in futures] == [["A"], ["A"]]


# ---- a store that fails ----


class FlakyStore(MappingStore):
    """Raises `StoreError` in the chosen methods."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self.failing = set(failing)

    def __getattribute__(self, name: str) -> Any:
        if name in ("read", "claim", "put", "release", "owners", "delete") and name in self.failing:
            return self._fail
        return super().__getattribute__(name)

    def _fail(self, *args: object, **kwargs: object) -> Any:
        raise StoreError("the flaky store", "does not answer")


@pytest.mark.parametrize("method", ["read", "claim", "put", "release"])
def test_whatever_method_fails_the_answer_is_right_and_told_once(method: str, caplog: pytest.LogCaptureFixture) -> None:
    store = FlakyStore(method)
    function = cache_batch_variable("items", store=store)(upper_of())
    for _ in range(3):
        assert function(["a", "b", "a"]) == ["A", "B", "A"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("batche", logging.WARNING)
    assert "the flaky store: does not answer" in record.getMessage()
    store.failing.clear()
    errors = function.cache_info().errors
    assert errors == (0 if method == "release" else 3)  # a count that cannot be written is lost
    assert function(["a", "b", "c"]) == ["A", "B", "C"]


def test_a_waiter_that_cannot_look_at_owners_computes(executor: ThreadPoolExecutor) -> None:
    store, entered, leave = FlakyStore("owners"), threading.Event(), threading.Event()
    calls: list[list[str]] = []

    @cache_batch_variable("items", store=store)
    def function(items: list[str]) -> list[str]:
        calls.append(items)
        if len(calls) == 1:
            entered.set()
            assert leave.wait(PATIENCE)
        return upper(items)

    owner = executor.submit(function, ["a"])
    assert entered.wait(PATIENCE)
    assert executor.submit(function, ["a"]).result(PATIENCE) == ["A"]
    leave.set()
    assert owner.result(PATIENCE) == ["A"]
    assert function.cache_info().errors == 1


@pytest.mark.parametrize("method", ["read", "claim", "put"])
def test_strict_raises_what_the_store_raises_and_keeps_no_claim(method: str) -> None:
    store = FlakyStore(method)
    function = cache_batch_variable("items", store=store, strict=True)(upper_of())
    with pytest.raises(StoreError, match="the flaky store: does not answer"):
        function(["a"])
    assert not store._claims
    store.failing.clear()
    assert function(["a"]) == ["A"]
    assert function.cache_info().errors == 1


def upper_of() -> Callable[[list[str]], list[str]]:
    def function(items: list[str]) -> list[str]:
        return upper(items)

    return function


def test_a_cause_is_told_once_by_many_threads(executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    reports, start = Reports("upper"), threading.Barrier(THREADS, timeout=PATIENCE)

    def tell(_: int) -> None:
        start.wait()
        reports.once("disk", "is full")

    list(executor.map(tell, range(THREADS)))
    reports.once("net", "is down")
    assert [record.getMessage() for record in caplog.records] == ["upper: is full", "upper: is down"]


def test_what_was_waited_for_in_vain_is_computed_in_first_seen_order() -> None:
    steps = Stepping(run_of("abc"))
    steps.answer(Read(keys("abc")), [None] * 3)
    steps.answer(Claim(keys("abc")), [someone(1), someone(2), someone(3)])
    steps.answer(Listen(keys("abc")), nullcontext(BELL))
    owners = [someone(4, took_over=True), someone(2), someone(3)]  # "a" goes to the end of what is waited for
    steps.answer(Owners(keys("abc"), None), owners)
    steps.answer(Wait(BELL, _engine.FIRST_POLL))
    steps.answer(Owners(keys("abc"), owners), [*owners[:2], None])
    steps.answer(Read(keys("c")), [entry("C")])
    steps.answer(Listen(keys("ba")), nullcontext(BELL))
    steps.answer(Owners(keys("ba"), None), [None, None])
    steps.answer(Read(keys("ba")), [None, None])
    steps.answer(Claim(keys("ab")), [MINE, MINE])
    assert steps.step == Compute(["a", "b"])
