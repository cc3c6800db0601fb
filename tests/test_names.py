from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batche import _names

PROGRAM = """
import multiprocessing, os, sys
from batche._names import module_name, qualified_name

class Thing:
    class Part: pass

    def method(self): pass

WHEN_IMPORTED = qualified_name(Thing)

def names():
    both = {module_name("__main__"), module_name("__mp_main__")}
    return [WHEN_IMPORTED, qualified_name(Thing), qualified_name(Thing.Part), qualified_name(Thing.method), *both]

def send(queue):
    queue.put(names())

if __name__ == "__main__":
    os.chdir("/")
    print(names())
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=send, args=(queue,))
        process.start()
        print(queue.get())
        process.join()
"""

METHODS = ["fork", "spawn", "forkserver"]


def _printed(*arguments: object, folder: Path) -> list[str]:
    command = [sys.executable, *map(str, arguments)]
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _names_in(program: str) -> str:
    qualified = ["Thing", "Thing", "Thing.Part", "Thing.method"]
    return str([*(f"{program}:{name}" for name in qualified), program])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "package"
    package.mkdir()
    for file in (tmp_path / "script.py", package / "__init__.py", package / "module.py"):
        file.write_text(PROGRAM)
    (package / "__main__.py").write_text("from batche._names import program_name\nprint(program_name())\n")
    return tmp_path


def test_names_of_imported_modules_are_theirs() -> None:
    assert _names.module_name("collections.abc") == "collections.abc"
    assert _names.qualified_name(Path) == f"{Path.__module__}:Path"
    assert _names.qualified_name(_printed) == f"{__name__}:_printed"


def test_a_script_is_its_absolute_file_in_every_process(folder: Path) -> None:
    printed = _printed("script.py", *METHODS, folder=folder)
    assert printed == [_names_in(os.path.realpath(folder / "script.py"))] * 4


def test_a_symlink_is_the_file_it_leads_to(folder: Path) -> None:
    (folder / "link.py").symlink_to("script.py")
    printed = _printed("link.py", "spawn", folder=folder)
    assert printed == [_names_in(os.path.realpath(folder / "script.py"))] * 2


def test_a_module_run_by_name_is_that_name_in_every_process(folder: Path) -> None:
    assert _printed("-m", "package.module", *METHODS, folder=folder) == [_names_in("package.module")] * 4


def test_a_package_run_by_name_is_its_main_module(folder: Path) -> None:
    assert _printed("-m", "package", folder=folder) == ["package.__main__"]


def test_a_folder_that_is_run_is_its_main_file(folder: Path) -> None:
    assert _printed("package", folder=folder) == [os.path.realpath(folder / "package" / "__main__.py")]


def test_a_command_has_no_name_but_main(folder: Path) -> None:
    command = "from batche._names import program_name; print(program_name())"
    assert _printed("-c", command, folder=folder) == ["__main__"]


LOKY = """
import loky
from batche._names import adopt_program, program_name, qualified_name

class Thing: pass

def before_and_after(program):
    before = qualified_name(Thing)
    adopt_program(program)
    return before != qualified_name(Thing), qualified_name(Thing)

if __name__ == "__main__":
    with loky.ProcessPoolExecutor(1) as pool:
        print(pool.submit(before_and_after, program_name()).result() == (True, qualified_name(Thing)))
"""


def test_a_worker_without_the_main_module_can_be_told_the_program(tmp_path: Path) -> None:
    pytest.importorskip("loky")
    (tmp_path / "script.py").write_text(LOKY)
    assert _printed("script.py", folder=tmp_path) == ["True"]


@pytest.mark.parametrize(
    ("qualname", "path"),
    [
        ("f", "f"),
        ("__f", "__f"),
        ("C.f", "C.f"),
        ("C._f", "C._f"),
        ("C.__f", "C._C__f"),
        ("C.__f__", "C.__f__"),
        ("__C.__f", "__C._C__f"),
        ("__.__f", "__.__f"),
        ("A.__B.__f", "A._A__B._B__f"),
        ("make.<locals>.__f", "make.<locals>.__f"),
        ("make.<locals>.C.__f", "make.<locals>.C._C__f"),
    ],
)
def test_private_names_are_mangled_as_python_does_it(qualname: str, path: str) -> None:
    assert _names.attribute_path(qualname) == path
