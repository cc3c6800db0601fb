from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NEEDS = {"diskcache": "diskcache", "diskcache+transact": "diskcache", "redis": "redis", "redis+hiredis": "hiredis"}
SIZES = {"entries": 60, "batch": 20, "rounds": 2}
ENTRIES = {
    "warm_hits": {"warm hits, lists": 60, "warm hits, arrays": 60},
    "single_item": {"single-item hits": 60, "single-item misses": 60 + 200 * 2},
    "misses": {"misses, lists": 60 + 1, "misses, arrays": 60 + 1},
    "evicting_inserts": {"evicting inserts, lists": 60, "evicting inserts, arrays": 60},
}
"""The modules, their questions, and how many entries each leaves."""


def here(peer: str) -> bool:
    has_server = "redis" not in peer or shutil.which("redis-server") is not None
    return has_server and (peer not in NEEDS or find_spec(NEEDS[peer]) is not None)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    sizes = [part for name, number in SIZES.items() for part in (f"--{name}", str(number))]
    command = [sys.executable, "-m", "benchmarks", "--quick", *sizes, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=110)


@pytest.mark.parametrize("module", ENTRIES)
def test_every_peer_that_is_here_gives_right_results(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    done = run("--questions", module, "--peers", "batche", *NEEDS, "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text(encoding="utf-8"))
    check_fields(results)
    peers = {"batche", *filter(here, NEEDS)}
    for question in results["questions"]:
        assert {name: peer["right"] for name, peer in question["peers"].items()} == dict.fromkeys(peers, True)
    assert {question["name"]: question["peers"]["batche"]["entries"] for question in results["questions"]} == ENTRIES[
        module
    ]
    assert set(results["absent"]) == set(NEEDS) - peers
    assert all(f"skipped: {name}, {reason}\n" in done.stdout for name, reason in results["absent"].items())
    check_plot(path.with_suffix(".svg"), bars=len(peers) * len(results["questions"]))
    assert not list(temporary.glob("diskcache-*"))


def check_fields(results: dict[str, Any]) -> None:
    """The fields are those that the README lists."""
    assert set(results) == {"format", "date", "machine", "python", "sizes", "kinds", "absent", "questions"}
    assert set(results["machine"]) == {"kind", "processor", "processors", "memory_gib", "system", "load"}
    assert results["sizes"] == SIZES
    for question in results["questions"]:
        for name, peer in question["peers"].items():
            assert set(peer) == {"version", "right", "entries", "ns_per_item", "ratio_of_batche", "rounds"}
            assert len(peer["rounds"]) == SIZES["rounds"]
            assert set(peer["ns_per_item"]) == set(peer["ratio_of_batche"]) == {"median", "lower", "upper", "least"}
            assert 0 < peer["ns_per_item"]["least"] <= peer["ns_per_item"]["median"]
            assert name != "batche" or peer["ratio_of_batche"]["median"] == 1
        for target in question["targets"]:
            assert set(target) == {"peer", "limit", "aim", "ratio", "verdict"}
            assert (target["ratio"] <= target["limit"]) is target["verdict"].startswith("met")


def check_plot(path: Path, *, bars: int) -> None:
    shapes = ET.fromstring(path.read_text(encoding="utf-8")).iter("{http://www.w3.org/2000/svg}rect")
    widths = [float(shape.attrib["width"]) for shape in shapes if shape.get("height") != "100%"]
    assert len(widths) == bars
    assert min(widths) >= 0


def test_an_old_version_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    package = tmp_path / "old" / "batche"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(OLD, encoding="utf-8")
    path = tmp_path / "results.json"
    done = run(
        "--json",
        str(path),
        "--old",
        str(package.parent),
        "--peers",
        "batche",
        "batche 0.1.1",
        "--questions",
        "warm_hits",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("WRONG RESULTS") == 2
    for question in json.loads(path.read_text(encoding="utf-8"))["questions"]:
        assert {name: peer["right"] for name, peer in question["peers"].items()} == {
            "batche": True,
            "batche 0.1.1": False,
        }


OLD = """
def cache_batch_variable(batch_variable_name, maxsize):
    return lambda function: lambda texts: [None] * len(texts)
"""


def test_what_a_peer_says_when_it_fails_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "batche.py").write_text("raise ImportError('not this one')", encoding="utf-8")
    done = run("--old", str(tmp_path), "--peers", "batche 0.1.1", "--questions", "single_item")
    assert done.returncode == 1
    assert "not this one" in done.stderr
    assert "batche 0.1.1: its process ended" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the bounds are promised for Linux")
def test_bounds_in_time_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "bounds.json"
    command = [sys.executable, "-m", "benchmarks.bounds", "--rounds", "2", "--json", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=110)
    bounds = json.loads(path.read_text(encoding="utf-8"))["bounds"]
    kept = [max(bound["ms"]) <= bound["at_most_ms"] for bound in bounds]
    assert [line.endswith(": kept") for line in done.stdout.splitlines()] == kept
    assert done.returncode == (0 if all(kept) else 1), done.stderr
    assert all(0 < max(bound["ms"]) <= 8 * bound["at_most_ms"] for bound in bounds)
    assert done.stderr == ""
