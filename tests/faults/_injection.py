"""An exception at the n-th step of what runs under it: the same for every n, so that each step has its turn.

There are two kinds of step. `LINES`: at the beginning of each function and line, where an allocation may fail.
`SIGNALS`: where the interpreter runs the handlers of signals, which is at the beginning of each function, and after
each call of one that is written in C.
"""

from __future__ import annotations

import dis
import inspect
import os
import random
import sys
from collections.abc import Callable
from dis import Instruction
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self

LINES: Final = "lines"
SIGNALS: Final = "signals"
KINDS: Final = (LINES, SIGNALS)
MOST: Final = 2500
"""Steps of one kind of call that are tried at most: one that evicts looks at thousands of slots."""
TORTURE: Final = os.environ.get("HYPOTHESIS_PROFILE") == "torture"
"""Whether every step has its turn, and not a sample of them."""
_MOVES: Final = (
    "NOP",
    "RESUME",
    "LOAD_FAST",
    "LOAD_CONST",
    "STORE_FAST",
    "RETURN",
    "POP",
    "PUSH_NULL",
    "COPY",
    "SWAP",
    "JUMP",
)
"""How the names of instructions begin that allocate nothing, call nothing and let no signal in."""
_HOLDING: Final = (
    "_calls.py",
    "_drive.py",
    "_forks.py",
    "_wakeups.py",
    "claims.py",
    "environment.py",
    "gate.py",
    "keeper.py",
    "workers.py",
)
"""The modules in which something is taken that must be given back."""
_PASSED_OVER: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE if sys.version_info < (3, 12) else 0
"""What is not interrupted where it goes on: Python 3.11 then leaves it without its ``finally``, as no signal does."""
_TESTS: Final = str(Path(__file__).parents[1])
_SIGNAL_EVENTS: Final = frozenset({"call", "c_return"})
_LINE_EVENTS: Final = frozenset({"call", "line"})


class Steps:
    """Counts the steps of this thread inside the ``with``; at the one numbered ``at``, calls ``act``, which may raise.

    At those that follow it as well, ``times`` in all.

    Steps of the tests' own code do not count.
    """

    def __init__(self, kind: str, at: int, act: Callable[[], object], *, times: int = 1) -> None:
        self.places: list[str] = []
        self._kind = kind
        self._at = range(at, at + times) if at else range(0)
        self._act = act

    def __enter__(self) -> Self:
        self._before = sys.gettrace(), sys.getprofile()
        sys.settrace(self._on_line if self._kind == LINES else None)
        sys.setprofile(self._on_call if self._kind == SIGNALS else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(self._before[0])
        sys.setprofile(self._before[1])

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(_TESTS):
            return None
        if event in _LINE_EVENTS and self._may_fail(event, frame):
            self._take(frame, event)
        return self._on_line

    def _may_fail(self, event: str, frame: FrameType) -> bool:
        return event == "call" or frame.f_lasti in _lines_that_may_fail(frame.f_code)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in _SIGNAL_EVENTS and not frame.f_code.co_filename.startswith(_TESTS):
            self._take(frame, event)

    def _take(self, frame: FrameType, event: str) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & _PASSED_OVER:
            return
        self.places.append(f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_name} ({event})")
        if len(self.places) in self._at:
            self._act()


@cache
def _lines_that_may_fail(code: CodeType) -> frozenset[int]:
    """Where in ``code`` the lines begin in which anything can go wrong.

    Nothing does where values are only moved about, and no handler covers a line that does not even that: that of a
    ``try``. The end of a ``with`` is left out as well: before its own call lets a signal in, ``with`` is over.
    """
    begin, lines = 0, dict[int, list[Instruction]]()
    for instruction in dis.get_instructions(code):
        begin = instruction.offset if instruction.starts_line else begin
        lines.setdefault(begin, []).append(instruction)
    return frozenset(begin for begin, line in lines.items() if _may_fail(line) and not _ends_with(line))


def _may_fail(line: list[Instruction]) -> bool:
    return not all(instruction.opname.startswith(_MOVES) for instruction in line)


def _ends_with(line: list[Instruction]) -> bool:
    """Whether these are the instructions that end a ``with``: a call of its exit with three times `None`."""
    loads = [i for i in line if i.opname != "SWAP"][:3]
    return len(loads) == 3 and all(i.opname == "LOAD_CONST" and i.argval is None for i in loads)


class Signalled(Exception):
    """What a signal's handler raises."""


def place_of(places: list[str], step: int) -> str:
    """Where ``step`` was; nothing where there was none."""
    return places[step - 1] if len(places) >= step > 0 else ""


def raiser(error: type[BaseException]) -> Callable[[], object]:
    """What raises an ``error`` when called."""

    def act() -> None:
        raise error

    return act


def sample(places: list[str], number: int, seed: int, *, thorough: bool = False) -> list[int]:
    """The steps to try of a call whose steps are at ``places``: under torture all of them, or `MOST` of very many.

    Else ``number``, chosen by ``seed``; if ``thorough``, also the first and the last step at each place of the modules
    that hold something.
    """
    every = range(1, len(places) + 1)
    if TORTURE and len(places) <= MOST:
        return list(every)
    first = {place: step for step, place in reversed(list(enumerate(places, 1)))}
    last = {place: step for step, place in enumerate(places, 1)}
    holding = {steps[place] for steps in (first, last) for place in last if thorough and place.startswith(_HOLDING)}
    others = random.Random(seed).sample(every, min(len(places), MOST if TORTURE else number))
    return sorted(holding.union(others))
