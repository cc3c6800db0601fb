from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

NEVER = ["numpy", "torch", "redis", "typeguard", "filelock"]
"""What only the user may import: heavy, or optional, or, as filelock does, hooking every fork from then on."""

LATE = ["batche.cli", "batche._demo", "batche.testing"]
"""What importing and decorating does without."""


def _loaded_after(statements: str, modules: list[str]) -> list[str]:
    ask = f"\nimport sys; print(*[name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", statements + ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_brings_in_nothing_heavy() -> None:
    assert _loaded_after("import batche", NEVER + LATE) == []


def test_a_call_on_plain_data_imports_neither_numpy_nor_torch() -> None:
    call = (
        "import batche\n"
        "@batche.cache_batch_variable('items', name='test-import')\n"
        "def double(items): return [2 * item for item in items]\n"
        "assert double([1, 2]) == [2, 4]\n"
        "double.cache_clear()"
    )
    assert _loaded_after(call, NEVER) == []


@pytest.mark.parametrize("flag", ["-O", "-OO", "-Werror"])
def test_import_under_every_flag(flag: str) -> None:
    done = subprocess.run([sys.executable, flag, "-c", "import batche"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_old_import_path() -> None:
    import batche
    from batche.batche import BatcheException, cache_batch_variable

    assert BatcheException is batche.BatcheException
    assert cache_batch_variable is batche.cache_batch_variable


UNLOCKABLE = """
import logging, os, sys, asyncio
import batche  # and with it all of the standard library that is needed, as this platform has it
for name in [name for name in sys.modules if name.partition(".")[0] == "batche"]:
    del sys.modules[name]
sys.platform = "win32"
sys.modules["fcntl"] = None
del os.register_at_fork, os.geteuid, os.O_NOFOLLOW, os.O_DIRECTORY
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
import batche

def double(items): return [2 * item for item in items]
async def later(items): return double(items)
def wanted(**options): return batche.cache_batch_variable("items", **options)
"""
"""A program on a platform whose files cannot be locked, as Windows is, but for the standard library."""


def _unlockable(program: str, tmp_path: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", UNLOCKABLE + textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_where_files_cannot_be_locked_all_but_the_store_of_files_is_there(tmp_path: Path) -> None:
    shown = _unlockable(
        """
        from batche import *
        import batche.testing
        print(hasattr(batche, "LmdbStore"), "LmdbStore" in dir(batche), "LmdbStore" in globals())
        print(all(hasattr(batche, name) for name in batche.__all__), StoreError is batche.StoreError)
        try:
            from batche import LmdbStore
        except ImportError as error:
            print("LmdbStore" in str(error))
        """,
        tmp_path,
    )
    assert shown == ["False False False", "True True", "True"]


def test_where_files_cannot_be_locked_each_process_has_a_cache_and_is_told_so_once(tmp_path: Path) -> None:
    shown = _unlockable(
        """
        f, g = wanted(maxsize=2)(double), wanted()(later)
        print(f([1, 2]), f([2, 1]), f.cache_info()[:4])
        print(asyncio.run(g([1])), asyncio.run(g([1])), g.cache_info()[:4])
        cache = batche.Cache()
        cache["a"] = 1
        print(dict(cache))
        """,
        tmp_path,
    )
    told = "this platform cannot share a cache between processes; each keeps its own"
    assert shown == [
        f"WARNING double: {told}",
        "[2, 4] [4, 2] (2, 2, 2, 2)",
        f"WARNING later: {told}",
        "[2] [2] (1, 1, None, 1)",
        f"WARNING Cache 'default': {told}",
        "{'a': 1}",
    ]


def test_where_files_cannot_be_locked_a_place_that_is_asked_for_is_an_error(tmp_path: Path) -> None:
    shown = _unlockable(
        """
        def attempt(use):
            for _ in range(2):
                try:
                    use()
                except batche.StoreError as error:
                    print(error)

        for store in ("/place", "shm://place", None):
            options = {"store": store, "name": "f"}
            attempt(lambda: wanted(**options)(double)([1]))
            attempt(lambda: asyncio.run(wanted(**options)(later)([1])))
        attempt(lambda: len(batche.Cache("/place")))
        """,
        tmp_path,
        BATCHE_STORE="/place",
    )
    lacks = "a place needs POSIX file locks, which this platform lacks: give store= a mapping of this process"
    assert (
        shown == [f"{store}: {lacks}" for store in ("/place", "shm://place", "/place", "/place") for _ in range(4)][:14]
    )
