"""Asking a question: every peer in a process of its own, one after the other in each round, in random order.

So a machine that is slow for a while is slow for all of them, and a ratio is one of two measurements made within the
same second or so.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

from benchmarks.questions import Answer, Outcome, Question

ROOT: Final = Path(__file__).parent.parent
Ask: TypeAlias = Callable[..., dict[str, Any]]
Paths: TypeAlias = Mapping[str, Path]
"""The directories that the processes of some peers import from before any other."""


class WorkerError(RuntimeError):
    """The process of a peer ended before it answered; what it said is on stderr."""


@contextmanager
def worker(peer: str, question: Question, paths: Paths) -> Iterator[Ask]:
    """A process of ``peer``, which ends with the context."""
    command = [sys.executable, "-m", "benchmarks.worker", peer, question.kind, str(question.capacity)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=_environment(paths.get(peer)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        requests, answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)

        def ask(do: str, **request: Any) -> dict[str, Any]:
            print(json.dumps({"do": do, **request}), file=requests, flush=True)
            answer = answers.readline()
            if not answer:
                raise WorkerError(f"{peer}: its process ended")
            return dict(json.loads(answer))

        yield ask


def _environment(first: Path | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "BATCHE_STORE"}
    paths = [str(first) if first else "", environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@contextmanager
def filled_worker(peer: str, question: Question, paths: Paths) -> Iterator[Ask]:
    with worker(peer, question, paths) as ask:
        ask("fill", entries=question.filled)
        if question.limited:
            ask("limit", batch=question.batch)
            _measure(ask, question, 0)  # the first batches after a limit is set may find it not yet reached
        yield ask


def ask_all(question: Question, peers: Sequence[str], paths: Paths, seed: int) -> Answer:
    """Ask ``question`` of all ``peers``."""
    order = random.Random(seed)
    answers: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    with ExitStack() as stack:
        asks = _lasting(question, peers, paths, stack)
        for number in range(1, question.rounds + 1):
            for peer in order.sample(peers, len(peers)):
                ask = asks.get(peer)
                answers[peer].append(_measure(ask, question, number) if ask else _measure_fresh(peer, question, paths))
    return Answer(question, {peer: _outcome(answers[peer]) for peer in peers})


def _lasting(question: Question, peers: Sequence[str], paths: Paths, stack: ExitStack) -> dict[str, Ask]:
    """The processes that last for all rounds: none where each round has its own."""
    lasting = [] if question.fresh else peers
    return {peer: stack.enter_context(filled_worker(peer, question, paths)) for peer in lasting}


def _measure_fresh(peer: str, question: Question, paths: Paths) -> dict[str, Any]:
    with filled_worker(peer, question, paths) as ask:
        return _measure(ask, question, 0)


def _measure(ask: Ask, question: Question, number: int) -> dict[str, Any]:
    size = {"batch": question.batch, "batches": question.batches}
    if question.operation == "get":
        return ask("get", seed=number, entries=question.filled, **size)
    return ask("put", first=question.filled + number * question.batch * question.batches, **size)


def _outcome(answers: Sequence[Mapping[str, Any]]) -> Outcome:
    return Outcome(
        answers[-1]["version"],
        [answer["seconds"] / answer["items"] * 1e9 for answer in answers],
        all(answer["right"] for answer in answers),
        answers[-1].get("entries"),
    )
