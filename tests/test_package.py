"""The distribution says what it is, needs what it says, and each module is of a size that fits in a head."""

from __future__ import annotations

import ast
from importlib import metadata, resources
from pathlib import Path

import pytest

import batche

SOURCES = sorted(Path(batche.__file__).parent.rglob("*.py"))
LINES = 400
FUNCTION_LINES = 40


def test_needs_two_packages() -> None:
    needed = [line for line in metadata.requires("batche") or [] if "extra ==" not in line]
    assert sorted(needed) == ["lmdb>=3.0.0", "msgpack>=1.2"]


def test_console_script() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="batche")
    assert script.value == "batche.cli:main"


def test_is_typed() -> None:
    assert resources.files("batche").joinpath("py.typed").is_file()


def test_all_public_names_exist_and_are_documented() -> None:
    undocumented = [name for name in batche.__all__ if not getattr(batche, name).__doc__]
    assert undocumented == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_modules_and_functions_are_small(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LINES
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if _code_lines(f) > FUNCTION_LINES] == []


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement on: a signature and a docstring may be as long as they need."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    return (body[-1].end_lineno or 0) - body[0].lineno + 1
