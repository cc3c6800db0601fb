"""Pools of processes: what is given to their `map`, and what their workers share with the program."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import batche
from batche import cache_batch_variable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="each process keeps its own cache on Windows")

METHODS = ["fork", "spawn", "forkserver"]


@cache_batch_variable("numbers")
def square(numbers: list[int]) -> list[int]:
    return [number * number for number in numbers]


@cache_batch_variable("numbers")
def computed_by(numbers: list[int]) -> list[int]:
    return [os.getpid()] * len(numbers)


calls = itertools.count()


def nth_call(numbers: list[int]) -> list[int]:
    return [next(calls)] * len(numbers)


def call_pickled(pickled: bytes) -> Any:
    """As a task does: the copy of the function is gone with it."""
    return cloudpickle.loads(pickled)([1, 2, 3])


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __batche_key__(self) -> int:
        return self.factor

    @cache_batch_variable("numbers")
    def scale(self, numbers: list[int]) -> list[int]:
        return [self.factor * number for number in numbers]


@pytest.fixture(autouse=True)
def _empty() -> None:
    for function in (square, computed_by, Model.scale):
        function.cache_clear()


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


def test_a_pool_maps_the_cached_function_over_parts(context: Any) -> None:
    parts = [list(range(start, start + 20)) for start in range(0, 50, 5)]
    with context.Pool(2) as pool:
        assert pool.map(square, parts) == [[number * number for number in part] for part in parts]
        pool.close()
        pool.join()
    info = square.cache_info()
    assert (info.misses, info.currsize) == (65, 65)
    assert info.hits + info.misses + info.waits == 200
    assert square.cache_contains(list(range(66))) == [True] * 65 + [False]


def test_what_the_program_computed_its_workers_have_and_the_other_way_round(context: Any) -> None:
    computed_by([1, 2])
    with context.Pool(1) as pool:
        (theirs,) = pool.map(computed_by, [[1, 2, 3]])
        pool.close()
        pool.join()
    assert theirs[:2] == [os.getpid()] * 2
    assert theirs[2] != os.getpid()
    assert computed_by([3]) == theirs[2:]


def test_a_bound_method_goes_to_a_pool_too(context: Any) -> None:
    model = Model(3)
    model.scale([1])
    with context.Pool(1) as pool:
        assert pool.map(model.scale, [[1, 2]]) == [[3, 6]]
        pool.close()
        pool.join()
    assert model.scale.cache_contains([1, 2, 3]) == [True, True, False]
    assert (Model.scale.cache_info().hits, Model.scale.cache_info().misses) == (1, 2)


def test_an_executor_of_processes_shares_the_cache(context: Any) -> None:
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(square, [[1, 2], [2, 3], [3, 1]])) == [[1, 4], [4, 9], [9, 1]]
    assert square.cache_info().misses == 3


def test_what_has_no_name_is_computed_once_though_each_task_has_a_copy_of_its_own(context: Any) -> None:
    private = cache_batch_variable("numbers")(functools.partial(nth_call))
    with context.Pool(1) as pool:
        first, *others = pool.map(private, [[1, 2, 3]] * 4, chunksize=1)
        pool.close()
        pool.join()
    assert others == [first] * 3


def test_what_goes_by_value_is_computed_once_though_each_task_has_a_copy_of_its_own(context: Any) -> None:
    pickled = cloudpickle.dumps(private := cache_batch_variable("numbers")(lambda numbers: [os.urandom(8)] * 3))
    with context.Pool(1) as pool:
        first, *others = pool.map(call_pickled, [pickled] * 4, chunksize=1)
        pool.close()
        pool.join()
    assert others == [first] * 3
    assert private([1, 2, 3]) == first


def use_another_private_function() -> Any:
    """A first use of one, which removes the entries of those that are gone; returns its store."""
    another = cache_batch_variable("numbers")(lambda numbers: numbers)
    another([1])
    return another.store


def test_what_workers_stored_goes_with_the_wrapper_of_the_program(context: Any) -> None:
    private = cache_batch_variable("numbers")(functools.partial(nth_call))
    namespace = private._declared.private.id
    with context.Pool(1) as pool:
        pool.map(private, [[1, 2, 3]])
        pool.close()
        pool.join()
    assert use_another_private_function().stats(namespace).currsize == 3
    del private
    assert use_another_private_function().stats(namespace).currsize == 0


def call_and_stay(private: Any, ready: Any, end: Any) -> None:
    private([1])
    ready.set()
    end.wait(60)


def test_what_a_forked_child_still_uses_goes_once_the_child_is_gone() -> None:
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    private = cache_batch_variable("numbers")(functools.partial(nth_call))
    namespace = private._declared.private.id
    private([1, 2, 3])
    child = context.Process(target=call_and_stay, args=(private, ready, end))
    child.start()
    try:
        assert ready.wait(60)
        del private
        assert use_another_private_function().stats(namespace).currsize == 3
    finally:
        end.set()
        child.join()
    assert use_another_private_function().stats(namespace).currsize == 0


def run(program: Path, *arguments: str) -> str:
    """What a program of its own prints."""
    source = str(Path(batche.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


IN_MAIN = """
import os, sys
from batche import cache_batch_variable

@cache_batch_variable("numbers")
def computed_by(numbers):
    return [os.getpid()] * len(numbers)

def result(first, theirs):
    shared = theirs[:1] == first and computed_by([2]) == theirs[1:] and theirs[1] != os.getpid()
    print(shared, computed_by.cache_info().misses, computed_by.cache_info().hits)
"""
POOL = (
    IN_MAIN
    + """
if __name__ == "__main__":
    import multiprocessing
    first = computed_by([1])
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        theirs = pool.map(computed_by, [[1, 2]])[0]
        pool.close()
        pool.join()
    result(first, theirs)
"""
)
LOKY = (
    IN_MAIN
    + """
if __name__ == "__main__":
    from loky import get_reusable_executor
    first = computed_by([1])
    executor = get_reusable_executor(max_workers=1)
    theirs = executor.submit(computed_by, [1, 2]).result()
    executor.shutdown(wait=True)
    result(first, theirs)
"""
)


@pytest.mark.parametrize("method", METHODS)
def test_a_function_of_the_program_itself_is_shared_with_its_pool(tmp_path: Path, method: str) -> None:
    (tmp_path / "program.py").write_text(POOL)
    assert run(tmp_path / "program.py", method) == "True 2 2"


def test_a_function_of_the_program_itself_is_shared_with_loky(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LOKY)
    assert run(tmp_path / "program.py") == "True 2 2"
