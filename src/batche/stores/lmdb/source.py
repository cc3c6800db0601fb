"""Where a store gets its environment from: once, and again where the files are no longer what it has open."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from batche._places import BegunAnewError, make_private_directory
from batche._reports import logger
from batche.errors import StoreError
from batche.stores.lmdb.opened import OpenEnvironment
from batche.stores.lmdb.place import open_place

RETRY: Final = 1.0
"""Seconds after which an environment that was lost, and could not be opened anew, is tried again."""


class Source:
    """Opens one environment, whose place ``find`` finds, and makes again where it was removed."""

    def __init__(self, find: Callable[[], Path], directory: str, **about: Any) -> None:
        self._find = find
        self._directory = directory
        self._about = about
        self._trouble: tuple[float, tuple[str, str]] | None = None

    def open(self) -> OpenEnvironment:
        """The environment. `BegunAnewError`: it was damaged; the next time it is a new one."""
        return open_place(self._find()).environment(self._directory, **self._about)

    def open_anyway(self) -> OpenEnvironment:
        """The environment, or a new one where it was damaged, which is only told."""
        try:
            return self.open()
        except BegunAnewError as error:
            logger.warning("%s", error)
            return self.open()

    def renewed(self, opened: OpenEnvironment) -> tuple[OpenEnvironment, BegunAnewError] | None:
        """What to use instead of ``opened``, and what is to be told; `None` where that is fit for use.

        Raises:
            StoreError: there is none for now.
        """
        if self._trouble is not None and time.monotonic() < self._trouble[0]:
            raise StoreError(*self._trouble[1])
        try:
            anew = self._open_again(opened) if opened.is_outdated() else None
        except StoreError as error:
            self._trouble = time.monotonic() + RETRY, (error.store, error.problem)
            raise
        self._trouble = None
        return anew

    def _open_again(self, opened: OpenEnvironment) -> tuple[OpenEnvironment, BegunAnewError]:
        problem = "was removed, replaced or set aside while in use; going on with a new one"
        try:
            return self.open(), BegunAnewError(str(opened.path), problem)
        except BegunAnewError as error:
            return self.open(), error


def shared(place: Path, **about: Any) -> Source:
    """Of a store that several functions share: its directory is made where it is not there."""

    def find() -> Path:
        make_private_directory(place)
        return place

    return Source(find, "store", **about)
