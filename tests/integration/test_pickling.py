"""A cached function goes where the function goes: by reference where it can be found, by value with cloudpickle."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import batche
from batche import cache_batch_variable


@cache_batch_variable("texts")
def upper(texts: list[str]) -> list[str]:
    """In capitals."""
    return [text.upper() for text in texts]


class Model:
    def __init__(self, name: str) -> None:
        self.name = name

    @cache_batch_variable("texts", ignore=("self",))
    def embed(self, texts: list[str]) -> list[str]:
        return [self.name + text for text in texts]

    @cache_batch_variable("texts", ignore=("self",))
    def __embed(self, texts: list[str]) -> list[str]:
        return [self.name + text for text in texts]

    @property
    def private(self) -> Any:
        return self.__embed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]  # equal by name, and changeable


protocols = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))


@protocols
def test_a_function_of_a_module_is_itself_again(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(upper, protocol)) is upper
    assert pickle.loads(pickle.dumps({"a": [upper]}, protocol))["a"][0] is upper


@protocols
def test_a_method_is_itself_again(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(Model.embed, protocol)) is Model.embed


@protocols
def test_a_bound_method_is_bound_to_the_instance_that_came_with_it(protocol: int) -> None:
    bound = pickle.loads(pickle.dumps(Model("m").embed, protocol))
    assert bound.__self__ == Model("m")
    assert bound.__func__ is Model.embed
    assert bound(["a"]) == ["ma"]


@protocols
def test_a_private_method_is_found_at_the_name_that_python_gives_it(protocol: int) -> None:
    bound = Model("m").private
    assert pickle.loads(pickle.dumps(bound.__func__, protocol)) is bound.__func__
    again = pickle.loads(pickle.dumps(bound, protocol))
    assert (again.__self__, again.__func__) == (Model("m"), bound.__func__)
    assert pickle.loads(cloudpickle.dumps(bound.__func__)) is bound.__func__


def test_a_partial_of_a_cached_function_pickles() -> None:
    assert pickle.loads(pickle.dumps(functools.partial(upper, ["a"])))() == ["A"]


def test_a_cached_partial_is_one_of_the_same_configuration_and_namespace() -> None:
    cached = cache_batch_variable("texts", maxsize=7)(functools.partial(plain, suffix="!"))
    assert cached(["a"]) == ["a!"]
    back = pickle.loads(pickle.dumps(cached))
    assert back.cache_contains(["a", "b"]) == [True, False]
    assert back(["a", "b"]) == ["a!", "b!"]
    assert back.cache_parameters()["maxsize"] == 7


def plain(texts: list[str], suffix: str) -> list[str]:
    return [text + suffix for text in texts]


def test_by_value_a_local_function_keeps_its_cache_and_configuration() -> None:
    suffix = "?"

    @cache_batch_variable("texts", maxsize=5, version="1")
    def local(texts: list[str]) -> list[str]:
        return [text + suffix for text in texts]

    local(["a"])
    back = cloudpickle.loads(cloudpickle.dumps(local))
    assert back.cache_contains(["a", "b"]) == [True, False]
    assert back(["b", "a"]) == ["b?", "a?"]
    assert local.cache_contains(["b"]) == [True]
    assert (back.cache_info().maxsize, back.__name__, back.__doc__) == (5, "local", local.__doc__)


def test_what_pickle_cannot_find_it_refuses_as_it_does_the_function() -> None:
    cached = cache_batch_variable("texts")(lambda texts: texts)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(cached)


def test_a_copied_structure_has_the_same_function() -> None:
    structure: dict[str, Any] = {"functions": [upper], "bound": Model("m").embed}
    copied = copy.deepcopy(structure)
    assert copied["functions"][0] is upper
    assert copied["bound"].__self__ == Model("m")


def run(program: str, *arguments: str, cwd: Path) -> str:
    """What a program of its own prints."""
    source = str(Path(batche.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, str(cwd)])}
    done = subprocess.run(
        [sys.executable, "-W", "error", program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WRITER = """
import sys, pickle, cloudpickle
from batche import cache_batch_variable

@cache_batch_variable("texts", store=sys.argv[1], name="upper", version="1", maxsize=9)
def upper(texts):
    return [text.upper() for text in texts]

assert upper(["a"]) == ["A"]
with open(sys.argv[2], "wb") as file:
    cloudpickle.dump(upper, file)
"""
READER = """
import sys, pickle
with open(sys.argv[1], "rb") as file:
    upper = pickle.load(file)
print(upper.cache_contains(["a", "b"]), upper(["a", "b"]), upper.cache_info().maxsize, upper.__qualname__)
"""


def test_by_value_it_goes_to_another_program_and_finds_its_store_there(tmp_path: Path) -> None:
    for name, program in (("writer.py", WRITER), ("reader.py", READER)):
        (tmp_path / name).write_text(program)
    run("writer.py", str(tmp_path / "store"), str(tmp_path / "upper.pickle"), cwd=tmp_path)
    assert run("reader.py", str(tmp_path / "upper.pickle"), cwd=tmp_path) == "[True, False] ['A', 'B'] 9 upper"


PRIVATE = """
import pickle
from multiprocessing import get_context
from batche import cache_batch_variable

class Model:
    @cache_batch_variable("texts", ignore=("self",))
    def __embed(self, texts):
        return [text.upper() for text in texts]

    private = __embed

def there(method):
    return method(Model(), ["a"]), method.cache_contains(Model(), ["a", "b"])

if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(Model.private)) is Model.private
    with get_context("spawn").Pool(1) as pool:
        print(there(Model.private), *pool.map(there, [Model.private]))
"""


def test_a_private_method_of_a_program_has_its_entries_in_the_processes_that_it_spawns(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PRIVATE)
    assert run("program.py", cwd=tmp_path) == "(['A'], [True, False]) (['A'], [True, False])"


LIBRARY = """
from batche import cache_batch_variable

@cache_batch_variable("texts")
def upper(texts):
    return [text.upper() for text in texts]
"""
REFERENCE = """
import pickle, subprocess, sys
import library

data = pickle.dumps(library.upper)
assert pickle.loads(data) is library.upper
subprocess.run([sys.executable, "other.py"], input=data, check=True)
print(len(data) < 100)
"""
OTHER = """
import pickle, sys

upper = pickle.loads(sys.stdin.buffer.read())
import library
print(upper is library.upper, upper(["a"]))
"""


def test_a_reference_is_small_and_finds_the_function_of_the_other_program(tmp_path: Path) -> None:
    for name, program in (("library.py", LIBRARY), ("reference.py", REFERENCE), ("other.py", OTHER)):
        (tmp_path / name).write_text(program)
    assert run("reference.py", cwd=tmp_path).split("\n") == ["True ['A']", "True"]
