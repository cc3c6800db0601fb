from __future__ import annotations

import subprocess
import sys

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
