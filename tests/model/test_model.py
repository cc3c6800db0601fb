"""The models hold, each flaw left in on purpose is found, and the steps stand for functions that are there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.model._checker import FAULT, Model, StandsFor, State, explore
from tests.model.suite import ALL, FLAWS, SMALL


@pytest.mark.parametrize("choice", SMALL, ids=lambda choice: choice[0](**choice[1]).name)
def test_a_model_holds(choice: tuple[Callable[..., Model], dict[str, Any]]) -> None:
    model, options = choice
    report = explore(model(**options))
    assert report.found is None, f"{report.name}: {report.found}"
    assert report.states > 100


@pytest.mark.parametrize(("flaw", "consequence", "model", "options"), FLAWS, ids=[flaw for flaw, *_ in FLAWS])
def test_a_flaw_is_found(flaw: str, consequence: str, model: Callable[..., Model], options: dict[str, Any]) -> None:
    report = explore(model(**options, flaws=frozenset({flaw})), limit=100_000)
    assert report.found is not None
    assert consequence in report.found.what
    assert report.found.trace


@pytest.mark.parametrize(("step", "names"), StandsFor.functions.items())
def test_the_functions_that_a_step_stands_for_are_there(step: str, names: tuple[str, ...]) -> None:
    for name in names:
        module, _, path = name.partition(":")
        found: Any = importlib.import_module(f"batche.{module}")
        for part in path.split("."):
            found = getattr(found, part, None)
        assert callable(found), f"{step} stands for {name}, which is not there"


def test_no_model_has_two_names() -> None:
    sound = [model(**options).name for model, options in ALL if "flaws" not in options]
    assert len(set(sound)) == len(sound)


# ---- the checker itself ----


class Place(NamedTuple):
    number: int


class Walk:
    """A model that is a list of ways from number to number."""

    name = "walk"

    def __init__(self, ways: str, *, over: str = "", bad: str = "") -> None:
        self._ways = [way.split(">") for way in ways.split()]
        self._over, self._bad = over.split(), bad.split()

    def begin(self) -> Iterator[Place]:
        yield Place(0)

    def steps(self, state: Place) -> Iterator[tuple[str, Place]]:
        for source, target in self._ways:
            if source.lstrip(FAULT) == str(state.number):
                yield f"{FAULT if source.startswith(FAULT) else ''}to {target}", Place(int(target))

    def wrong(self, state: Place) -> str | None:
        return f"at {state.number}" if str(state.number) in self._bad else None

    def is_over(self, state: Place) -> bool:
        return str(state.number) in self._over

    def canonical(self, state: Place) -> State:
        return state


def test_a_walk_that_ends_well_holds() -> None:
    report = explore(Walk("0>1 0>2 1>3 2>3 !1>0", over="3"))
    assert (report.verdict, report.states, report.transitions) == ("holds", 4, 5)


def test_what_is_wrong_is_told_with_the_shortest_way_to_it() -> None:
    found = explore(Walk("0>1 1>2 2>3 0>4 4>3", over="3", bad="3")).found
    assert found is not None
    assert (found.what, found.trace) == ("at 3", ("to 4", "to 3"))
    assert str(found) == "at 3\n   1. to 4\n   2. to 3"


@pytest.mark.parametrize("ways", ["0>1", "0>1 !1>2", "0>1 1>1"])
def test_a_dead_end_is_found_though_a_fault_would_lead_on(ways: str) -> None:
    found = explore(Walk(ways, over="2")).found
    assert found is not None
    assert "deadlock" in found.what


def test_a_circle_is_found_though_a_way_out_of_it_is_there() -> None:
    found = explore(Walk("0>1 1>2 2>1 2>3", over="3")).found
    assert found is not None
    assert "livelock" in found.what


def test_more_states_than_allowed_are_an_error() -> None:
    with pytest.raises(MemoryError, match="more than 3 states"):
        explore(Walk("0>1 1>2 2>3 3>4 4>5", over="5"), limit=3)
