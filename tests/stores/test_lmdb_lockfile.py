"""Lock files: a lock lasts as long as its holder has the file, whatever else of this process opens and closes it."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from batche.stores.lmdb.lockfile import LockFile
from tests.stores._driving import server


def the_path(path: Path) -> Path:
    return path


def is_locked(path: Path) -> bool:
    """Whether another process than this one holds the lock."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lock"
    path.touch()
    return path


def locked(path: Path) -> LockFile:
    file = LockFile(path)
    fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


@pytest.mark.parametrize("collected", [False, True])
def test_what_is_closed_beside_it_ends_no_lock(path: Path, collected: bool) -> None:
    with server(the_path, path) as prober:
        earlier, holder, later = LockFile(path), locked(path), LockFile(path)
        if not collected:
            earlier.close()
            later.close()
        del earlier, later
        assert prober.do(is_locked)
        holder.close()
        assert not prober.do(is_locked)


def descriptors_of(path: Path) -> int:
    return sum(number.readlink() == path for number in Path("/proc/self/fd").iterdir() if number.is_symlink())


@pytest.mark.skipif(sys.platform != "linux", reason="open descriptors are listed by /proc")
def test_nothing_is_open_once_all_are_closed(path: Path) -> None:
    files = [LockFile(path) for _ in range(3)]
    assert descriptors_of(path) == 3
    for file in files:
        file.close()
        file.close()
    assert descriptors_of(path) == 0
    again = locked(path)
    with server(the_path, path) as prober:
        assert prober.do(is_locked)
    again.close()
    assert descriptors_of(path) == 0


def test_a_descriptor_that_somebody_else_has_closed_is_no_trouble(path: Path) -> None:
    file = LockFile(path)
    os.close(file.descriptor)
    file.close()
    file.close()
    again = locked(path)
    assert os.path.samestat(os.fstat(again.descriptor), path.stat())
    again.close()
