"""The code of these pages runs as it stands."""

from __future__ import annotations

import linecache
import re
import sys
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["caches.md", "testing.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(page.replace(".", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = "\n".join(blocks)
    linecache.cache[page] = (len(source), None, source.splitlines(True), page)
    exec(compile(source, page, "exec"), vars(module))
