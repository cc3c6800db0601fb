"""Who shares the runtime place: all descendants by multiprocessing, and no program that was started otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no runtime place on Windows")

PROGRAM = "import sys; from tests.processes.programs.family import main; main(*sys.argv[1:])"


def run(*arguments: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    environment.pop("BATCHE_STORE", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("used_before", ["used-before", "not-used-before"])
@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver", "os.fork", "pool", "executor", "loky"])
def test_children_share_the_cache_of_the_process_that_started_them(way: str, used_before: str) -> None:
    first, hits = ("parent", 3) if used_before == "used-before" else ("child", 2)
    assert run(way, used_before) == [
        f"{first} computes 1",
        "child computes 2",
        f"parent: 10 20, 2 misses, {hits} hits",
    ]


def test_a_program_started_otherwise_has_a_cache_of_its_own() -> None:
    assert run("subprocess", "used-before") == [
        "parent computes 1",
        "child computes 1",
        "child computes 2",
        "parent: 10 20, 2 misses, 2 hits",
        "parent computes 2",
        "parent: 10 20, 2 misses, 1 hits",
    ]


def test_workers_of_pytest_xdist_have_caches_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import os, pathlib, pytest\n"
        "from tests.processes.programs.family import triple\n"
        "@pytest.mark.parametrize('number', range(2))\n"
        "def test_own(number, worker_id):\n"
        "    here = pathlib.Path(os.environ['TEST_DIRECTORY'])\n"
        "    assert triple([5]) == [15]\n"
        "    assert triple.cache_info().misses == 1\n"
        "    (here / worker_id).touch()\n"
        "    while len(list(here.glob('gw*'))) < 2: pass\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "TEST_DIRECTORY": str(tmp_path),
        "PYTEST_ADDOPTS": "",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n2",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
