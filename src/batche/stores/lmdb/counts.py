"""Counts that are true over all processes, dead ones included.

A process counts in a *lane* of its own for each namespace: only its owner adds to it, with plain stores, so a
count costs no transaction. Lanes outlive their owners; the next writer folds a dead owner's lane into the
namespace's totals, in one transaction with a mark that says so, and then frees it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final

from batche._forks import renew_after_fork
from batche.stores.base import COUNTED
from batche.stores.lmdb.words import WORD, Words, allocate

LANE_WORDS: Final = 16
_TOKEN, _NAMESPACE, _ROW, _COUNTS = 0, 2, 3, 8
_FIRST_LANES: Final = 32
IDENTITY: Final = 0
"""The word that says which environment the lanes are of: the first lane is nobody's."""
LEAST_BYTES: Final = (1 + _FIRST_LANES) * LANE_WORDS * WORD
_MOST: Final = 1 << 62
"""A count that is larger was never counted."""
_INDEX: Final = {name: index for index, name in enumerate(COUNTED)}


def new_table(directory: Path, identity: int = 1, *, inside: int | None = None) -> None:
    """Make the lanes of the new environment ``identity``."""
    allocate(directory / "counts", LEAST_BYTES, mark=(IDENTITY, identity), inside=inside)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one process counted for one namespace."""

    index: int
    token: tuple[int, int]
    namespace: bytes
    row: int
    counts: tuple[int, ...]


class _Kept:
    """What this process has counted and has no lane for: here, because an environment may be closed meanwhile."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._mutex = RLock()  # re-entrant: a signal handler may count at any point
        self._counts: dict[Path, dict[bytes, Counter[str]]] = {}
        self._persists: dict[Path, bool] = {}

    def add(self, directory: Path, namespace: bytes, counts: Mapping[str, int], *, persists: bool) -> None:
        """Keep ``counts`` of a namespace of the environment in ``directory``."""
        with self._mutex:
            self._persists[directory] = persists
            self._counts.setdefault(directory, {}).setdefault(namespace, Counter()).update(counts)

    def of(self, directory: Path) -> dict[bytes, Counter[str]]:
        """What is kept for an environment, by namespace."""
        with self._mutex:
            return dict(self._counts.get(directory, {}))

    def take(self, directory: Path, namespace: bytes) -> Mapping[str, int]:
        """What is kept for a namespace, and is not any more."""
        with self._mutex:
            kept = self._counts.get(directory, {})
            counts = kept.pop(namespace, Counter())
            if not kept:
                self._counts.pop(directory, None)
                self._persists.pop(directory, None)
            return counts

    def directories(self) -> dict[Path, bool]:
        """Those for which something is kept, and whether they persist."""
        with self._mutex:
            return {directory: self._persists[directory] for directory in self._counts}


_KEPT: Final = _Kept()


def directories_kept() -> dict[Path, bool]:
    """The environments for which this process has counts that nobody else sees, and whether they persist."""
    return _KEPT.directories()


class Lanes:
    """The lanes of one environment."""

    def __init__(self, directory: Path, *, inside: int | None = None, persists: bool = False) -> None:
        self._directory = directory
        self._persists = persists
        self._table = Words(directory / "counts", unit=LANE_WORDS, inside=inside)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._pid = os.getpid()
        self._mutex = RLock()  # re-entrant: a signal handler may count at any point
        self.own: dict[bytes, int] = {}

    def are_own(self) -> bool:
        """Whether this process may count: not one that was forked without Python's hooks, whose parent's they are."""
        return self._pid == os.getpid()

    def has(self, namespace: bytes) -> bool:
        """Whether this process has a lane for ``namespace``."""
        return namespace in self.own

    def add(self, namespace: bytes, counts: Mapping[str, int]) -> None:
        """Count. Without a lane yet, the counts are kept in this process until there is one."""
        with self._mutex:
            lane = self.own.get(namespace)
            if lane is None:
                _KEPT.add(self._directory, namespace, counts, persists=self._persists)
                return
            words, start = self._table.view, lane * LANE_WORDS + _COUNTS
            for name, number in counts.items():
                words[start + _INDEX[name]] += number

    def take(self, namespace: bytes, token: tuple[int, int], row: int) -> None:
        """Take a free lane for this process. The caller holds the writer's lock."""
        with self._mutex:
            if namespace in self.own:
                self.add(namespace, _KEPT.take(self._directory, namespace))
                return
            index = self._find_free()
            words, start = self._table.view, index * LANE_WORDS
            for word in range(start, start + LANE_WORDS):
                words[word] = 0
            words[start + _NAMESPACE] = int.from_bytes(namespace, "big")
            words[start + _ROW] = row
            words[start + 1], words[start] = token[1], token[0]
            self.own[namespace] = index
            self.add(namespace, _KEPT.take(self._directory, namespace))

    def kept(self, namespace: bytes) -> tuple[int, ...]:
        """The counts of a namespace that are kept in this process, for want of a lane."""
        kept = _KEPT.of(self._directory).get(namespace, Counter())
        return tuple(kept[name] for name in COUNTED)

    def kept_namespaces(self) -> list[bytes]:
        """The namespaces whose counts are kept so."""
        return list(_KEPT.of(self._directory))

    def _find_free(self) -> int:
        self._table.refresh()
        tokens = self._table.view[::LANE_WORDS].tolist()
        if 0 not in tokens[1:]:
            self._table.grow(2 * len(self._table))
            return len(tokens)
        return tokens.index(0, 1)

    def drop(self, namespace: bytes) -> None:
        """Give up this process's lane of ``namespace``, whose counts nobody will ask for."""
        _KEPT.take(self._directory, namespace)
        with self._mutex:
            index = self.own.pop(namespace, None)
            if index is not None:
                self._table.view[index * LANE_WORDS] = 0

    def all(self) -> Iterator[Lane]:
        """Every lane in use, as it stands."""
        self._table.refresh()
        yield from self._in_use(range(1, len(self._table) // LANE_WORDS))

    def of(self, namespace: bytes) -> list[Lane]:
        """The lanes of a namespace. A process may have thousands for others, and they cost next to nothing here."""
        self._table.refresh()
        wanted = int.from_bytes(namespace, "big")
        namespaces = self._table.view[_NAMESPACE::LANE_WORDS].tolist()
        found = self._in_use(_indexes(namespaces, wanted))
        return [lane for lane in found if lane.namespace == namespace]  # it may have been freed and taken since

    def owners(self) -> set[tuple[tuple[int, int], int]]:
        """Token and row of every process that has a lane."""
        self._table.refresh()
        words = self._table.view
        first, second, rows = (words[LANE_WORDS + at :: LANE_WORDS].tolist() for at in (_TOKEN, _TOKEN + 1, _ROW))
        return {((one, two), row) for one, two, row in zip(first, second, rows, strict=True) if one}

    def _in_use(self, indexes: Iterable[int]) -> Iterator[Lane]:
        words = self._table.view
        for index in indexes:
            lane = words[index * LANE_WORDS : (index + 1) * LANE_WORDS].tolist()
            if lane[_TOKEN]:
                yield Lane(
                    index,
                    (lane[_TOKEN], lane[_TOKEN + 1]),
                    lane[_NAMESPACE].to_bytes(8, "big"),
                    lane[_ROW],
                    tuple(count if count < _MOST else 0 for count in lane[_COUNTS : _COUNTS + len(COUNTED)]),
                )

    def hold(self, lanes: Sequence[Lane]) -> bool:
        """Whether each of ``lanes`` still belongs to the process that it was read of."""
        self._table.refresh()
        words = self._table.view
        return all((words[at], words[at + 1]) == lane.token for lane in lanes for at in (lane.index * LANE_WORDS,))

    def free(self, lane: Lane) -> None:
        """Free a lane whose counts were folded. The caller holds the writer's lock."""
        self._table.view[lane.index * LANE_WORDS] = 0


def _indexes(words: list[int], wanted: int) -> Iterator[int]:
    """Where ``wanted`` is but first, found by `list.index`: ten times as fast as a loop."""
    index = 0  # which is nobody's lane
    with suppress(ValueError):
        while True:
            index = words.index(wanted, index + 1)
            yield index
