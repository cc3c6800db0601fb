"""Exact LRU over several processes: the steps of one run alternate between them, each with its own victims in mind."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from batche.stores.lmdb import LmdbStore
from tests.stores._driving import (
    NAMESPACE,
    Model,
    contents,
    random_steps,
    recount,
    server,
    take_model_step,
    take_step,
    use,
)

STEPS = int(os.environ.get("BATCHE_LRU_STEPS", "1000"))
"""Steps of each run; there are four of them."""


def make_store(path: Path, maxsize: int) -> LmdbStore:
    return LmdbStore(path, maxsize=maxsize)


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [1, 2, 7, 100])
@pytest.mark.parametrize("way", ["spawn"])
def test_two_processes_never_differ_from_an_ordered_dict(tmp_path: Path, maxsize: int, way: str) -> None:
    random, model = Random(maxsize), Model(maxsize)
    path, universe = tmp_path / "s", range(3 * maxsize + 10)
    with server(make_store, path, maxsize, way=way) as one, server(make_store, path, maxsize, way=way) as two:
        for other in (one, two):
            other.do(use, [0])
        model.use([0])
        mine = LmdbStore(path)
        for kind, batch in random_steps(random, maxsize, STEPS):
            there = random.choice([one, two]).do(take_step, kind, batch)
            assert there == take_model_step(model, kind, batch)
            assert contents(mine, universe) == set(model.held)
        assert mine.stats(NAMESPACE).evictions == model.evicted
        recount(mine)


def use_all(store: LmdbStore, seed: int, steps: int, maxsize: int) -> None:
    for kind, batch in random_steps(Random(seed), maxsize, steps):
        if kind != "relimit":
            take_step(store, kind, batch)


@pytest.mark.parametrize("maxsize", [1, 30, 2000])
def test_processes_that_write_at_once_keep_the_limit_and_leak_no_slot(tmp_path: Path, maxsize: int) -> None:
    path = tmp_path / "s"
    with server(make_store, path, maxsize) as one, server(make_store, path, maxsize) as two:
        one.start(use_all, 1, 150, maxsize)
        two.start(use_all, 2, 150, maxsize)
        one.finish()
        two.finish()
        store = LmdbStore(path)
        use(store, range(maxsize))
        assert contents(store, range(maxsize)) == set(range(maxsize))
        assert sum(recount(store).values()) <= maxsize


def test_a_writer_killed_at_any_moment_leaves_a_store_that_adds_up(tmp_path: Path) -> None:
    """Killed eight times amid evicting writes; the next writers mend what it left, and no slot is lost or shared."""
    path = tmp_path / "s"
    store = LmdbStore(path)
    for round_ in range(8):
        with server(make_store, path, 50) as other:
            other.do(use_all, round_, 1 + round_, 50)
            other.start(use_all, 100 + round_, 10**6, 50)
            commits = store._opened.slots.commits
            while store._opened.slots.commits - commits < 20 + 7 * round_:
                os.sched_yield()
            other.kill()
    use(store, range(1000, 1050))
    assert contents(store, range(1000, 1050)) == set(range(1000, 1050))
    for batch in range(3):
        use(store, range(2000 + 50 * batch, 2050 + 50 * batch))
    assert contents(store, range(2100, 2150)) == set(range(2100, 2150))
    assert store.stats(NAMESPACE).currsize == 50
