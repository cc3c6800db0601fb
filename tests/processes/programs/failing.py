"""Functions that fail in every way, and what it costs those who wait for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batche._types import CallId, Key, Owner
from tests.processes._tools import Scene
from tests.processes.programs.scenes import Behaviour, _note_call, call, function


@dataclass(frozen=True)
class Outcome:
    """What one call came to. ``owners_waited_for`` is of the item for which it waited for most."""

    caller: tuple[int, int]
    answer: Any
    raised: BaseException | None
    owners_waited_for: int


class Watch:
    """Whom each thread waited for, item by item: those of its last look when it comes to look again."""

    def __init__(self, store: Any) -> None:
        self._owners = store.owners
        self._waited_for: dict[tuple[int, Key], set[CallId]] = {}
        store.owners = self._look

    def _look(self, keys: Sequence[Key], before: Sequence[Owner | None] | None = None) -> Any:
        for key, owner in zip(keys, before or (), strict=False):
            if owner is not None:
                self._waited_for.setdefault((threading.get_ident(), key), set()).add(owner.call)
        return self._owners(keys, before)

    def most(self) -> int:
        me = threading.get_ident()
        return max((len(calls) for (thread, _), calls in self._waited_for.items() if thread == me), default=0)


def outcomes(scene: Scene, behaviour: Behaviour, items: Sequence[Any], threads: int) -> list[Outcome]:
    """What became of the calls of several threads."""
    watch, found = Watch(function(scene, behaviour).store), list[Outcome]()
    start, end = threading.Barrier(threads), threading.Barrier(threads)

    def one() -> None:
        answer, raised = None, None
        start.wait()
        try:
            answer = [each if isinstance(each, int) else type(each).__name__ for each in call(scene, behaviour, items)]
        except BaseException as error:
            raised = error
        found.append(Outcome((os.getpid(), threading.get_ident()), answer, raised, watch.most()))
        end.wait()  # no thread may have another's number

    running = [threading.Thread(target=one) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


def short(scene: Scene, items: list[Any]) -> list[Any]:
    """One result too few."""
    _note_call(scene)
    return items[1:]


def long(scene: Scene, items: list[Any]) -> list[Any]:
    """One result too many."""
    _note_call(scene)
    return [*items, 0]


class Opaque:
    """Nothing that the codec ``"msgpack"`` takes."""


def opaque(scene: Scene, items: list[Any]) -> list[Any]:
    """Results that the codec does not take."""
    _note_call(scene)
    return [Opaque() for _ in items]


class AbortedError(BaseException):
    """Not an `Exception`, and none of Python's own."""


def _end_thrice(scene: Scene, error: type[BaseException]) -> None:
    if _note_call(scene) <= 3:
        raise error


def interrupted_thrice(scene: Scene, items: list[Any]) -> None:
    _end_thrice(scene, KeyboardInterrupt)


def exiting_thrice(scene: Scene, items: list[Any]) -> None:
    _end_thrice(scene, SystemExit)


def closed_thrice(scene: Scene, items: list[Any]) -> None:
    _end_thrice(scene, GeneratorExit)


def aborted_thrice(scene: Scene, items: list[Any]) -> None:
    _end_thrice(scene, AbortedError)
