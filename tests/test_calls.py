"""Which calls enclose the running code, and for whom they may wait."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from batche import _calls
from batche._types import Call, Owner


def holder(moment: int, *, holds: bool = True) -> Call:
    return Call((moment, 1), os.getpid(), b"n" * 8, holds=holds)


def test_later_calls_have_larger_ids() -> None:
    ids = [_calls.new_call(b"n" * 8).id for _ in range(100)]
    assert [moment for moment, _ in ids] == sorted(moment for moment, _ in ids)
    assert len(set(ids)) == len(ids)


def test_a_call_knows_its_process_and_holds_nothing_yet() -> None:
    call = _calls.new_call(b"n" * 8)
    assert (call.pid, call.namespace, call.holds) == (os.getpid(), b"n" * 8, False)


def test_outside_of_any_call_nobody_holds_and_every_wait_is_allowed() -> None:
    assert _calls.youngest_holder() is None
    assert _calls.may_wait_for(Owner((1, 1), 1), None)


def test_the_youngest_of_the_enclosing_calls_that_hold_claims_counts() -> None:
    with _calls.inside(holder(10)), _calls.inside(holder(30)), _calls.inside(holder(20)):
        assert _calls.youngest_holder() == (30, 1)


def test_a_call_that_holds_nothing_does_not_count() -> None:
    with _calls.inside(holder(10)), _calls.inside(holder(30, holds=False)):
        assert _calls.youngest_holder() == (10, 1)


def test_a_call_that_let_go_of_its_claims_meanwhile_does_not_count() -> None:
    call = holder(10)
    with _calls.inside(call):
        call.holds = False
        assert _calls.youngest_holder() is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StopIteration, GeneratorExit])
def test_leaving_by_any_exception_leaves_the_call_and_passes_the_exception_on(error: type[BaseException]) -> None:
    raised = error("reason")
    with pytest.raises(error) as caught, _calls.inside(holder(10)):
        raise raised
    assert caught.value is raised
    assert _calls.youngest_holder() is None


@pytest.mark.parametrize(("owner", "allowed"), [((19, 9), False), ((20, 5), False), ((20, 6), True), ((21, 0), True)])
def test_a_holder_waits_only_for_calls_younger_than_its_youngest(owner: tuple[int, int], allowed: bool) -> None:
    assert _calls.may_wait_for(Owner(owner, 1), (20, 5)) is allowed


def test_tasks_and_to_thread_are_inside_too() -> None:
    async def in_task() -> tuple[int, int] | None:
        return await asyncio.to_thread(_calls.youngest_holder)

    async def main() -> tuple[int, int] | None:
        with _calls.inside(holder(10)):
            return await asyncio.create_task(in_task())

    assert asyncio.run(main()) == (10, 1)


def test_a_thread_of_an_executor_is_another_caller() -> None:
    with ThreadPoolExecutor(1) as executor, _calls.inside(holder(10)):
        assert executor.submit(_calls.youngest_holder).result() is None
