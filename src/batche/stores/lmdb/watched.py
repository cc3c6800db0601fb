"""Files that are in use, and must still be the ones at their paths."""

from __future__ import annotations

import os
from pathlib import Path

from batche.stores.lmdb.descriptors import File, file_in


def inode_of(path: Path) -> File | None:
    """Which file or directory is at ``path`` now, if any; a symbolic link is one itself."""
    try:
        return file_in(os.stat(path, follow_symlinks=False))
    except OSError:
        return None


class Watched:
    """The files at some paths, as they are from now on."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._inodes = self._look()

    def _look(self) -> list[File | None]:
        return [inode_of(path) for path in self._paths]

    def have_changed(self) -> bool:
        return self._look() != self._inodes
