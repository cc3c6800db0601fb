"""`Cache` among processes: one mapping for all, and each entry for one taker."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from batche import Cache
from tests.processes._tools import Cast, Flag, exit_status, fork

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def store(cache: Cache[int, int], start: int, stop: int) -> None:
    cache.set_many((number, number) for number in range(start, stop))


def use(cache: Cache[int, int], *keys: int) -> list[int]:
    return [cache[key] for key in keys]


def tell(cache: Cache[int, int]) -> list[tuple[int, int]]:
    return list(cache.items())


def drain(cache: Cache[int, int], go: Flag) -> list[int]:
    go.wait()
    taken = []
    try:
        while True:
            taken.append(cache.popitem()[0])
    except KeyError:
        return taken


def pop_all(cache: Cache[int, int], go: Flag) -> list[int]:
    go.wait()
    return [number for number in range(300) if cache.pop(number, None) is not None]


def set_defaults(cache: Cache[int, int], go: Flag, mine: int) -> list[int]:
    go.wait()
    return [cache.setdefault(number, mine) for number in range(200)]


def churn(cache: Cache[int, int], begun: Flag, stop: Flag) -> int:
    """Replace what is there, and add and remove others, until told to stop."""
    rounds = 0
    while not stop.is_set():
        cache[rounds * 7 % 100] = rounds
        cache[1000 + rounds % 10] = rounds
        cache.pop(1000 + (rounds + 5) % 10, None)
        rounds += 1
        begun.set()
    return rounds


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processes_of_a_program_have_one_cache(method: str) -> None:
    with Cache[int, int](name=f"of a program, by {method}", maxsize=4) as cache, Cast() as cast:
        store(cache, 0, 4)
        other = cast.actor(method)
        assert other.run(use, cache, 1, 0) == [1, 0]
        other.run(store, cache, 4, 5)
        assert tell(cache) == [(3, 3), (1, 1), (0, 0), (4, 4)]
        assert other.run(tell, cache) == tell(cache)
        assert cache.info().evictions == 1


@pytest.mark.parametrize("take", [drain, pop_all])
def test_each_entry_goes_to_one_process(tmp_path: Path, take: object) -> None:
    cache, go = Cache[int, int](tmp_path / "s"), Flag(tmp_path / "go")
    store(cache, 0, 300)
    with Cast() as cast:
        taking = [actor.begin(drain if take is drain else pop_all, cache, go) for actor in cast.actors(3)]
        go.set()
        taken = [task.result() for task in taking]
    assert sorted(number for numbers in taken for number in numbers) == list(range(300))
    assert len(cache) == 0


def test_of_processes_that_set_a_default_one_stores_it(tmp_path: Path) -> None:
    cache, go = Cache[int, int](tmp_path / "s"), Flag(tmp_path / "go")
    with Cast() as cast:
        setting = [actor.begin(set_defaults, cache, go, index) for index, actor in enumerate(cast.actors(3))]
        go.set()
        answers = [task.result() for task in setting]
    assert answers[0] == answers[1] == answers[2] == [cache[number] for number in range(200)]


def test_a_key_that_stays_comes_once_while_another_process_replaces_all(tmp_path: Path) -> None:
    cache, begun, stop = Cache[int, int](tmp_path / "s"), Flag(tmp_path / "begun"), Flag(tmp_path / "stop")
    store(cache, 0, 100)
    with Cast() as cast:
        churning = cast.actor().begin(churn, cache, begun, stop)
        begun.wait()
        walks = [Counter(list(cache)) for _ in range(60)]
        stop.set()
        assert churning.result() > 0
    for walk in walks:
        assert all(walk[number] == 1 for number in range(100))
        assert max(walk.values()) == 1


def test_a_fork_goes_on_with_the_same_cache(tmp_path: Path) -> None:
    cache = Cache[int, int](tmp_path / "s")
    store(cache, 0, 2)

    def child() -> int:
        store(cache, 2, 3)
        return 0 if tell(cache) == [(0, 0), (1, 1), (2, 2)] else 1

    assert exit_status(fork(child)) == 0
    assert tell(cache) == [(0, 0), (1, 1), (2, 2)]
