"""The examples run, as programs of their own, and do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
PRINTED = {"pool.py": "totals: [40, 40, 40, 40]\n48 words asked for, 12 computed, 36 shared\n"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_prints_what_it_shows(example: Path) -> None:
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout == PRINTED[example.name]
