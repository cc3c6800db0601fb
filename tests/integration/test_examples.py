"""The examples run, as programs of their own, and do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
PRINTED = {
    "pool.py": "totals: [40, 40, 40, 40]\n48 words asked for, 12 computed, 36 shared\n",
    "warm.py": "2000 computed\n3000 computed\n5000 there\n",
}
BARS = {"warm.py": {"some": 2_000, "all": 5_000}}
"""The bars that an example draws, and the total that each comes to."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_prints_what_it_shows(example: Path) -> None:
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=60, check=False)
    last = {line.partition(":")[0]: line for line in done.stderr.splitlines() if line}
    bars = BARS.get(example.name, {})
    assert last.keys() == bars.keys(), done.stderr
    assert all(f" {total}/{total} " in last[bar] for bar, total in bars.items()), done.stderr
    assert done.stdout == PRINTED[example.name]
