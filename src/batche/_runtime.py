"""The runtime place: where a process tree keeps its entries when nothing else is said, and who removes it.

All processes of one tree, however they were started, have one `multiprocessing` authentication key, and no
other program has it: the place is named by its digest. A member of the place holds a shared ``flock`` on the
lock file in it, which fork inherits and the kernel drops at death. Who leaves tries to make the lock
exclusive, and who gets that was the last one. It takes the place out of the way by renaming it, so that
nobody can join what is half removed, then removes it, the lock file last.

A place whose members were all killed stays until the next process of the same user starts one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from multiprocessing import process, util
from pathlib import Path
from typing import Final

from batche import _places
from batche._forks import HeldLock, Order
from batche._reports import logger
from batche.errors import StoreError

if sys.platform != "win32":
    import fcntl

LOCK_FILE: Final = "lock"

_AFTER_CHILDREN_ENDED: Final = -100


class RuntimePlace:
    """This process's membership of one place.

    ``path`` is the directory for the environments; the name ``lock`` in it is taken. It is kept until
    the last member left, so it may be used in this process until `leave`.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)

    def __repr__(self) -> str:
        return f"<RuntimePlace {str(self.path)!r}{'' if self.is_held() else ', lost'}>"

    def is_held(self) -> bool:
        """Whether this process is a member still: its descriptor was not closed for it, nor the place taken away."""
        try:
            status, there = os.fstat(self._descriptor), os.lstat(self.path / LOCK_FILE)
        except OSError:
            return False
        return os.path.samestat(status, self._file) and os.path.samestat(there, self._file)

    def release(self) -> None:
        """Give up the membership. A descriptor that is somebody else's by now (after `os.closerange`) is left alone."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._file):
                os.close(self._descriptor)


class _Process(HeldLock):
    """What this process knows of its places; inherited by fork, descriptors included."""

    def __init__(self) -> None:
        self.joined: dict[str, RuntimePlace] = {}
        self.known: set[Path] = set()
        self.callbacks: list[Callable[[], object]] = []
        self.leaves = False
        self.left = 0
        """The process that has left for good: it is about to end, and nobody would remove what it made now."""
        super().__init__(Order.PLACE)

    def after_fork(self) -> None:
        super().after_fork()
        _name.cache_clear()  # the child may be the first process of a new PID namespace
        if self.leaves:
            _leave_when_ended(self)


_this = _Process()


def join() -> RuntimePlace:
    """The runtime place of this process tree, joined if this process is no member yet, made if nobody is.

    About a microsecond when nothing is to be done: call it again after a fork and before an environment is
    opened, because a child may have been given another key than the process it was forked from (a
    forkserver's is), and a daemon may have closed the descriptor. `StoreError`: no directory takes the place, or this
    process is about to end.
    """
    _places.require_locks("the runtime place")
    name = _name(bytes(process.current_process().authkey), os.geteuid())
    place = _membership(name)
    if place is None:
        if _this.left == os.getpid():
            raise StoreError("the runtime place", "was left, because this process is about to end")
        with _this.lock:
            place = _membership(name) or _join(name)
    return place


def membership() -> RuntimePlace | None:
    """The runtime place, if this process is a member of it."""
    return _membership(_name(bytes(process.current_process().authkey), os.geteuid())) if _this.joined else None


def leave() -> None:
    """Run what was given to `on_leave`, give up all memberships, and remove each place that has no member left.

    Runs by itself when the process ends: in `atexit`, and again after `multiprocessing` ended the daemonic
    children, who were members until then. Calling it any number of times is fine.
    """
    for callback in tuple(_this.callbacks):
        _run(callback)
    with _this.lock:
        while _this.joined:
            _this.joined.popitem()[1].release()
        for path in tuple(_this.known):
            _retire(path)
            for begun in _parts_of(path):
                _retire(begun)


def on_leave(callback: Callable[[], object]) -> None:
    """Have ``callback`` run first in each `leave`, the last given first.

    It runs in every process that leaves: in children forked after this call too, and more than once in one
    process. What it raises is logged, and the others still run.
    """
    _this.callbacks.insert(0, callback)
    _arrange_leaving()


def open_place(spec: _places.PlaceSpec) -> Path:
    """The directory that ``spec`` names, made and checked; `StoreError` if it cannot be used."""
    if spec.kind == "runtime":
        return join().path
    if spec.kind == "shm":
        return _places.named_place(spec.where)
    path = Path(spec.where)
    _places.make_private_directory(path)
    return path


@functools.lru_cache(maxsize=8)
def _name(authkey: bytes, user: int) -> str:
    """The name of the place; user and PID namespace are part of it.

    Another user's place is closed to this one, and in another namespace a pid means another process, which
    LMDB's table of readers cannot tell.
    """
    digest = hashlib.blake2b(authkey, digest_size=16, person=b"batche place").hexdigest()
    return f"batche-run-{user}-{_pid_namespace()}-{digest}"


def _pid_namespace() -> int:
    """Of this process, whatever ``/proc`` shows: its parent and its forks see the same, so they find one place."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return 0


def _membership(name: str) -> RuntimePlace | None:
    place = _this.joined.get(name)
    return place if place is not None and place.is_held() else None


def _join(name: str) -> RuntimePlace:
    _arrange_leaving()
    with _places.as_store_error("the runtime place"):
        place = _places.retried(name, lambda: _enter(name))
    _this.joined[name] = place
    _this.known.add(place.path)
    return place


def _enter(name: str) -> RuntimePlace | None:
    """One attempt; ``None`` if the place is just being removed."""
    try:
        return _seek(name)
    except FileNotFoundError:
        with _places.sole_maker(name):
            return _start(name)


def _seek(name: str) -> RuntimePlace | None:
    for root in _places.roots():
        with contextlib.suppress(FileNotFoundError):
            return _member(root / name)
    raise FileNotFoundError(name)


def _member(path: Path) -> RuntimePlace | None:
    descriptor = _hold(path, fcntl.LOCK_SH)
    return None if descriptor is None else RuntimePlace(path, descriptor)


def _hold(path: Path, mode: int) -> int | None:
    """Never makes the lock file: one made in a place that is being removed would keep it from going."""
    directory = _places.open_private_directory(path)
    try:
        return _places.hold(path / LOCK_FILE, mode, directory=directory)
    finally:
        os.close(directory)


def _start(name: str) -> RuntimePlace | None:
    try:
        return _seek(name)
    except FileNotFoundError:
        _sweep()  # first, because what stale places hold may be the room that is missing
        return _places.in_a_root(name, _make)


def _make(path: Path) -> RuntimePlace | None:
    """A place appears whole and with a member in it: it is prepared beside its path, then renamed."""
    prepared = _beside(path)
    try:
        descriptor = _prepare(prepared)
        if descriptor is None:
            return None
        _install(prepared, path, descriptor)
    except FileNotFoundError:
        return None  # a starter of another tree took it for a leftover, before it was locked
    return RuntimePlace(path, descriptor)


def _prepare(path: Path) -> int | None:
    """Make the directory of a place and hold its lock; where that fails, nothing is left, even without descriptors."""
    os.mkdir(path, 0o700)
    try:
        os.close(os.open(path / LOCK_FILE, os.O_CREAT | os.O_EXCL, 0o600))
        return _hold(path, fcntl.LOCK_SH)
    except OSError:
        with contextlib.suppress(OSError):
            path.joinpath(LOCK_FILE).unlink(missing_ok=True)
            path.rmdir()
        raise


def _install(prepared: Path, path: Path, descriptor: int) -> None:
    try:
        if path.is_dir():
            _take_away(path)  # it was found to have no lock file, so nobody can be a member of it
        os.rename(prepared, path)
    except OSError:
        _discard(prepared)
        os.close(descriptor)
        raise


def _sweep() -> None:
    """Remove what killed processes of this user left behind, and nothing that has a member."""
    for root in _places.roots():
        for path in _leftovers(root):
            (_retire_gate if path.name.startswith(".") else _retire)(path)


def _leftovers(root: Path) -> list[Path]:
    """What is named like a runtime place of this user, one being made or removed, or the gate before one."""
    ours = re.compile(rf"\.?batche-run-{os.geteuid()}-[0-9]+-[0-9a-f]{{32}}(\.[0-9a-f]{{8}})?")
    return [root / name for name in os.listdir(root) if ours.fullmatch(name)]


def _retire_gate(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = _places.hold(path, fcntl.LOCK_EX)
        if descriptor is not None:
            path.unlink()
            os.close(descriptor)


def _parts_of(path: Path) -> list[Path]:
    """What a member of the place at ``path`` that was killed while it removed the place has left beside it."""
    with contextlib.suppress(OSError):
        return [part for part in _leftovers(path.parent) if part.stem == path.name and part != path]
    return []


def _retire(path: Path) -> None:
    """Remove the place at ``path`` unless it has a member or is not ours; what fails is left to the next starter."""
    with contextlib.suppress(OSError):
        try:
            descriptor = _hold(path, fcntl.LOCK_EX)
        except FileNotFoundError:
            path.rmdir()  # no lock file: being made, or removed, by somebody else, or left empty by them
            return
        if descriptor is not None:
            _take_away(path)
            os.close(descriptor)


def _take_away(path: Path) -> None:
    retired = _beside(path)
    os.rename(path, retired)
    _discard(retired)


def _discard(path: Path) -> None:
    """Remove a directory that nobody looks for, its lock file last: it keeps others from removing it too."""
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if entry.name != LOCK_FILE:
                _remove(entry)
        if all(entry.name == LOCK_FILE for entry in path.iterdir()):  # else it is left for the next starter
            path.joinpath(LOCK_FILE).unlink(missing_ok=True)
            path.rmdir()


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name.partition('.')[0]}.{secrets.token_hex(4)}")


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        logger.warning("leaving the runtime place: %r failed", callback, exc_info=True)


def _arrange_leaving() -> None:
    with _this.lock:
        if _this.leaves:
            return
        atexit.register(leave)
        util.register_after_fork(_this, _leave_when_ended)
        _leave_when_ended(_this)
        _this.leaves = True  # last: what an interrupt has left undone is done at the next use


def _leave_when_ended(_: object) -> None:
    """A forked `multiprocessing` child ends without `atexit`, and drops the finalizers that it inherited."""
    util.Finalize(None, _leave_for_good, exitpriority=_AFTER_CHILDREN_ENDED)


def _leave_for_good() -> None:
    """The last thing that is sure to run; handlers that come after it, and daemon threads, do without the place."""
    _this.left = os.getpid()
    leave()
