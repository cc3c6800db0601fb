"""A small explicit-state model checker: every reachable state of a model, breadth first, so that a trace is shortest.

A model says which states it begins in, which steps each state allows, and what must never be. Three things are
checked. Safety: no reachable state is wrong. No deadlock and no lost wake-up: from every state that is not over, a
step other than a fault leads on. No livelock: no run that only takes steps goes on for ever, that is, the graph has no
circle. A finite graph without circles and dead ends has only runs that end well, whatever the scheduler does.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol, TypeVar

State = tuple[Any, ...]
FAULT: Final = "!"
"""What the label of a step begins with that nobody may count on: a crash, an invalidation, another process."""

F = TypeVar("F", bound=Callable[..., Any])


class Model(Protocol):
    """What can be explored. States are tuples of hashable parts; ``flaws`` are what is left out on purpose."""

    name: str

    def begin(self) -> Iterable[State]:
        """The states it begins in."""
        ...

    def steps(self, state: Any) -> Iterable[tuple[str, State]]:
        """What can happen next: a label and the state it leads to."""
        ...

    def wrong(self, state: Any) -> str | None:
        """What is wrong with a state, if anything."""
        ...

    def is_over(self, state: Any) -> bool:
        """Whether nobody who lives has anything left to do."""
        ...

    def canonical(self, state: Any) -> State:
        """The same for all states that differ only in the names of alike parts."""
        ...


@dataclass(frozen=True)
class Found:
    """What is wrong, and how to get there."""

    what: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"{number:4}. {label}" for number, label in enumerate(self.trace, 1))])


@dataclass(frozen=True)
class Report:
    """What came of an exploration; ``found`` is `None` where all properties hold."""

    name: str
    states: int
    transitions: int
    seconds: float
    found: Found | None

    @property
    def verdict(self) -> str:
        return "holds" if self.found is None else self.found.what


@dataclass
class _Graph:
    """The states met so far, by number in the order of their meeting, and the steps between them."""

    model: Model
    numbers: dict[State, int] = field(default_factory=dict)
    parents: array[int] = field(default_factory=lambda: array("l"))
    sources: array[int] = field(default_factory=lambda: array("l"))
    targets: array[int] = field(default_factory=lambda: array("l"))
    transitions: int = 0
    parts: dict[Hashable, Hashable] = field(default_factory=dict)

    def meet(self, state: State, parent: int) -> tuple[int, State | None]:
        """The number of a state, and the state itself where it is a new one."""
        met = self.model.canonical(state)
        number = self.numbers.get(met)
        if number is not None:
            return number, None
        kind: Any = type(met)  # a NamedTuple
        met = kind(*[self.parts.setdefault(part, part) for part in met])
        number = self.numbers[met] = len(self.numbers)
        self.parents.append(parent)
        return number, met

    def step(self, source: int, target: int, *, fault: bool) -> None:
        self.transitions += 1
        if not fault and source != target:
            self.sources.append(source)
            self.targets.append(target)


def explore(model: Model, *, limit: int = 10_000_000) -> Report:
    """Visit every state; stops at the first that is wrong. More than ``limit`` states are an error."""
    begun = time.perf_counter()
    graph = _Graph(model)
    found = _search(graph, limit) or _circle(graph)
    return Report(model.name, len(graph.numbers), graph.transitions, time.perf_counter() - begun, found)


def _search(graph: _Graph, limit: int) -> Found | None:
    model, queue = graph.model, deque[tuple[int, State]]()
    for state in model.begin():
        number, met = graph.meet(state, -1)
        if met is not None:
            queue.append((number, met))
    while queue:
        number, state = queue.popleft()
        what = model.wrong(state)
        if what is None and not _expand(graph, queue, number, state) and not model.is_over(state):
            what = "deadlock: somebody lives and nobody can go on"
        if what is not None:
            return Found(what, _trace(graph, number))
        if len(graph.numbers) > limit:
            raise MemoryError(f"{model.name} has more than {limit} states")
    return None


def _expand(graph: _Graph, queue: deque[tuple[int, State]], number: int, state: State) -> bool:
    """Take every step of a state; whether one of them leads on without a fault."""
    goes_on = False
    for label, following in graph.model.steps(state):
        target, met = graph.meet(following, number)
        fault = label.startswith(FAULT)
        graph.step(number, target, fault=fault)
        goes_on |= not fault and target != number
        if met is not None:
            queue.append((target, met))
    return goes_on


def _circle(graph: _Graph) -> Found | None:
    """A state on a circle of steps, if there is one: what is left when states without a way in are taken away."""
    ways_in = array("l", bytes(array("l").itemsize * len(graph.numbers)))
    for target in graph.targets:
        ways_in[target] += 1
    starts = _starts(graph)
    free = [number for number in range(len(ways_in)) if not ways_in[number]]
    left = len(ways_in) - len(free)
    while free:
        number = free.pop()
        for edge in range(starts[number], starts[number + 1]):
            target = graph.targets[edge]
            ways_in[target] -= 1
            if not ways_in[target]:
                free.append(target)
                left -= 1
    if not left:
        return None
    first = next(number for number, ways in enumerate(ways_in) if ways)
    return Found("livelock: steps lead round in a circle", _trace(graph, first))


def _starts(graph: _Graph) -> list[int]:
    """Where the steps of each state begin: states are expanded in the order of their numbers."""
    starts = [0] * (len(graph.numbers) + 1)
    for source in graph.sources:
        starts[source + 1] += 1
    for number in range(len(graph.numbers)):
        starts[number + 1] += starts[number]
    return starts


def _trace(graph: _Graph, number: int) -> tuple[str, ...]:
    """The labels on the way to a state, told of one run: what `canonical` renames on the way is not renamed here."""
    way = []
    while number >= 0:
        way.append(number)
        number = graph.parents[number]
    return tuple(_replay(graph, way[::-1]))


def _replay(graph: _Graph, way: list[int]) -> Iterator[str]:
    model = graph.model

    def number_of(state: State) -> int | None:
        return graph.numbers.get(model.canonical(state))

    state = next(state for state in model.begin() if number_of(state) == way[0])
    for number in way[1:]:
        label, state = next(step for step in model.steps(state) if number_of(step[1]) == number)
        yield label


class StandsFor:
    """Which functions of the library a model's steps stand for, so that a test can tell when one is gone."""

    functions: ClassVar[dict[str, tuple[str, ...]]] = {}


def stands_for(*names: str) -> Callable[[F], F]:
    """Note the functions (``module:qualified.name`` below ``batche``) that a step of a model stands for."""

    def note(step: F) -> F:
        StandsFor.functions[f"{step.__module__}.{step.__qualname__}"] = names
        return step

    return note
