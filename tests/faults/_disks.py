"""File systems of a few MiB, mounted where only the actors of one test see them; and what fills them up."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.processes._tools import Actor, Cast

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
MIB = 1 << 20


class Disk:
    """A tmpfs of ``size`` bytes at ``path``, in a mount namespace that lasts as long as its actors."""

    def __init__(self, cast: Cast, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._cast = cast
        path.mkdir()
        self.stage = cast.actor()
        try:
            _in_main_thread(self.stage, mount, path, size)
        except PermissionError as error:
            pytest.skip(f"file systems cannot be mounted here: {error}")

    def actor(self) -> Actor:
        """A new process that sees the file system."""
        actor = self._cast.actor()
        _in_main_thread(actor, enter, self.stage.pid)
        return actor

    def actors(self, number: int) -> list[Actor]:
        return [self.actor() for _ in range(number)]

    def fill(self, leave: int = 0) -> None:
        """Have all but ``leave`` bytes in use by somebody else."""
        self.stage.run(fill, self.path, leave)

    def free(self) -> None:
        """Give back what `fill` took."""
        self.stage.run(free, self.path)


def _in_main_thread(actor: Actor, function: Any, *arguments: Any) -> None:
    actor.begin(function, *arguments, in_main_thread=True).result()  # threads begun later are where it is then


_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise PermissionError(number, f"{name}: {os.strerror(number)}")
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(path: Path, size: int) -> None:
    """Leave the mount namespace of the others, with an own user namespace where it takes one, and mount."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _call("unshare", _CLONE_NEWNS)
    else:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", 0, f"size={size},mode=0700".encode())


def enter(pid: int) -> None:
    """Go to the mount namespace of another process."""
    kinds = ["mnt"] if os.geteuid() == 0 else ["user", "mnt"]
    for kind in kinds:
        descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        try:
            _call("setns", descriptor, 0)
        finally:
            os.close(descriptor)


def room(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


def fill(disk: Path, leave: int = 0) -> None:
    descriptor = os.open(disk / "filler", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while (more := room(disk) - leave) > 0:
            with contextlib.suppress(OSError):  # a writer took some of it meanwhile
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, more)
    finally:
        os.close(descriptor)


def free(disk: Path) -> None:
    (disk / "filler").unlink()
