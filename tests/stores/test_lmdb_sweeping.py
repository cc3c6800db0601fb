"""Claims that are over: who removes them, when, and what it survives."""

from __future__ import annotations

from pathlib import Path

import pytest

from batche._types import Call
from batche.stores.lmdb import LmdbStore, records, sweeping
from batche.stores.lmdb.records import CLAIM
from batche.stores.lmdb.writing import Writing
from tests.stores._driving import NAMESPACE, claim, claims_of, key, new_call, new_place, server, wait_until


def made(path: Path) -> LmdbStore:
    return LmdbStore(path)


def claimed(store: LmdbStore, numbers: list[int]) -> None:
    claim(store, new_call(), numbers)


def write(store: LmdbStore) -> int:
    """Be a writer; the number of claims that are written down after it."""
    store.delete([key(10**6)])
    return len(claims_of(store))


def marked(store: LmdbStore) -> int:
    names = claims_of(store)
    raws = store._opened.lmdb.read(lambda transaction: [transaction.get(CLAIM + name) for name in names])
    return sum(map(records.is_mourned, filter(None, raws)))


def claim_and_die(path: Path, numbers: list[int]) -> None:
    with server(made, path) as owner:
        owner.do(claimed, numbers)
        owner.kill()


def test_claims_of_the_dead_are_removed_though_who_found_them_writes_no_more(tmp_path: Path) -> None:
    path = new_place(tmp_path)
    claim_and_die(path, [1, 2, 3])
    with server(made, path) as finder, server(made, path) as other:
        assert finder.do(write) == 3
        assert finder.do(marked) == 3
        wait_until(lambda: other.do(write) == 0, "another writer removes them")


def test_claims_of_the_dead_are_removed_though_who_found_them_was_killed(tmp_path: Path) -> None:
    path = new_place(tmp_path)
    claim_and_die(path, [1, 2, 3])
    with server(made, path) as finder:
        assert finder.do(write) == 3
        finder.kill()
    store = made(path)
    wait_until(lambda: write(store) == 0, "another writer removes them")


def test_claims_of_the_dead_stay_for_their_waiters_to_see(tmp_path: Path) -> None:
    path = new_place(tmp_path)
    store = made(path)
    claim_and_die(path, [1, 2, 3])
    store._claims.suspect()
    for _ in range(5):
        write(store)
    store.claim(new_call(), [key(1), key(2)])
    assert store.stats(NAMESPACE).takeovers == 2


def test_a_sweep_that_is_rolled_back_is_done_again(tmp_path: Path) -> None:
    store = made(new_place(tmp_path))
    call = new_call()
    claim(store, call, [1, 2, 3])
    store.release(call)

    def fail(_: Writing) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store._upkeep.write(NAMESPACE, fail)
    assert len(claims_of(store)) == 3
    assert write(store) == 0


def test_a_sweep_of_more_than_one_piece_goes_on_where_it_was(tmp_path: Path) -> None:
    store = made(new_place(tmp_path))
    call = new_call()
    number = 2 * sweeping.MOST_SWEPT + 5
    claim(store, call, list(range(number)))
    store.release(call)
    assert [write(store) for _ in range(3)] == [number - sweeping.MOST_SWEPT, 5, 0]


def test_deaths_without_end_do_not_keep_the_claims_of_those_who_died_before(tmp_path: Path) -> None:
    store = made(new_place(tmp_path))
    abandoned: list[Call] = []

    def another_death() -> bool:
        call = new_call()
        claim(store, call, [len(abandoned)])
        abandoned.append(call)
        store.release(call, abandoned=True)
        return key(0) not in claims_of(store)

    wait_until(another_death, "the first claim goes while others die")
