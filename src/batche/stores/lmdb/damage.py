"""What the files of an environment must be before they are used, and how one that is not so is set aside.

Everything is checked through a descriptor of the directory, without opening a file that somebody may have locked.
A damaged environment is renamed, never edited or cut: other processes may have its files mapped, and would die of it.

Limits: LMDB has no checksums of its own, so damage inside the pages of its tree is found by reading, or not at all,
and a file that is cut short while it is mapped ends its readers with SIGBUS, which nobody can catch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, Final

from batche._places import why_not_private_file
from batche.errors import StoreError
from batche.stores.lmdb import counts, pages, slots

FORMAT: Final = 2
"""The version of all that is written in an environment's directory."""
KEPT: Final = 1
"""How many environments of one name that were set aside stay for their owner to look at."""

LOCK_BYTES: Final = 1 << 16
"""The size of LMDB's lock file, which it would cut or fill up otherwise."""
FILES: Final = {
    "format": 2,
    "data.mdb": 8192,
    "lock.mdb": LOCK_BYTES,
    "slots": slots.LEAST_BYTES,
    "counts": counts.LEAST_BYTES,
    "gate": 0,
}
"""The files of an environment and their least sizes in bytes."""


class DamagedError(StoreError):
    """The files are not what this library wrote; ``foreign`` says that another version of it may have."""

    foreign = False

    def at(self, path: Path) -> DamagedError:
        """The same, said of the environment at ``path``."""
        error = DamagedError(str(path), self.problem)
        error.foreign = self.foreign
        return error


class UnreadableError(Exception):
    """A record that all others depend on does not have its checksum."""


# ---- setting aside ----


def set_aside(place: int, name: str) -> str:
    """Rename what is at ``name`` in the directory ``place``; returns the new name. The caller is its sole maker."""
    pattern = re.compile(re.escape(name) + r"\.damaged-(\d{1,9})")
    earlier = sorted(int(match[1]) for entry in os.listdir(place) if (match := pattern.fullmatch(entry)))
    aside = f"{name}.damaged-{earlier[-1] + 1 if earlier else 1}"
    os.rename(name, aside, src_dir_fd=place, dst_dir_fd=place)
    for number in earlier[: len(earlier) + 1 - KEPT]:
        remove(place, f"{name}.damaged-{number}")
    return aside


def discard(place: int, name: str) -> None:
    """Remove what is at ``name`` in the directory ``place``, all of it in one moment. The caller is its sole maker."""
    aside = f"{name}.old"
    remove(place, aside)  # of one that was killed
    os.rename(name, aside, src_dir_fd=place, dst_dir_fd=place)
    remove(place, aside)


def remove(place: int, name: str) -> None:
    """Remove a file or a directory, as far as that is possible."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=place)
        else:
            os.unlink(name, dir_fd=place)
    except OSError:
        return  # gone already, or not ours to remove: it does no harm


# ---- finding ----


def find(directory: int) -> int:
    """The identity of the environment in ``directory``; `DamagedError` where its files are not what was made."""
    for name, least in FILES.items():
        problem = check_file(directory, name, least)
        if problem is not None:
            raise DamagedError("", problem)
    identity: int = read_format(directory)["identity"]
    problem = (
        pages.check(directory, "data.mdb")
        or check_word(directory, "slots", slots.IDENTITY, identity)
        or check_word(directory, "counts", counts.IDENTITY, identity)
    )
    if problem is not None:
        raise DamagedError("", problem)
    return identity


def check_file(directory: int, name: str, least: int) -> str | None:
    """What is wrong with a file of at least ``least`` bytes; it is not opened."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return f"{name} is missing"
    problem = why_not_private_file(status)
    if problem is not None:
        return f"{name} {problem}"
    return f"{name} is cut short ({status.st_size} of {least} bytes)" if status.st_size < least else None


def read_format(directory: int) -> dict[str, Any]:
    """What was written down when the environment was made; `DamagedError` where it is not that."""
    try:
        about = json.loads(_read(directory, "format", 0, 1 << 16))
        version, identity, map_size = about["format"], about["identity"], about["map_size"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("", f"format is damaged ({type(error).__name__}: {error})") from error
    if version != FORMAT:
        found = DamagedError("", f"it was written by another version of batche (format {version!r})")
        found.foreign = isinstance(version, int)
        raise found
    if not (isinstance(identity, int) and 0 < identity < 1 << 64 and isinstance(map_size, int) and map_size > 0):
        raise DamagedError("", "format is damaged (a field is not what it must be)")
    return dict(about)


def check_word(directory: int, name: str, index: int, identity: int) -> str | None:
    """Whether a table is of the environment ``identity``, which it carries in its word ``index``."""
    if _read(directory, name, 8 * index, 8) != identity.to_bytes(8, sys.byteorder):
        return f"{name} is damaged, or another environment's"
    return None


def _read(directory: int, name: str, at: int, size: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        return os.pread(descriptor, size, at)
    finally:
        os.close(descriptor)
