"""Exact LRU against an ordered dict: long random runs, and runs that Hypothesis shrinks."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batche.stores.lmdb import LmdbStore
from batche.stores.lmdb.upkeep import Limits
from tests.stores._driving import (
    NAMESPACE,
    OTHER,
    Model,
    contents,
    keys,
    new_place,
    random_steps,
    recount,
    take_model_step,
    take_step,
    use,
)

STEPS = int(os.environ.get("BATCHE_LRU_STEPS", "5000"))
"""Steps of each long run; there are four of them."""


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [1, 2, 7, 100])
def test_a_long_run_never_differs_from_an_ordered_dict(tmp_path: Path, maxsize: int) -> None:
    store, model = LmdbStore(tmp_path / "s", maxsize=maxsize), Model(maxsize)
    universe = range(3 * maxsize + 10)
    for kind, batch in random_steps(Random(maxsize), maxsize, STEPS):
        assert take_step(store, kind, batch) == take_model_step(model, kind, batch)
        assert contents(store, universe) == set(model.held)
        assert store.stats(NAMESPACE).evictions == model.evicted
    recount(store)


def test_a_store_of_no_entries_keeps_none(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=0)
    for _ in range(3):
        assert use(store, [1, 2, 2]) == [1, 2]
    assert contents(store, [1, 2]) == set()
    assert store.stats(NAMESPACE).evictions == 0


@pytest.mark.parametrize("maxsize", [1, 7, 1500])
def test_of_a_batch_larger_than_the_store_the_last_remain(tmp_path: Path, maxsize: int) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=maxsize)
    use(store, range(5))
    use(store, range(10, 10 + 2 * maxsize + 3))
    assert contents(store, range(3 * maxsize + 20)) == set(range(13 + maxsize, 13 + 2 * maxsize))
    recount(store)


NUMBERS = st.lists(st.integers(0, 14), max_size=12)


class Lru(RuleBasedStateMachine):
    """Two openers of one store, each with victims of its own in mind, against one ordered dict."""

    @initialize(maxsize=st.integers(0, 8))
    def open(self, maxsize: int) -> None:
        self.path = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.hands = [LmdbStore(self.path / "s", maxsize=maxsize), LmdbStore(self.path / "s")]
        self.model = Model(maxsize)
        use(self.hands[0], [0])
        self.model.use([0])

    def teardown(self) -> None:
        if hasattr(self, "path"):
            shutil.rmtree(self.path)

    @rule(numbers=NUMBERS, hand=st.integers(0, 1))
    def call(self, numbers: list[int], hand: int) -> None:
        assert use(self.hands[hand], numbers) == self.model.use(numbers)

    @rule(numbers=NUMBERS, hand=st.integers(0, 1))
    def look_without_use(self, numbers: list[int], hand: int) -> None:
        assert contents(self.hands[hand], numbers) == set(numbers) & set(self.model.held)

    @precondition(lambda self: self.model.held)
    @rule(hand=st.integers(0, 1), data=st.data())
    def read_again(self, hand: int, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.model.held)), min_size=1, max_size=5))
        self.hands[hand].read(keys(numbers))
        for number in numbers:
            self.model.held.move_to_end(number)

    @rule(numbers=NUMBERS, hand=st.integers(0, 1))
    def invalidate(self, numbers: list[int], hand: int) -> None:
        assert take_step(self.hands[hand], "delete", numbers) == self.model.delete(numbers)

    @rule(hand=st.integers(0, 1))
    def clear(self, hand: int) -> None:
        self.hands[hand].clear(NAMESPACE)
        self.model.clear()

    @rule(maxsize=st.integers(0, 8))
    def limit(self, maxsize: int) -> None:
        take_step(self.hands[0], "relimit", [maxsize])
        self.model.maxsize = maxsize

    @invariant()
    def same(self) -> None:
        if hasattr(self, "model"):
            assert contents(self.hands[0], range(15)) == set(self.model.held)
            assert sum(recount(self.hands[0]).values()) == len(self.model.held)


TestLru = Lru.TestCase


class TwoFunctions(RuleBasedStateMachine):
    """Two functions with limits of their own in one environment, against two ordered dicts."""

    @initialize(sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)))
    def open(self, sizes: tuple[int, int]) -> None:
        self.path = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.stores = [LmdbStore.of_function(new_place(self.path), "private", Limits(size)) for size in sizes]
        self.models = [Model(size) for size in sizes]

    def teardown(self) -> None:
        if hasattr(self, "path"):
            shutil.rmtree(self.path)

    @rule(numbers=NUMBERS, function=st.integers(0, 1))
    def call(self, numbers: list[int], function: int) -> None:
        namespace = (NAMESPACE, OTHER)[function]
        missed = use(self.stores[function], numbers, namespace=namespace)
        assert missed == self.models[function].use(numbers)

    @rule(function=st.integers(0, 1))
    def clear(self, function: int) -> None:
        self.stores[function].clear((NAMESPACE, OTHER)[function])
        self.models[function].clear()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "models"):
            return
        for store, model, namespace in zip(self.stores, self.models, (NAMESPACE, OTHER), strict=True):
            assert contents(store, range(15), namespace) == set(model.held)
        counted = recount(self.stores[0])
        assert [counted[NAMESPACE], counted[OTHER]] == [len(model.held) for model in self.models]


TestTwoFunctions = TwoFunctions.TestCase
