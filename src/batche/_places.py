"""Places: directories that hold one LMDB environment, a sub-directory, for each function name.

A place that lies where other users can write (`/dev/shm`, `/tmp`) is trusted only after its owner, mode and
kind were read from an open descriptor, never from its name alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

from batche._capacity import free_room
from batche._trouble import PASSING, store_error, translated
from batche.errors import StoreError

if sys.platform != "win32":
    import fcntl

SHARED_MEMORY: str = "/dev/shm"  # the one place where shared memory is files; names in it are checked
ROOM_FOR_A_PLACE: Final = 128 * 2**20
MAKER_PATIENCE: Final = 10.0
ENVIRONMENT_VARIABLE: Final = "BATCHE_STORE"

Made = TypeVar("Made")

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?(.*)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SERVER_SCHEMES: Final = ("redis", "rediss", "valkey", "unix")


@dataclass(frozen=True, slots=True)
class PlaceSpec:
    """Where a function's entries go, parsed and checked; nothing on disk was touched.

    ``where`` is an absolute path for ``"path"``, the name for ``"shm"``, else empty. ``from_environment``
    says that ``BATCHE_STORE`` chose it.
    """

    kind: Literal["runtime", "path", "shm", "off"]
    where: str = ""
    from_environment: bool = False

    @property
    def outlives(self) -> bool:
        """Whether its entries are still there when the process tree has ended."""
        return self.kind in {"path", "shm"}

    def __str__(self) -> str:
        """As a user would name it."""
        return {"path": self.where, "shm": f"shm://{self.where}", "off": "off"}.get(self.kind, "the runtime place")


def resolve(store: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> PlaceSpec:
    """What ``store=`` says; where that is ``None``, what ``BATCHE_STORE`` says, else the runtime place."""
    if store is not None:
        return _parse(store, from_environment=False)
    chosen = environ.get(ENVIRONMENT_VARIABLE, "")
    return _parse(chosen, from_environment=True) if chosen else PlaceSpec("runtime")


def _parse(store: str | os.PathLike[str], *, from_environment: bool) -> PlaceSpec:
    if not isinstance(store, str):
        return PlaceSpec("path", str(path_place(store)), from_environment)
    if store == "off":
        return PlaceSpec("off", "", from_environment)
    match = _SCHEME.fullmatch(store)
    if match and (match[2] or match[1].lower() in ("shm", *_SERVER_SCHEMES)):
        return PlaceSpec("shm", _name_in_url(store, match), from_environment)
    return PlaceSpec("path", str(path_place(store)), from_environment)


def _name_in_url(store: str, match: re.Match[str]) -> str:
    scheme = match[1].lower()
    if scheme in _SERVER_SCHEMES:
        raise ValueError(f"store {store!r}: a {scheme}:// server is not available in this version")
    if scheme != "shm":
        raise ValueError(f"store {store!r}: unknown scheme {scheme}://; write a path, 'shm://name' or 'off'")
    if not match[2]:
        raise ValueError(f"store {store!r}: write 'shm://{match[3].lstrip('/')}'")
    return check_name(match[3])


def check_name(name: str) -> str:
    """``name``, if it can be the name of a ``shm://`` place, else `ValueError`."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"store 'shm://{name}': a name is 1 to 100 of the letters a-z and A-Z, digits, '.', '_' and '-', "
            "and begins with a letter or a digit"
        )
    return name


def path_place(path: str | os.PathLike[str]) -> Path:
    """The absolute path that a user's ``path`` means now: ``~`` expanded, relative to the working directory."""
    text = os.fsdecode(path)
    scheme = _SCHEME.fullmatch(text)
    if not text or "\0" in text or (scheme and scheme[2]):
        raise ValueError(f"store {text!r} is not a path: write a directory, 'shm://name' or 'off'")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"store {text!r}: {error}") from error


def named_place(name: str) -> Path:
    """The directory of ``shm://name``, made if it is not there. It stays until the user removes it."""
    store = f"shm://{check_name(name)}"
    require_locks(store)
    directory = f"batche-shm-{os.geteuid()}-{name}"
    with as_store_error(store):
        found = _find(directory)
        if found is None:
            with sole_maker(directory):
                found = _find(directory) or _make_named(directory)
        return found


def _find(directory: str) -> Path | None:
    for root in roots():
        with contextlib.suppress(FileNotFoundError):
            os.close(open_private_directory(root / directory))
            return root / directory
    return None


def _make_named(directory: str) -> Path:
    def make(path: Path) -> Path:
        os.mkdir(path, 0o700)
        return path

    return in_a_root(directory, make)


def roots() -> list[Path]:
    """The directories in which a place of no given path may lie, in the order in which they are looked at."""
    candidates = [SHARED_MEMORY]
    with contextlib.suppress(FileNotFoundError):  # no directory for temporary files either
        candidates.append(tempfile.gettempdir())
    return [Path(root) for root in candidates if os.access(root, os.R_OK | os.W_OK | os.X_OK)]


def in_a_root(name: str, make: Callable[[Path], Made]) -> Made:
    """What ``make`` makes of ``name`` in the first root that takes it, shared memory last if it has little room."""
    problems = []
    for root in sorted(roots(), key=_is_short_of_room):
        try:
            return make(root / name)
        except OSError as error:
            if error.errno in PASSING:
                raise  # of this process, not of the directory
            problems.append(str(error))
    raise StoreError(name, f"no directory takes it ({'; '.join(problems)}): set TMPDIR, or give store= a path")


def _is_short_of_room(root: Path) -> bool:
    """Only shared memory is ever passed over: containers have little of it by default, and other uses for it."""
    try:
        free = free_room(root)
    except OSError:
        return True
    return root == Path(SHARED_MEMORY) and free is not None and free < ROOM_FOR_A_PLACE


def make_private_directory(path: Path) -> None:
    """Make ``path`` a directory of this user's alone, or check that it is one; its parents are made as usual.

    Refused with a `StoreError`: a symlink, a directory of another user, a mode other than 0700. What is
    checked stays so as long as no other user can rename things in the directory above it; sticky
    directories such as ``/tmp`` see to that.
    """
    require_locks(str(path))
    with as_store_error(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
        os.close(open_private_directory(path))


def open_private_directory(path: Path) -> int:
    """A descriptor of the directory ``path``, checked to be private; `FileNotFoundError` if nothing is there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(str(path), _why_not_opened(path, error)) from error
    problem = _why_not_private(os.fstat(descriptor))
    if problem:
        os.close(descriptor)
        raise StoreError(str(path), problem)
    return descriptor


@contextlib.contextmanager
def entered(path: Path) -> Generator[int, None, None]:
    """A descriptor of the directory ``path``, checked to be private, for as long as the ``with`` lasts."""
    descriptor = open_private_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _why_not_opened(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return "it is a symbolic link: give the directory that it points to, or choose another"
    if error.errno == errno.ENOTDIR:
        return "it is not a directory: remove it or choose another"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"it cannot be opened ({error.strerror}): raise the limit (ulimit -n), or use fewer named functions"
    return f"it cannot be opened ({error.strerror}): make it yours with mode 0700, or choose another"


def why_not_private_file(status: os.stat_result) -> str | None:
    """What keeps a file in a private directory from being used: others could have written it, or we cannot."""
    if not stat.S_ISREG(status.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(status.st_mode) else "is not a file"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, and this is user {os.geteuid()}"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        return f"has mode {mode:04o}, so others can write to it"
    return None if mode & 0o600 == 0o600 else f"has mode {mode:04o}, so it cannot be written"


def _why_not_private(status: os.stat_result) -> str | None:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, and this is user {os.geteuid()}: choose another directory"
    if mode != 0o700:
        return f"its mode is {mode:04o}, and others must have no part in it: run chmod 700 on it, or choose another"
    return None


def hold(path: Path, mode: int, *, create: bool = False, directory: int | None = None) -> int | None:
    """A descriptor that holds a ``flock`` of ``mode`` on the file now at ``path``.

    ``None``: somebody's lock excludes it, or the file was replaced meanwhile. ``directory`` is an open
    descriptor of the directory that ``path`` lies in, if the caller has checked one. The lock is inherited
    by fork, not by exec, and ends when its last copy is closed.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    descriptor = os.open(path if directory is None else path.name, flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextlib.contextmanager
def sole_maker(name: str) -> Generator[None, None, None]:
    """Let one process at a time decide in which root the place ``name`` is made.

    The lock file is removed by its holder: a later one finds either no file, or one that it may lock.
    """
    descriptor, path = _enter_gate(f".{name}")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _enter_gate(name: str) -> tuple[int, Path]:
    path = _first_root(name) / name
    return retried(name, lambda: hold(path, fcntl.LOCK_EX, create=True)), path


def _first_root(name: str) -> Path:
    for root in roots():
        return root
    raise StoreError(name, "no directory for temporary files can be written: set TMPDIR, or give store= a path")


def retried(name: str, attempt: Callable[[], Made | None]) -> Made:
    """The first result of ``attempt`` that is not ``None``, tried a little less often each time, for 10 s."""
    deadline, pause = time.monotonic() + MAKER_PATIENCE, 0.0005
    while time.monotonic() < deadline:
        result = attempt()
        if result is not None:
            return result
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    raise StoreError(
        name, f"another process has been making or removing it for {MAKER_PATIENCE:.0f} s: end that process"
    )


class BegunAnewError(StoreError):
    """The store was damaged and set aside, or removed or replaced: from now on it is another, which can be used."""


class NoLocksError(StoreError):
    """This platform has no places: what is stated can never work here, so nothing computes in silence without it."""


def as_store_error(store: str) -> translated:
    """Let what the system says about directories and locks leave the ``with`` as a `StoreError` about ``store``."""
    return translated(OSError, partial(store_error, store))


def require_locks(store: str) -> None:
    """`NoLocksError` where the platform cannot lock or check files as a place needs it (Windows)."""
    if sys.platform == "win32":
        raise NoLocksError(
            store, "a place needs POSIX file locks, which this platform lacks: give store= a mapping of this process"
        )
