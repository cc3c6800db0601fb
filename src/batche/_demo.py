"""`batche demo`: worker processes look for near-duplicates in real text, with and without the cache.

Each worker goes through its own shuffle of most of the texts in batches that overlap, so that the same texts
come up again within a worker and in all of them: the way that data is read in training, in evaluation and by
the workers of a server. Every number printed is measured; nothing sleeps.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import random
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from multiprocessing.connection import Connection, wait
from typing import TypeAlias

from batche import CacheInfo, cache_batch_variable
from batche._demo_minhash import HASHES, ROWS, WORDS, Signature, candidates, estimate, jaccard, signature
from batche._demo_progress import Progress
from batche._demo_texts import Text, gather
from batche.errors import BatcheException

TEXTS, QUICK_TEXTS = 2_000, 250
BATCH, STEP = 64, 32
"""A batch begins `STEP` texts after the one before it, so each text of a worker is in two batches."""
SHARE = 0.8
"""The part of all texts that one worker goes through."""
ALIKE = 0.7
SHOWN = 5


class DemoError(BatcheException):
    """The demo could not run to its end."""


class _Count:
    """The texts that the batch function computed in this process."""

    texts = 0


def compute(texts: list[str]) -> list[Signature]:
    """The batch function: one MinHash signature for each text."""
    _Count.texts += len(texts)
    return [signature(text) for text in texts]


@functools.cache
def remembered(text: str) -> Signature:
    return compute([text])[0]


@cache_batch_variable("texts", version=f"{WORDS} words, {HASHES} hashes")
def signatures(texts: list[str]) -> list[Signature]:
    return compute(texts)


MODES: dict[str, Callable[[list[str]], list[Signature]]] = {
    "no cache": compute,
    "functools.cache": lambda texts: [remembered(text) for text in texts],
    "batche": signatures,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one mode did, all workers together; ``digests`` are of each worker's results."""

    mode: str
    computed: int
    seconds: float
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that are nearly the same, how alike their signatures say they are, and how alike they are."""

    one: str
    other: str
    estimated: float
    exact: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that the demo measured."""

    workers: int
    texts: int
    distinct_texts: int
    outcomes: list[Outcome]
    cache_info: CacheInfo
    near_duplicates: list[Pair]

    @property
    def agree(self) -> bool:
        return len({outcome.digests for outcome in self.outcomes}) == 1

    def as_json(self) -> str:
        modes = {o.mode: {"computed": o.computed, "seconds": round(o.seconds, 3)} for o in self.outcomes}
        plain = asdict(self) | {"agree": self.agree, "modes": modes, "cache_info": self.cache_info._asdict()}
        del plain["outcomes"]
        return json.dumps(plain, indent=2)


def main(*, workers: int = 4, quick: bool = False, as_json: bool = False) -> int:
    """Run the demo, print what it measured, and return 0 if all three ways gave the same results, else 1."""
    report = run(workers, gather(QUICK_TEXTS if quick else TEXTS), Progress(sys.stderr))
    print(report.as_json() if as_json else table(report))
    return 0 if report.agree else 1


def run(workers: int, texts: list[Text], progress: Progress) -> Report:
    """Go through the same batches in each mode, then look for near-duplicates with the cached signatures.

    The cache of this demo's function is cleared before and after; no other function's is touched.
    """
    if not texts:
        raise DemoError("this Python has no source of its standard library to read")
    bodies = [text.body for text in texts]
    signatures.cache_clear()
    try:
        outcomes = [_run_mode(mode, workers, bodies, progress) for mode in MODES]
        info = signatures.cache_info()
        pairs = near_duplicates(texts, signatures(bodies))
    finally:
        signatures.cache_clear()
    asked = sum(len(batch) for seed in range(workers) for batch in batches(bodies, seed))
    seen = {text for seed in range(workers) for batch in batches(bodies, seed) for text in batch}
    return Report(workers, asked, len(seen), outcomes, info, pairs)


def batches(texts: list[str], seed: int) -> Iterator[list[str]]:
    """One worker's batches: a part of the texts in an order of its own, each of them in two batches."""
    mine = random.Random(seed).sample(texts, max(1, round(SHARE * len(texts))))
    for start in range(-STEP, len(mine), STEP):
        yield mine[max(0, start) : start + BATCH]


def near_duplicates(texts: list[Text], signed: list[Signature]) -> list[Pair]:
    """The pairs that are most alike by their signatures, without those that are parts of each other."""
    apart = [(a, b) for a, b in candidates(signed) if not texts[a].overlaps(texts[b])]
    alike = sorted((-estimate(signed[a], signed[b]), a, b) for a, b in apart)
    return [
        Pair(str(texts[a]), str(texts[b]), -minus, jaccard(texts[a].body, texts[b].body))
        for minus, a, b in alike[:SHOWN]
        if -minus >= ALIKE
    ]


_Done: TypeAlias = tuple[int, str]


def _run_mode(mode: str, workers: int, texts: list[str], progress: Progress) -> Outcome:
    began = time.perf_counter()
    total = workers * sum(1 for _ in batches(texts, seed=0))
    with progress.of(mode, total) as advance:
        done = _run_workers(mode, workers, texts, advance)
    seconds = time.perf_counter() - began
    return Outcome(mode, sum(computed for computed, _ in done), seconds, tuple(digest for _, digest in done))


def _run_workers(mode: str, workers: int, texts: list[str], advance: Callable[[], None]) -> list[_Done]:
    channels: list[Connection] = []
    processes: list[multiprocessing.Process] = []
    try:
        for seed in range(workers):
            ours, theirs = multiprocessing.Pipe()
            channels.append(ours)
            processes.append(multiprocessing.Process(target=_work, args=(mode, seed, theirs)))
            processes[-1].start()
            theirs.close()  # else its end would not be seen here
            _send(ours, texts)
        return _collect(channels, advance)
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        _end(processes, channels)


def _send(channel: Connection, texts: list[str]) -> None:
    """Give a worker the texts. As an argument of a spawned process that fails to start they would block for ever."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `_collect` sees that the worker has ended
        channel.send(texts)


def _collect(channels: list[Connection], advance: Callable[[], None]) -> list[_Done]:
    done: dict[int, _Done] = {}
    while len(done) < len(channels):
        for ready in wait([channel for seed, channel in enumerate(channels) if seed not in done]):
            seed = channels.index(ready)  # type: ignore[arg-type]  # wait() also takes sockets, of which there are none
            try:
                message: _Done | None = channels[seed].recv()
            except (EOFError, ConnectionResetError):
                raise DemoError(f"worker {seed} ended before its work was done") from None
            if message is None:
                advance()
            else:
                done[seed] = message
    return [done[seed] for seed in range(len(channels))]


def _end(processes: list[multiprocessing.Process], channels: list[Connection]) -> None:
    for process in processes:
        process.join()
        process.close()
    for channel in channels:
        channel.close()


def _work(mode: str, seed: int, channel: Connection) -> None:
    """In a worker: take the texts, send None after each batch, at the end what was computed and a digest of it all."""
    remembered.cache_clear()  # a forked worker begins with what its parent remembered and counted
    texts: list[str] = channel.recv()
    before, digest = _Count.texts, blake2b()
    for batch in batches(texts, seed):
        digest.update(json.dumps(MODES[mode](batch)).encode())
        channel.send(None)
    channel.send((_Count.texts - before, digest.hexdigest()))


def table(report: Report) -> str:
    """The report in plain text."""
    rows = [
        f"{o.mode:<18}{report.texts:>10,}{report.distinct_texts:>10,}{o.computed:>10,}{o.seconds:>10.1f} s"
        for o in report.outcomes
    ]
    verdict = "yes" if report.agree else "NO: the results differ"
    return "\n".join(
        [
            f"MinHash signatures of the standard library's source and docstrings, {report.workers} processes",
            "",
            f"{'':<18}{'texts':>10}{'distinct':>10}{'computed':>10}{'wall time':>12}",
            *rows,
            "",
            f"same results in all three: {verdict}",
            textwrap.fill(f"batche: {report.cache_info}", width=100, subsequent_indent=" " * 18),
            "",
            *_pair_lines(report.near_duplicates),
        ]
    )


def _pair_lines(pairs: list[Pair]) -> Iterator[str]:
    yield f"near-duplicates found ({HASHES // ROWS} bands of {ROWS} hashes): alike by signature, alike exactly"
    for pair in pairs:
        yield f"  {pair.estimated:.2f}  {pair.exact:.2f}  {pair.one}  and  {pair.other}"
