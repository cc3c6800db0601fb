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
NEEDS = {"diskcache": "diskcache", "redis": "redis", "redis+hiredis": "hiredis"}
QUESTIONS = {
    "warm hits, lists",
    "warm hits, arrays",
    "single-item hits",
    "single-item misses",
    "misses, lists",
    "misses, arrays",
    "evicting inserts, lists",
    "evicting inserts, arrays",
}
SIZES = {"entries": 60, "batch": 20, "rounds": 2}
ROUNDS = {"warm hits": 2, "single-item hits": 2, "single-item misses": 2, "misses": 3, "evicting inserts": 3}


def here(peer: str) -> bool:
    has_server = "redis" not in peer or shutil.which("redis-server") is not None
    return has_server and (peer not in NEEDS or find_spec(NEEDS[peer]) is not None)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    sizes = [part for name, number in SIZES.items() for part in (f"--{name}", str(number))]
    command = [sys.executable, "-m", "benchmarks", "--quick", *sizes, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=110)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run with all peers but the one that has to be installed."""
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    done = run("--json", str(path), "--peers", "batche", *NEEDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    for peer in NEEDS:
        assert (f"skipped: {peer}," in done.stdout) is not here(peer)
    return path


@pytest.fixture(scope="module")
def results(written: Path) -> dict[str, Any]:
    return dict(json.loads(written.read_text(encoding="utf-8")))


def test_every_peer_that_is_here_gave_right_results_to_every_question(results: dict[str, Any]) -> None:
    peers = {"batche", *filter(here, NEEDS)}
    assert {question["name"] for question in results["questions"]} == QUESTIONS
    for question in results["questions"]:
        assert {name: peer["right"] for name, peer in question["peers"].items()} == dict.fromkeys(peers, True)
    assert set(results["absent"]) == set(NEEDS) - peers


def test_the_file_has_the_fields_that_the_readme_lists(results: dict[str, Any]) -> None:
    assert set(results) == {"format", "date", "machine", "python", "sizes", "kinds", "absent", "questions"}
    assert set(results["machine"]) == {"kind", "processor", "processors", "memory_gib", "system", "load"}
    assert results["sizes"] == SIZES
    spread = {"median", "lower", "upper", "least"}
    for question in results["questions"]:
        for name, peer in question["peers"].items():
            assert set(peer) == {"version", "right", "entries", "ns_per_item", "ratio_of_batche", "rounds"}
            assert len(peer["rounds"]) == ROUNDS[question["name"].partition(",")[0]]
            assert set(peer["ns_per_item"]) == set(peer["ratio_of_batche"]) == spread
            assert 0 < peer["ns_per_item"]["least"] <= peer["ns_per_item"]["median"]
            assert name != "batche" or peer["ratio_of_batche"]["median"] == 1
        for target in question["targets"]:
            assert set(target) == {"peer", "limit", "aim", "ratio", "verdict"}
            assert (target["ratio"] <= target["limit"]) is target["verdict"].startswith("met")


def test_each_question_leaves_as_many_entries_as_it_says(results: dict[str, Any]) -> None:
    entries = {question["name"]: question["peers"]["batche"]["entries"] for question in results["questions"]}
    assert entries["warm hits, lists"] == entries["evicting inserts, lists"] == SIZES["entries"]
    assert entries["misses, lists"] == SIZES["entries"] + 1
    assert entries["single-item misses"] == SIZES["entries"] + 200 * SIZES["rounds"]


def test_the_plot_has_a_bar_for_each_peer_of_each_question(written: Path, results: dict[str, Any]) -> None:
    root = ET.fromstring(written.with_suffix(".svg").read_text(encoding="utf-8"))
    bars = [bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.get("height") != "100%"]
    assert len(bars) == sum(len(question["peers"]) for question in results["questions"])
    assert all(float(bar.get("width", "nan")) >= 0 for bar in bars)


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
