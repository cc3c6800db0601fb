"""An invalidation at every step of somebody else's computation: no stale result is stored, no later caller gets one.

The computation is the engine's own, made step by step against a real store; whoever invalidates, and whoever comes
later, is another process. What a function returns is what is true when it is called: ``old`` before, ``new`` after.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement, count
from pathlib import Path
from typing import Any

import pytest

from batche import StoreError
from tests.processes._tools import Actor, Cast, Scene
from tests.processes.programs import stepping
from tests.processes.programs.scenes import call, plain
from tests.processes.programs.stepping import NEW, OLD, Stepped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")

ITEMS = [1, 2, 3]
STEPS = 6
"""Steps of a computation of `ITEMS` in parts of two: read, claim, compute, put and claim, compute, put."""

Removal = Callable[..., Any]


@pytest.fixture
def other() -> Iterator[Actor]:
    """Another process: who invalidates, and who comes later."""
    with Cast() as cast:
        yield cast.actor()


removals = pytest.mark.parametrize(
    "remove",
    [stepping.delete_first, stepping.delete_last, stepping.delete_all, stepping.clear],
    ids=lambda it: it.__name__,
)


def check(path: Path, other: Actor, removed: list[int]) -> None:
    """Nothing old is left of what was removed, and a caller that comes now gets the truth."""
    kept = other.run(stepping.kept, path, ITEMS)
    assert all(kept.get(item, NEW) == NEW for item in removed), kept
    answer = other.run(stepping.call_whole, path, ITEMS)
    assert [answer[ITEMS.index(item)] for item in removed] == [NEW] * len(removed)
    assert other.run(stepping.kept, path, ITEMS).keys() == set(ITEMS)
    assert other.run(stepping.claims_that_hold, path) == 0


def invalidate(path: Path, other: Actor, stepped: Stepped, remove: Removal) -> list[int]:
    """Another process has the truth change, and invalidates; the items that this was for."""
    stepped.truth = NEW
    other.run(stepping.become_true, NEW)
    removed: list[int] = other.run(remove, path, ITEMS)
    return removed


@removals
@pytest.mark.parametrize("filled", [[], [2]])
def test_an_invalidation_before_any_step(tmp_path: Path, other: Actor, remove: Removal, filled: list[int]) -> None:
    for before in range(STEPS + 1):
        path = tmp_path / str(before)
        other.run(stepping.become_true, OLD)
        other.run(stepping.call_whole, path, filled)
        stepped = Stepped(path, ITEMS, batch_size=2)
        stepped.advance(before)
        computed_before = dict(stepped.computed)
        removed = invalidate(path, other, stepped, remove)
        stepped.advance()
        assert stepped.answer is not None
        assert computed_before.items() <= dict(zip(ITEMS, stepped.answer, strict=True)).items()  # its own caller's
        check(path, other, removed)


@removals
def test_who_comes_after_an_invalidation_gets_the_truth_wherever_the_other_call_is(
    tmp_path: Path, other: Actor, remove: Removal
) -> None:
    for before, later in combinations_with_replacement(range(STEPS + 1), 2):
        path = tmp_path / f"{before}-{later}"
        other.run(stepping.become_true, OLD)
        stepped = Stepped(path, ITEMS, batch_size=2)
        stepped.advance(before)
        removed = invalidate(path, other, stepped, remove)
        stepped.advance(later - before)
        coming = other.begin(stepping.call_whole, path, ITEMS)
        other.run(stepping.wait_until_it_waits_or_is_done, path)
        stepped.advance()
        answer = coming.result()
        assert [answer[ITEMS.index(item)] for item in removed] == [NEW] * len(removed)
        check(path, other, removed)


@removals
@pytest.mark.parametrize("before", [1, 2, 3])
def test_an_invalidation_between_the_transactions_of_one_put(
    tmp_path: Path, other: Actor, remove: Removal, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    monkeypatch.setattr("batche.stores.lmdb.putting.MOST_KEYS", 1)
    stepped = Stepped(path, ITEMS)
    writes, removed = count(), list[int]()

    def invalidate_before(write: Callable[..., Any]) -> Callable[..., Any]:
        def writing(*arguments: Any) -> Any:
            if next(writes) == before:
                removed.extend(invalidate(path, other, stepped, remove))
            return write(*arguments)

        return writing

    monkeypatch.setattr(stepped.store._upkeep, "write", invalidate_before(stepped.store._upkeep.write))
    stepped.advance()
    assert next(writes) >= 4  # the claim, and one for each entry
    assert stepped.answer == [OLD, OLD, OLD]
    check(path, other, removed)


@pytest.mark.parametrize("steps", range(STEPS + 1))
@pytest.mark.parametrize("commit", [1, 2])
def test_a_computation_between_the_transactions_of_a_clear(
    tmp_path: Path, other: Actor, steps: int, commit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began before the clear, or in its midst: what it computed before is not stored, what it computes after is."""
    path = tmp_path / "s"
    monkeypatch.setattr("batche.stores.lmdb.removing.MOST_KEYS", 1)
    other.run(stepping.call_whole, path, [2])
    clearing, stepped = stepping.open_store(path), Stepped(path, ITEMS, batch_size=2)
    stepped.advance(steps)
    commits = count(1)

    def compute_after(write: Callable[..., Any]) -> Callable[..., Any]:
        def committing(*arguments: Any, **options: Any) -> Any:
            result = write(*arguments, **options)
            if next(commits) == commit:
                stepped.advance()
            return result

        return committing

    stepped.truth = NEW
    other.run(stepping.become_true, NEW)
    clearing._upkeep.join(stepping.NAMESPACE)
    monkeypatch.setattr(clearing._upkeep, "commit", compute_after(clearing._upkeep.commit))
    clearing.clear(stepping.NAMESPACE)
    assert next(commits) > commit
    check(path, other, ITEMS)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("remove", [stepping.invalidate_without_room, stepping.clear_without_room])
def test_an_invalidation_that_cannot_be_written_raises_strict_or_not(
    tmp_path: Path, other: Actor, remove: Callable[..., None], strict: bool
) -> None:
    scene = Scene.at(tmp_path, strict=strict)
    assert other.run(call, scene, plain, ITEMS) == [10, 20, 30]
    assert isinstance(other.begin(remove, scene, ITEMS).error(), StoreError)
    assert other.run(call, scene, plain, ITEMS) == [10, 20, 30]
    assert scene.journal().lines() == ["1", "2", "3"]
