"""Damage done to the files of a store, as an accident or somebody else would do it, and a function that has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from batche import cache_batch_variable
from batche.stores.lmdb.damage import FORMAT
from tests.processes._tools import exit_status, fork

SOMEBODY: Final = 12_345
"""A user who is not this one."""


class Doubling:
    """A cached function that notes what it computed."""

    def __init__(self, store: Any, **options: Any) -> None:
        self.computed: list[int] = []

        @cache_batch_variable("items", store=store, name="doubling", version="1", **options)
        def doubling(items: list[int]) -> list[int]:
            self.computed += items
            return [2 * item for item in items]

        self.function = doubling

    def __call__(self, *items: int) -> bool:
        """Call it; whether the answer came without computing anything."""
        before = len(self.computed)
        assert self.function(list(items)) == [2 * item for item in items]
        return len(self.computed) == before


def fill(place: Path, *items: int, **options: Any) -> Path:
    """Have another process store the results of ``items``, and end; returns the environment's directory."""
    assert exit_status(fork(lambda: int(Doubling(place, **options)(*items)))) == 0
    return environment_of(place)


def environment_of(place: Path) -> Path:
    """The one environment in ``place`` that is in use."""
    (found,) = [path for path in place.iterdir() if path.is_dir() and "." not in path.name]
    return found


def set_aside(place: Path) -> list[str]:
    """What was set aside in ``place``."""
    return sorted(path.name.rpartition(".")[2] for path in place.iterdir() if ".damaged-" in path.name)


def replace(path: Path, content: bytes) -> None:
    """Put another file in the place of ``path``: whoever has it open keeps what was there."""
    draft = path.with_name("draft")
    draft.write_bytes(content)
    draft.chmod(0o600)
    draft.rename(path)


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    replace(path, b"")


def garbage(path: Path) -> None:
    replace(path, os.urandom(max(path.stat().st_size, 64)))


def zeroes(path: Path) -> None:
    replace(path, bytes(path.stat().st_size))


def cut(path: Path) -> None:
    content = path.read_bytes()
    replace(path, content[: len(content) // 2 - 3])


def link(path: Path) -> None:
    moved = path.rename(path.with_name("elsewhere"))
    path.symlink_to(moved)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def read_only(path: Path) -> None:
    path.chmod(0o400)


def somebody_elses(path: Path) -> None:
    os.chown(path, SOMEBODY, SOMEBODY)


def other_format(path: Path) -> None:
    replace(path, path.read_bytes().replace(b'"format": %d' % FORMAT, b'"format": 99'))


def swapped(path: Path) -> None:
    """Put the same file of another environment in its place."""
    other = path.parent.parent.parent / "other"
    replace(path, (fill(other, 7, 8, 9) / path.name).read_bytes())
    shutil.rmtree(other)


Injection = Callable[[Path], None]
ANYWHERE: Final[list[Injection]] = [
    remove,
    link,
    directory,
    open_to_all,
    read_only,
    *([somebody_elses] if os.geteuid() == 0 else []),
]
"""What makes any file unfit for use."""
