"""Real text that every machine has: the source and the docstrings of the standard library."""

from __future__ import annotations

import ast
import random
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

SHORTEST = 120
LONGEST = 4_000
"""In characters: shorter texts say too little to be compared, and a few long ones would take most of the time."""

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_SEED = 1997
_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Text(NamedTuple):
    """The source or the docstring of a function or a class, and the lines of the definition it comes from."""

    body: str
    path: str
    name: str
    first: int
    last: int

    def overlaps(self, other: Text) -> bool:
        """Whether both are parts of the same lines, as a class and its method, or a function and its docstring."""
        return self.path == other.path and self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return f"{self.path}:{self.first} {self.name}"


def gather(count: int, root: Path | None = None) -> list[Text]:
    """At most ``count`` distinct texts below ``root`` (the standard library), the same at every run."""
    distinct: dict[str, Text] = {}
    root = root or Path(sysconfig.get_path("stdlib"))
    for path in _files(root):
        for text in _texts(path, root):
            distinct.setdefault(text.body, text)
        if len(distinct) >= count:
            break
    return list(distinct.values())[:count]


def _files(root: Path) -> list[Path]:
    found = sorted(path for path in root.rglob("*.py") if _LEFT_OUT.isdisjoint(path.relative_to(root).parts))
    random.Random(_SEED).shuffle(found)
    return found


def _texts(path: Path, root: Path) -> Iterator[Text]:
    source = _read(path)
    lines = source.splitlines()
    name = path.relative_to(root).as_posix()
    for definition in _definitions(source):
        first, last = definition.lineno, definition.end_lineno or definition.lineno
        for body in ("\n".join(lines[first - 1 : last]), ast.get_docstring(definition) or ""):
            if SHORTEST <= len(body) <= LONGEST:
                yield Text(body, name, definition.name, first, last)


def _read(path: Path) -> str:
    try:
        with tokenize.open(path) as file:  # in the encoding that the file declares
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return ""


def _definitions(source: str) -> Iterator[_Definition]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parsed source, which is not ours
        try:
            tree = ast.parse(source)
        except SyntaxError:
            return
    for node in ast.walk(tree):
        if isinstance(node, _Definition):
            yield node
