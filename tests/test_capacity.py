"""The default limit, from trees of kernel files as other machines have them, and from this machine's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batche import _capacity, cache_batch_variable
from batche._capacity import default_max_bytes, parse_size, scarce

GIB = 2**30
MIB = 2**20
UNLIMITED_V1 = 9223372036854771712

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel files are Linux's")


class Machine:
    """A tree of kernel files in which the file system of ``here`` is in memory."""

    def __init__(self, directory: Path) -> None:
        self.here = directory
        self.proc = directory / "proc"
        self.cgroup = directory / "cgroup fs"
        self.free = _capacity.free_room(directory)
        (self.proc / "self").mkdir(parents=True)
        device = os.stat(directory).st_dev
        self.mounts = [f"25 24 {os.major(device)}:{os.minor(device)} / {self.escape(directory)} rw - tmpfs tmpfs rw"]
        self.groups: list[str] = []
        self.memory(1024 * GIB)

    @staticmethod
    def escape(path: Path) -> str:
        return str(path).replace(" ", "\\040")

    def memory(self, available: int) -> None:
        text = f"MemTotal: {2048 * MIB} kB\nMemFree: 1 kB\nMemAvailable:   {available // 1024} kB\n"
        (self.proc / "meminfo").write_text(text)

    def mount_v1(self, root: str = "/") -> None:
        self.mounts.append(f"35 31 0:33 {root} {self.escape(self.cgroup)} rw shared:9 - cgroup cgroup rw,memory")

    def mount_v2(self, root: str = "/") -> None:
        self.mounts.append(f"41 31 0:38 {root} {self.escape(self.cgroup)} rw - cgroup2 cgroup2 rw,nsdelegate")

    def group(self, path: str, **files: object) -> None:
        directory = self.cgroup / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name.replace("memory_", "memory.")).write_text(f"{content}\n")

    def default(self) -> int:
        (self.proc / "self/mountinfo").write_text("\n".join(["not a mount", *self.mounts, ""]))
        (self.proc / "self/cgroup").write_text("\n".join([*self.groups, ""]))
        return default_max_bytes(self.here, self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@on_linux
class TestDefaultMaxBytes:
    def test_without_kernel_files_a_quarter_of_what_is_free(self, tmp_path: Path) -> None:
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        found = default_max_bytes(tmp_path, tmp_path / "nothing")
        assert found == pytest.approx(min(4 * GIB, free // 4), rel=0.05)

    def test_never_over_four_gib(self, machine: Machine) -> None:
        assert machine.default() <= 4 * GIB

    def test_available_memory_bounds_files_in_memory(self, machine: Machine) -> None:
        machine.memory(400 * MIB)
        assert machine.default() == 100 * MIB

    def test_available_memory_does_not_bound_files_on_disk(self, machine: Machine) -> None:
        machine.mounts = [machine.mounts[0].replace("tmpfs tmpfs", "ext4 /dev/vda")]
        before = machine.default()
        machine.memory(40 * MIB)
        assert machine.default() == pytest.approx(before, rel=0.05)
        assert machine.default() > 10 * MIB

    def test_another_mount_in_memory_does_not_count(self, machine: Machine) -> None:
        machine.mounts = ["25 24 0:9999 / /run rw - tmpfs tmpfs rw"]
        machine.memory(40 * MIB)
        assert machine.default() > 10 * MIB

    def test_group_v2(self, machine: Machine) -> None:
        machine.mount_v2()
        machine.groups = ["0::/service"]
        machine.group("service", memory_max=512 * MIB, memory_current=112 * MIB)
        assert machine.default() == 100 * MIB

    def test_group_v2_without_use(self, machine: Machine) -> None:
        machine.mount_v2()
        machine.groups = ["0::/service"]
        machine.group("service", memory_max=400 * MIB, memory_current=0)
        assert machine.default() == 100 * MIB

    def test_the_word_max_is_no_limit(self, machine: Machine) -> None:
        machine.memory(800 * MIB)
        machine.mount_v2()
        machine.groups = ["0::/service"]
        machine.group("service", memory_max="max", memory_high="max", memory_current=112 * MIB)
        assert machine.default() == 200 * MIB

    def test_memory_high_is_a_limit(self, machine: Machine) -> None:
        machine.mount_v2()
        machine.groups = ["0::/service"]
        machine.group("service", memory_max="max", memory_high=400 * MIB, memory_current=0)
        assert machine.default() == 100 * MIB

    @pytest.mark.parametrize("limited", ["", "slice", "slice/service", "slice/service/part"])
    def test_each_ancestor_bounds(self, machine: Machine, limited: str) -> None:
        machine.mount_v2()
        machine.groups = ["0::/slice/service/part"]
        machine.group("slice/service/part", memory_max="max", memory_current=0)
        machine.group(limited, memory_max=500 * MIB, memory_current=100 * MIB)
        assert machine.default() == 100 * MIB

    def test_a_group_beside_does_not_bound(self, machine: Machine) -> None:
        machine.memory(800 * MIB)
        machine.mount_v2()
        machine.groups = ["0::/service"]
        machine.group("other", memory_max=4 * MIB, memory_current=0)
        assert machine.default() == 200 * MIB

    def test_the_root_of_a_namespace(self, machine: Machine) -> None:
        """A process that was moved in from outside has a path that leads out of what is mounted."""
        machine.mount_v2()
        machine.groups = ["0::/../outside"]
        machine.group("", memory_max=400 * MIB, memory_current=0)
        assert machine.default() == 100 * MIB

    def test_group_v1(self, machine: Machine) -> None:
        machine.mount_v1()
        machine.groups = ["9:name=systemd:/x", "4:cpu,memory:/service", "0::/"]
        machine.group("", memory_limit_in_bytes=UNLIMITED_V1, memory_usage_in_bytes=5 * GIB)
        machine.group("service", memory_limit_in_bytes=500 * MIB, memory_usage_in_bytes=100 * MIB)
        assert machine.default() == 100 * MIB

    def test_group_v1_of_a_container_that_sees_the_hosts_path(self, machine: Machine) -> None:
        machine.mount_v1(root="/docker/0123")
        machine.groups = ["4:memory:/docker/0123"]
        machine.group("", memory_limit_in_bytes=500 * MIB, memory_usage_in_bytes=100 * MIB)
        assert machine.default() == 100 * MIB

    def test_pages_of_files_that_were_read_count_as_room(self, machine: Machine) -> None:
        machine.mount_v2()
        machine.groups = ["0::/service"]
        machine.group("service", memory_max=500 * MIB, memory_current=500 * MIB)
        assert machine.default() == 0
        machine.group("service", memory_stat=f"anon 5\ninactive_file {400 * MIB}\nactive_file 7")
        assert machine.default() == 100 * MIB

    def test_pages_of_files_of_the_whole_group_v1(self, machine: Machine) -> None:
        machine.mount_v1()
        machine.groups = ["4:memory:/service"]
        machine.group("service", memory_limit_in_bytes=500 * MIB, memory_usage_in_bytes=500 * MIB)
        machine.group("service", memory_stat=f"inactive_file 4096\ntotal_inactive_file {400 * MIB}")
        assert machine.default() == 100 * MIB

    def test_a_group_over_its_limit_leaves_nothing(self, machine: Machine) -> None:
        machine.mount_v2()
        machine.groups = ["0::/"]
        machine.group("", memory_max=4 * MIB, memory_current=5 * MIB)
        assert machine.default() == 0

    @pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this machine has no shared memory file system")
    def test_this_machine(self) -> None:
        status = os.statvfs("/dev/shm")
        assert 0 <= default_max_bytes("/dev/shm") <= min(4 * GIB, status.f_blocks * status.f_frsize // 4)
        mounts = list(_capacity.parse_mounts(Path("/proc/self/mountinfo").read_text()))
        assert _capacity.is_memory(mounts, os.stat("/dev/shm").st_dev)
        assert not _capacity.is_memory(mounts, os.stat("/proc").st_dev)


@on_linux
def test_a_file_system_without_blocks_is_neither_scarce_nor_bounded() -> None:
    """A tmpfs of unlimited size reports none, and so does /proc."""
    assert os.statvfs("/proc").f_blocks == 0
    assert _capacity.free_room("/proc") is None
    assert not scarce("/proc")
    assert default_max_bytes("/proc") == 4 * GIB


@on_linux
def test_scarce_is_less_than_an_eighth_free(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert scarce(tmp_path) == (status.f_bavail / status.f_blocks < 0.125)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0),
        (5, 5),
        (2**70, 2**70),
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("1kB", 1000),
        ("1 KiB", 1024),
        ("512MiB", 512 * MIB),
        ("512mib", 512 * MIB),
        (" 4 GiB ", 4 * GIB),
        ("1GB", 10**9),
        ("1.5GiB", 3 * GIB // 2),
        ("0.1 KiB", 102),
        ("2TB", 2 * 10**12),
        ("1TiB", 2**40),
    ],
)
def test_sizes(size: int | str, expected: int) -> None:
    assert parse_size(size) == expected


class Index:
    def __index__(self) -> int:
        return 7


def test_anything_that_is_an_integer_is_a_size() -> None:
    assert parse_size(Index()) == 7


@pytest.mark.parametrize(
    "size",
    [
        -1,
        True,
        False,
        "",
        "MiB",
        "-1",
        "-1MiB",
        "1 M",
        "1G",
        "1e3",
        "1,5GiB",
        "1.GiB",
        ".5GiB",
        "1 PiB",
        "1 MiB 2",
        "٣",
        "9" * 21,
    ],
)
def test_what_is_no_size_is_refused_with_the_right_forms(size: int | str) -> None:
    with pytest.raises(ValueError, match=r"'512MiB', '1\.5 GiB' or '1GB'"):
        parse_size(size)


@pytest.mark.parametrize("size", [1.0, None, b"1MiB", [1]])
def test_other_types_are_refused_the_same_way(size: object) -> None:
    with pytest.raises(ValueError, match="'512MiB'"):
        parse_size(size)


@given(st.integers(0, 10**15), st.sampled_from(["", "B", "kB", "KiB", "MB", "MiB", "GB", "GiB"]))
def test_a_whole_number_of_units_is_exact(number: int, unit: str) -> None:
    each = parse_size(f"1{unit}")
    assert parse_size(f"{number}{unit}") == number * each
    assert parse_size(f"{number}.5 {unit.lower()}") == number * each + each // 2


@pytest.mark.parametrize("size", [sys.maxsize, 1e30, float("inf")])
def test_a_limit_that_is_none_takes_the_place_of_an_earlier_one(tmp_path: Path, size: float) -> None:
    def decorated(maxsize: float) -> Any:
        return cache_batch_variable("items", store=tmp_path / "place", name="f", maxsize=maxsize)(lambda items: items)

    decorated(10)([1])
    unlimited = decorated(size)
    unlimited(list(range(50)))
    assert unlimited.cache_info()[:4] == (1, 50, None, 50)


@pytest.mark.parametrize("size", [1e30, 10**20, 10**400])
def test_a_limit_beyond_all_that_can_be_counted_is_none(tmp_path: Path, size: Any) -> None:
    options = {"maxsize": size, "max_bytes": int(size), "ttl": size, "wait_timeout": size}

    @cache_batch_variable("items", store=tmp_path / "place", name="endless", **options)
    def double(items: list[int]) -> list[int]:
        return [2 * item for item in items]

    assert double([1]) == double([1]) == [2]
    assert double.cache_info()[:3] == (1, 1, None)
