"""LMDB's files: opened in a directory that was entered, whatever its path leads to by then, and made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import lmdb

from batche.errors import StoreError
from batche.stores.lmdb.damage import FORMAT, LOCK_BYTES
from batche.stores.lmdb.gate import GATE, ForkedUncleanlyError, GateClosedError
from batche.stores.lmdb.records import IDENTITY
from batche.stores.lmdb.trouble import as_trouble
from batche.stores.lmdb.words import allocate

MAP_BYTES: Final = 64 << 30
"""Address space, not room: it is fixed at creation, because resizing a shared map breaks other processes."""
LEAST_MAP_BYTES: Final = 1 << 20
"""Where the address space has no room for a map of this size, the environment cannot be used."""
READERS: Final = 1022
"""As many as fit in a lock file of `LOCK_BYTES`."""
FIRST_PAGES: Final = 2
"""Pages that a file has before anything is in it."""


def open_files(directory: int, size: int, path: Path, *, durable: bool) -> lmdb.Environment:
    """The files in ``directory``, with a map of ``size`` bytes, or of what the address space takes (ulimit -v).

    LMDB wants a path: on Linux that of the descriptor. Elsewhere ``path`` is looked at before and after, and what
    remains is somebody who can rename the directory, and does so twice in between.
    """
    name = f"/proc/self/fd/{directory}"
    by_descriptor = os.path.exists(name)
    env = _opened(name if by_descriptor else str(path), size, durable=durable)
    if not by_descriptor and not os.path.samestat(os.fstat(directory), path.lstat()):
        env.close()
        raise StoreError(str(path), "was replaced while it was being opened")
    return env


def _opened(path: str, size: int, *, durable: bool) -> lmdb.Environment:
    while True:
        try:
            return lmdb.open(
                path,
                map_size=size,
                create=False,
                mode=0o600,
                sync=durable,
                metasync=durable,
                max_readers=READERS,
                max_spare_txns=0,
                lib_version=0,
            )
        except lmdb.MemoryError:
            size //= 2  # LMDB takes the size of what is there already where that is more
            if size < LEAST_MAP_BYTES:
                raise


def make(path: Path, identity: int, directory: int, **about: Any) -> None:
    """Make the files of the new environment ``identity`` in its empty ``directory``. The caller has it to itself.

    What is mapped is allocated in full first: opening on a full file system would be SIGBUS, this is an error.
    """
    try:
        allocate(path / "lock.mdb", LOCK_BYTES, inside=directory)
        allocate(path / "gate", 1, inside=directory)
        size = GATE.through(_make_data, path, identity, directory, about.pop("map_size", MAP_BYTES))
        about = {"format": FORMAT, "identity": identity, "map_size": size, **about}
        draft = os.open("format", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        with open(draft, "wb") as file:  # text would import a codec: not fork-safe
            file.write(json.dumps(about).encode())
    except (GateClosedError, ForkedUncleanlyError, OSError, lmdb.Error) as error:
        raise as_trouble(path, error) from error


def _make_data(path: Path, identity: int, directory: int, size: int) -> int:
    """Have LMDB write its first pages; the bytes of map that there is address space for."""
    env = open_files(directory, size, path, durable=False)
    try:
        with env.begin(write=True) as transaction:
            transaction.put(IDENTITY, identity.to_bytes(8, "big"))
        found: int = env.info()["map_size"]
    finally:
        env.close()
    return found
