"""How much room there is, and how sizes are written.

Where a file system is memory (tmpfs, ramfs), its free blocks promise more than the machine or the cgroup
can give: a page is charged when it is first touched, and the promise ends in the OOM killer. So the room
of such a file system is the least of its own, of the machine's and of what every cgroup limit leaves.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from batche._numbers import ENDLESS, real, whole

LARGEST_DEFAULT: Final = 4 * 2**30
PROC: Final = Path("/proc")

_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
_SIZE: Final = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([a-z]*)\s*", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def parse_size(size: object) -> int:
    """The number of bytes that ``size`` says: an int, or text such as ``"512MiB"``, ``"1.5 GiB"``, ``"1GB"``.

    Units of 1000 end in ``B`` and units of 1024 in ``iB``, up to tera, in any case; a fraction of a byte is
    dropped. A bare ``M`` is refused, because it is read both ways.
    """
    if isinstance(size, str):
        return _parse_text(size)
    number = whole(size)
    if number is None or number < 0:
        raise _not_a_size(size)
    return number


def _parse_text(size: str) -> int:
    match = _SIZE.fullmatch(size)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise _not_a_size(size)
    return int(Fraction(match[1]) * unit)


def _not_a_size(size: object) -> ValueError:
    return ValueError(
        f"a size is a number of bytes, 0 or more, or text like '512MiB', '1.5 GiB' or '1GB', not {size!r}"
    )


def limits(maxsize: object, max_bytes: object) -> tuple[int | None, int | None]:
    """Check limits as a user writes them. `ValueError` for what they cannot be."""
    return _most_entries(maxsize), None if max_bytes is None else min(parse_size(max_bytes), ENDLESS // 4)


def _most_entries(maxsize: object) -> int | None:
    """A whole number, written as ``1e5`` too; `ENDLESS` for one that never counts."""
    number = None if maxsize is None else whole(maxsize, or_float=True)
    if number is not None and number >= 0:
        return min(number, ENDLESS)
    if maxsize is None:
        return None
    if real(maxsize) == float("inf"):
        return ENDLESS
    raise ValueError(f"maxsize must be 0 or more, or None for no limit by count, not {maxsize!r}")


def default_max_bytes(path: str | os.PathLike[str], proc: Path = PROC) -> int:
    """A quarter of the room at the existing ``path``, never over 4 GiB; 0 where there is none.

    It is what the room is now: nothing is reserved, and other programs may take it.
    """
    return min(LARGEST_DEFAULT, min(_rooms(path, proc), default=LARGEST_DEFAULT * 4) // 4)


def scarce(path: str | os.PathLike[str]) -> bool:
    """Whether less than an eighth of the file system at ``path`` is free to this user."""
    status = os.statvfs(path)
    return status.f_bavail * 8 < status.f_blocks


def free_room(path: str | os.PathLike[str]) -> int | None:
    """The bytes that this user may still write to the file system at ``path``; `None`: it has no limit."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def is_in_memory(path: str | os.PathLike[str], proc: Path = PROC) -> bool:
    """Whether the file system at ``path`` is memory (tmpfs, ramfs); `False` where the platform cannot tell."""
    return is_memory(list(parse_mounts(_read(proc / "self/mountinfo"))), os.stat(path).st_dev)


def _rooms(path: str | os.PathLike[str], proc: Path) -> Iterator[int]:
    free = free_room(path)
    if free is not None:
        yield free
    mounts = list(parse_mounts(_read(proc / "self/mountinfo")))
    if is_memory(mounts, os.stat(path).st_dev):
        yield from available_memory(_read(proc / "meminfo"))
        for group in memory_groups(_read(proc / "self/cgroup"), mounts):
            yield from room_in_group(group)


class Mount(NamedTuple):
    """One line of ``mountinfo``: which device is where, and which part of it (``root``)."""

    device: str
    root: str
    point: str
    kind: str
    options: frozenset[str]


def parse_mounts(mountinfo: str) -> Iterator[Mount]:
    """The mounts that the text of ``/proc/self/mountinfo`` lists; see proc(5)."""
    for line in mountinfo.splitlines():
        fields, separator, rest = line.partition(" - ")
        if separator:
            _, _, device, root, point, *_ = fields.split(" ")
            kind, _, options = rest.split(" ", 2)
            yield Mount(device, _unescape(root), _unescape(point), kind, frozenset(options.split(",")))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def is_memory(mounts: list[Mount], device: int) -> bool:
    """Whether the file system with this ``st_dev`` keeps its files in memory."""
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(mount.kind in _MEMORY_FILE_SYSTEMS for mount in mounts if mount.device == number)


def available_memory(meminfo: str) -> list[int]:
    """``MemAvailable`` in bytes, if the text of ``/proc/meminfo`` has it."""
    return [int(kib) * 1024 for kib in re.findall(r"^MemAvailable:\s+([0-9]+) kB$", meminfo, re.MULTILINE)]


def memory_groups(membership: str, mounts: list[Mount]) -> Iterator[Path]:
    """The directories of every cgroup (v1 and v2) that bounds this process's memory, ancestors included.

    ``membership`` is the text of ``/proc/self/cgroup``. Ancestors above what is mounted (outside a
    container) cannot be seen.
    """
    for line in membership.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        for mount in mounts:
            if _is_hierarchy(mount, hierarchy, controllers):
                yield from _ancestry(mount, path)


def _is_hierarchy(mount: Mount, hierarchy: str, controllers: str) -> bool:
    if hierarchy == "0":
        return mount.kind == "cgroup2"
    return mount.kind == "cgroup" and "memory" in controllers.split(",") and "memory" in mount.options


def _ancestry(mount: Mount, path: str) -> Iterator[Path]:
    """A process outside the mounted part (seen from a cgroup namespace) is taken to be at its root."""
    inside = PurePosixPath(path)
    relative = inside.relative_to(mount.root) if inside.is_relative_to(mount.root) else PurePosixPath()
    top = Path(mount.point)
    yield top / relative
    yield from (top / parent for parent in relative.parents)


def room_in_group(group: Path) -> list[int]:
    """What the limits of one cgroup directory leave: none, one or several numbers of bytes.

    File pages that the kernel would drop first (``inactive_file``) count as room: a group that has read
    files for a while is otherwise always full.
    """
    used = sum(_numbers(group, "memory.current", "memory.usage_in_bytes")) - _reclaimable(group)
    return [max(0, limit - used) for limit in _numbers(group, "memory.max", "memory.high", "memory.limit_in_bytes")]


def _reclaimable(group: Path) -> int:
    """Of the group and those below it: ``total_inactive_file`` in v1, where the short name is its own only."""
    counts = re.findall(r"^(?:total_)?inactive_file ([0-9]+)$", _read(group / "memory.stat"), re.MULTILINE)
    return max(map(int, counts), default=0)


def _numbers(group: Path, *names: str) -> list[int]:
    """Those of the files that exist and hold a number; the word ``max`` is no limit."""
    texts = (_read(group / name).strip() for name in names)
    return [int(text) for text in texts if text.isdecimal()]


def _read(path: Path) -> str:
    """The text of a file of the kernel; empty where the system has no such file."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    return ""
