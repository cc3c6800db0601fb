"""Claims that are over: who removes them, when, and what it survives."""

from __future__ import annotations

import os
import signal
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


# ---- what the dead have left stays for a while, whatever becomes of those who sweep ----


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep looks at two claims in a transaction, and marked ones stay for longer than any test lasts."""
    monkeypatch.setattr(sweeping, "MOST_SWEPT", 2)
    monkeypatch.setattr(sweeping, "MOURNING", 1000.0)


def abandon(store: LmdbStore, numbers: list[int]) -> None:
    """Leave claims behind as a killed process does."""
    call = new_call()
    claim(store, call, numbers)
    store.release(call, abandoned=True)


@pytest.mark.usefixtures("slow")
def test_a_piece_does_not_remove_what_the_one_before_it_has_marked(tmp_path: Path) -> None:
    store = made(new_place(tmp_path))
    abandon(store, [1, 2, 3, 4, 5])
    assert [write(store) for _ in range(5)] == [5] * 5
    assert marked(store) == 5


@pytest.mark.usefixtures("slow")
def test_a_pass_does_not_remove_what_an_unfinished_one_has_marked(tmp_path: Path) -> None:
    path = new_place(tmp_path)
    one, other = made(path), made(path)
    abandon(one, [1, 2, 3, 4])
    assert [write(one), marked(one)] == [4, 2]
    assert [write(other) for _ in range(5)] == [4] * 5


@pytest.mark.usefixtures("slow")
def test_an_unfinished_pass_does_not_remove_what_another_one_has_marked(tmp_path: Path) -> None:
    path = new_place(tmp_path)
    one, other = made(path), made(path)
    first, second, third, fourth = sorted([1, 2, 3, 4], key=key)
    claim(one, new_call(), [first, second])
    abandon(one, [third, fourth])
    assert [write(one), marked(one)] == [4, 0]
    assert [write(other) for _ in range(3)] == [4] * 3
    assert marked(one) == 2
    assert [write(one) for _ in range(3)] == [4] * 3


def be_killed_after_a_commit(store: LmdbStore) -> None:
    sweeping.MOURNING = 1000.0  # type: ignore[misc]  # as in the process that comes next

    def die(_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store._upkeep._sweep.committed = die  # type: ignore[assignment, method-assign]  # it is killed there
    write(store)


@pytest.mark.usefixtures("slow")
def test_what_a_writer_has_marked_stays_though_it_is_killed_right_after_its_commit(tmp_path: Path) -> None:
    path = new_place(tmp_path)
    store = made(path)
    abandon(store, [1])
    with server(made, path) as finder:
        with pytest.raises(EOFError):
            finder.do(be_killed_after_a_commit)
        finder.kill()
    assert marked(store) == 1
    assert [write(store) for _ in range(3)] == [1] * 3
