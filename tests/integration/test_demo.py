from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from batche import _demo, _demo_minhash, _demo_texts
from batche._demo_progress import Progress
from batche._demo_texts import Text


@pytest.fixture(scope="module")
def report() -> _demo.Report:
    return _demo.run(3, _demo_texts.gather(60), Progress(io.StringIO()))


def test_all_modes_agree(report: _demo.Report) -> None:
    assert report.agree
    assert [len(outcome.digests) for outcome in report.outcomes] == [3, 3, 3]


def test_each_mode_computes_exactly_what_its_cache_leaves(report: _demo.Report) -> None:
    computed = {outcome.mode: outcome.computed for outcome in report.outcomes}
    assert computed == {
        "no cache": report.texts,
        "functools.cache": report.texts // 2,  # each text of a worker is in two of its batches
        "batche": report.distinct_texts,
    }
    assert report.distinct_texts < report.texts // 2


def test_cache_info_is_of_all_workers(report: _demo.Report) -> None:
    info = report.cache_info
    assert (info.misses, info.currsize) == (report.distinct_texts, report.distinct_texts)
    assert info.hits + info.misses + info.waits == report.texts


def test_the_cache_is_left_empty(report: _demo.Report) -> None:
    assert not any(_demo.signatures.cache_contains([text.body for text in _demo_texts.gather(60)]))
    assert report.cache_info.currsize > 0


def test_batches_overlap_and_hold_each_text_twice() -> None:
    texts = [str(number) for number in range(200)]
    batches = list(_demo.batches(texts, seed=1))
    positions = [text for batch in batches for text in batch]
    assert len(set(positions)) == 160
    assert all(positions.count(text) == 2 for text in set(positions))
    assert max(map(len, batches)) == _demo.BATCH
    assert batches != list(_demo.batches(texts, seed=2))


def test_results_that_differ_are_an_exit_code_of_1(
    report: _demo.Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = _demo.Outcome("batche", 1, 1.0, ("another digest",) * 3)
    differing = _demo.Report(3, 1, 1, [*report.outcomes[:2], wrong], report.cache_info, [])
    monkeypatch.setattr(_demo, "run", lambda *_: differing)
    assert _demo.main(quick=True) == 1
    assert "NO: the results differ" in capsys.readouterr().out


def test_a_worker_that_dies_ends_the_demo_with_an_error() -> None:
    with pytest.raises(_demo.DemoError, match="worker 0 ended"):
        _demo._run_workers("no such mode", 1, ["text"], lambda: None)


def test_quick_demo_as_a_command_with_json() -> None:
    command = [sys.executable, "-m", "batche", "demo", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    result = json.loads(done.stdout)
    assert result["agree"] is True
    assert result["workers"] == 4
    assert result["modes"]["batche"]["computed"] == result["distinct_texts"] < result["modes"]["no cache"]["computed"]
    assert "\r" not in done.stderr
    assert done.stderr.count("\n") == 3


def test_table_is_aligned_and_has_every_number(report: _demo.Report) -> None:
    lines = _demo.table(report).splitlines()
    heading, *rows = lines[2:6]
    assert {len(line) for line in (heading, *rows)} == {len(heading)}
    assert str(report.distinct_texts) in rows[2].split()
    assert "same results in all three: yes" in lines
    assert "CacheInfo(hits=" in _demo.table(report)


def test_progress_rewrites_its_line_on_a_terminal() -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]  # the one thing that makes it a terminal
    with Progress(terminal).of("part", 2) as advance:
        advance()
        advance()
    assert terminal.getvalue().startswith("\rpart")
    assert terminal.getvalue().count("\n") == 1


def test_gather_reads_source_and_docstrings_once(tmp_path: Path) -> None:
    docstring = "A sentence that is long enough to be compared with others, and that says so." * 2
    function = f'def one():\n    """{docstring}"""\n'
    (tmp_path / "a.py").write_text(function, encoding="utf-8")
    (tmp_path / "b.py").write_text(function + "x = 1\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def (", encoding="utf-8")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    bodies = {text.body for text in _demo_texts.gather(10, tmp_path)}
    assert bodies == {function.rstrip("\n"), docstring}


def test_gather_is_the_same_every_time() -> None:
    assert _demo_texts.gather(50) == _demo_texts.gather(50)
    assert len({text.body for text in _demo_texts.gather(50)}) == 50


def test_the_estimate_is_within_four_standard_errors() -> None:
    words = [f"word{number}" for number in range(300)]
    one, other = " ".join(words[:250]), " ".join(words[50:])
    difference = _demo_minhash.estimate(_demo_minhash.signature(one), _demo_minhash.signature(other))
    assert abs(difference - _demo_minhash.jaccard(one, other)) < 4 * 0.5 / _demo_minhash.HASHES**0.5


def test_near_duplicates_are_found_and_parts_of_each_other_left_out() -> None:
    common = " ".join(f"word{number}" for number in range(200))
    texts = [
        Text(common, "a.py", "method", 2, 9),
        Text(common + " end", "a.py", "Class", 1, 9),
        Text(common + " another end", "b.py", "function", 1, 9),
        Text(" ".join(f"other{number}" for number in range(200)), "c.py", "function", 1, 9),
    ]
    pairs = _demo.near_duplicates(texts, _demo.compute([text.body for text in texts]))
    assert {(pair.one, pair.other) for pair in pairs} == {
        ("a.py:2 method", "b.py:1 function"),
        ("a.py:1 Class", "b.py:1 function"),
    }
    assert all(pair.exact > 0.95 for pair in pairs)
