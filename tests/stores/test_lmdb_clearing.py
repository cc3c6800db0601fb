"""A clear that was killed or failed on the way: the next writers go on with it, a piece in each transaction."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batche.errors import StoreError
from batche.stores.lmdb import LmdbStore, removing
from batche.stores.lmdb.records import CLEARING
from batche.stores.lmdb.upkeep import Limits
from batche.stores.lmdb.writing import Writing
from tests.stores._driving import NAMESPACE, OTHER, contents, key, new_place, recount, server, use

PIECE = 10
NUMBER = 35
BEGUN = NUMBER - PIECE
"""Entries that are left when a clear has done its first piece."""


def together(path: Path) -> LmdbStore:
    setattr(removing, "MOST_KEYS", PIECE)  # noqa: B010 - a constant, in this process, whichever it is
    return LmdbStore(path)


def apart(path: Path) -> LmdbStore:
    """The store of a function, whose limits count each namespace by itself."""
    setattr(removing, "MOST_KEYS", PIECE)  # noqa: B010 - the same
    return LmdbStore.of_function(path, "e", Limits())


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "MOST_KEYS", PIECE)


@pytest.fixture(params=[together, apart])
def made(request: pytest.FixtureRequest) -> Callable[[Path], LmdbStore]:
    make: Callable[[Path], LmdbStore] = request.param
    return make


def clear_and(store: LmdbStore, act: Callable[[], object]) -> int:
    """Clear; once a piece is removed, ``act`` comes in between."""
    commit: Any = store._upkeep.commit
    pieces = list[Any]()

    def commit_and(*arguments: Any) -> Any:
        if len(pieces) == 2:  # the epoch is raised, and a piece removed
            act()
        pieces.append(commit(*arguments))
        return pieces[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._upkeep, "commit", commit_and)
        return store.clear(NAMESPACE)


def be_killed_in_a_clear(store: LmdbStore) -> None:
    clear_and(store, lambda: os.kill(os.getpid(), signal.SIGKILL))


def begin_and_die(made: Callable[[Path], LmdbStore], path: Path) -> None:
    with server(made, path) as clearer, pytest.raises(EOFError):
        clearer.do(be_killed_in_a_clear)


def write(store: LmdbStore, namespace: bytes = NAMESPACE) -> int:
    """Be a writer; the entries that the limits count after it."""
    store.delete([key(10**6, namespace)])
    return store.stats(NAMESPACE).currsize


def under_way(store: LmdbStore) -> bool:
    return store._opened.lmdb.read(lambda transaction: transaction.get(CLEARING + NAMESPACE)) is not None


def test_the_next_writers_go_on_with_the_clear_of_a_process_that_was_killed(
    tmp_path: Path, made: Callable[[Path], LmdbStore]
) -> None:
    path = new_place(tmp_path)
    store = made(path)
    use(store, range(NUMBER))
    begin_and_die(made, path)
    assert store.stats(NAMESPACE).currsize == BEGUN
    assert [write(store) for _ in range(4)] == [BEGUN - PIECE, BEGUN - 2 * PIECE, 0, 0]
    assert store.stats(NAMESPACE).bytes == 0
    assert not under_way(store)
    recount(store)


def test_a_writer_of_another_function_goes_on_with_it_too(tmp_path: Path, made: Callable[[Path], LmdbStore]) -> None:
    path = new_place(tmp_path)
    store = made(path)
    use(store, range(NUMBER))
    begin_and_die(made, path)
    use(store, [1, 2], namespace=OTHER)
    while under_way(store):
        write(store, OTHER)
    assert contents(store, range(NUMBER)) == set()
    assert contents(store, range(NUMBER), OTHER) == {1, 2}
    assert sum(recount(store).values()) == 2


def test_what_was_stored_since_stays(tmp_path: Path, made: Callable[[Path], LmdbStore]) -> None:
    path = new_place(tmp_path)
    store = made(path)
    use(store, range(NUMBER))
    begin_and_die(made, path)
    use(store, range(2 * PIECE))
    while under_way(store):
        write(store)
    assert contents(store, range(NUMBER)) == set(range(2 * PIECE))
    assert store.stats(NAMESPACE).currsize == 2 * PIECE
    recount(store)


def test_a_clear_that_failed_is_gone_on_with_though_its_process_lives(tmp_path: Path) -> None:
    store = together(new_place(tmp_path))
    use(store, range(NUMBER))

    def fail() -> None:
        raise StoreError("s", "no turn")

    with pytest.raises(StoreError):
        clear_and(store, fail)
    assert [write(store) for _ in range(3)] == [BEGUN - PIECE, BEGUN - 2 * PIECE, 0]


def test_a_clear_under_way_is_left_to_its_process(tmp_path: Path) -> None:
    store = together(new_place(tmp_path))
    use(store, range(NUMBER))
    assert clear_and(store, lambda: write(store)) == NUMBER
    assert not under_way(store)


def test_a_piece_that_is_not_committed_is_done_again(tmp_path: Path, made: Callable[[Path], LmdbStore]) -> None:
    path = new_place(tmp_path)
    store = made(path)
    use(store, range(NUMBER))
    begin_and_die(made, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writing, "finish", fail)
        with pytest.raises(ZeroDivisionError):
            write(store, OTHER)
    recount(store)
    assert write(store) == BEGUN - PIECE


def fail(_: object) -> None:
    raise ZeroDivisionError
