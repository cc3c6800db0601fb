"""The code of every page runs as it stands, and prints what the page shows."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batche import cache_batch_variable

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PARAMETERS = inspect.signature(cache_batch_variable).parameters

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#]*)(?:#([^)]*))?\)")
END_OF_BLOCK = "\x1e"
STAND_IN = """
import numpy as np

class model:
    def encode(texts): return np.ones((len(texts), 3))

class client:
    async def translate(texts, language): return texts
    def rank(path, queries, texts): return [1.0 for _ in texts]
"""
"""What the README leaves to its reader to have."""


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def program(page: Path) -> str:
    """The blocks of ``page`` as one program, each at its own lines, with a mark behind each."""
    text = page.read_text()
    lines = [""] * text.count("\n")
    if named(page) == "README.md":
        lines[0] = "from stand_in import *"
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start("code"))
        code = block["code"].splitlines()
        lines[first : first + len(code) + 1] = [*code, f"print({END_OF_BLOCK!r}, end='')"]
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=named)
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    (tmp_path / "page.py").write_text(program(page))
    command = [sys.executable, "-W", "error", "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    *printed, after = done.stdout.split(END_OF_BLOCK)
    assert printed == [block["output"] or "" for block in BLOCK.finditer(page.read_text())]
    assert after == ""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, section in LINK.findall(page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        if section:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert section in [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_parameter_has_a_page_with_an_example_and_its_output(parameter: str) -> None:
    page = (REFERENCE / f"{parameter}.md").read_text()
    assert page.startswith(f"# `{parameter}`\n")
    assert any(block["output"] for block in BLOCK.finditer(page))


@pytest.mark.parametrize("parameter", [name for name in PARAMETERS if name != "batch_variable_name"])
def test_the_table_of_parameters_tells_the_default_of_each(parameter: str) -> None:
    default = repr(PARAMETERS[parameter].default).replace("'", '"')
    assert f"| [`{parameter}`]({parameter}.md) | `{default}` |" in (REFERENCE / "README.md").read_text()


def test_the_table_lists_every_page_of_the_reference() -> None:
    listed = {target for target, _ in LINK.findall((REFERENCE / "README.md").read_text())}
    assert {page.name for page in REFERENCE.glob("*.md")} - {"README.md"} <= listed
