"""What names a place, and what makes its directory private."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from batche import _places
from batche._places import PlaceSpec, make_private_directory, named_place, path_place, resolve
from batche.errors import StoreError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a place needs POSIX files")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of shared memory, beside one in place of that for temporary files."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(_places, "SHARED_MEMORY", str(tmp_path / "memory"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    return tmp_path / "memory"


@pytest.fixture
def disk(memory: Path) -> Path:
    return memory.with_name("disk")


class TestResolve:
    def test_nothing_said_is_the_runtime_place(self) -> None:
        assert resolve(None, {}) == PlaceSpec("runtime")
        assert resolve(None, {"BATCHE_STORE": ""}) == PlaceSpec("runtime")

    def test_the_environment_is_asked_when_nothing_is_said(self) -> None:
        environ = {"BATCHE_STORE": "shm://shared"}
        assert resolve(None, environ) == PlaceSpec("shm", "shared", from_environment=True)
        assert resolve("off", environ) == PlaceSpec("off")

    @pytest.mark.parametrize(
        "store", ["/srv/entries", Path("/srv/entries"), PurePosixPath("/srv/entries"), "/srv/entries/"]
    )
    def test_a_path(self, store: str | os.PathLike[str]) -> None:
        assert resolve(store, {}) == PlaceSpec("path", "/srv/entries")

    @pytest.mark.parametrize("store", ["C:\\entries", "c:entries", "C:/entries", "a:b", "odd:name", "off/", "runtime"])
    def test_what_is_like_a_scheme_and_is_a_path(self, store: str) -> None:
        spec = resolve(store, {})
        assert spec.kind == "path"
        assert Path(spec.where) == Path.cwd() / store

    @pytest.mark.parametrize("store", ["http://host", "s3://bucket/key", "file:///srv", "sh://name", "://name2://"])
    def test_an_unknown_scheme_names_the_valid_ones(self, store: str) -> None:
        if store.startswith(":"):
            assert resolve(store, {}).kind == "path"
            return
        with pytest.raises(ValueError, match=r"unknown scheme .* 'shm://name' or 'off'"):
            resolve(store, {})

    @pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "unix", "REDIS"])
    def test_a_server_is_not_available(self, scheme: str) -> None:
        with pytest.raises(ValueError, match="not available in this version"):
            resolve(f"{scheme}://host:6379/0", {})

    @pytest.mark.parametrize("store", ["shm:name", "shm:/name", "SHM:name"])
    def test_a_scheme_without_its_slashes_is_told(self, store: str) -> None:
        with pytest.raises(ValueError, match="write 'shm://name'"):
            resolve(store, {})

    @pytest.mark.parametrize("name", ["a", "Shared-1", "v1.2_x", "0", "a" * 100])
    def test_a_name(self, name: str) -> None:
        assert resolve(f"shm://{name}", {}) == PlaceSpec("shm", name)

    @pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "é", "-x", "a\n", "a" * 101])
    def test_a_bad_name_is_told_what_a_name_is(self, name: str) -> None:
        with pytest.raises(ValueError, match="1 to 100"):
            resolve(f"shm://{name}", {})

    @pytest.mark.parametrize(
        ("spec", "text", "outlives"),
        [
            (PlaceSpec("runtime"), "the runtime place", False),
            (PlaceSpec("off"), "off", False),
            (PlaceSpec("path", "/srv"), "/srv", True),
            (PlaceSpec("shm", "name"), "shm://name", True),
        ],
    )
    def test_a_spec_is_named_as_its_user_would(self, spec: PlaceSpec, text: str, outlives: bool) -> None:
        assert str(spec) == text
        assert spec.outlives is outlives


class TestPathPlace:
    def test_the_home_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/somebody")
        assert path_place("~/entries") == Path("/home/somebody/entries")
        assert path_place(Path("~")) == Path("/home/somebody")

    def test_relative_to_the_directory_of_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        found = path_place("entries")
        monkeypatch.chdir("/")
        assert found == tmp_path / "entries"

    @pytest.mark.parametrize("path", ["", "a\0b", "~nobody-of-this-name/x"])
    def test_what_is_no_path(self, path: str) -> None:
        with pytest.raises(ValueError, match="store "):
            path_place(path)


class TestMakePrivateDirectory:
    def test_it_is_private_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            make_private_directory(tmp_path / "parent/place")
        finally:
            os.umask(before)
        assert (tmp_path / "parent/place").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "parent").stat().st_mode & 0o777 == 0o777

    def test_one_that_is_there_and_private_is_fine(self, tmp_path: Path) -> None:
        make_private_directory(tmp_path / "place")
        (tmp_path / "place/data").touch()
        make_private_directory(tmp_path / "place")
        assert (tmp_path / "place/data").exists()

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777, 0o500])
    def test_another_mode_is_refused_with_the_remedy(self, tmp_path: Path, mode: int) -> None:
        place = tmp_path / "place"
        place.mkdir()
        place.chmod(mode)
        with pytest.raises(StoreError, match="chmod 700") as raised:
            make_private_directory(place)
        assert raised.value.store == str(place)
        assert place.stat().st_mode & 0o777 == mode

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_symlink_is_refused(self, tmp_path: Path, exists: bool) -> None:
        target = tmp_path / "target"
        if exists:
            target.mkdir(0o700)
        (tmp_path / "place").symlink_to(target)
        with pytest.raises(StoreError, match="symbolic link"):
            make_private_directory(tmp_path / "place")
        assert target.exists() is exists

    def test_a_symlink_on_the_way_is_fine(self, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "target")
        make_private_directory(tmp_path / "link/place")
        assert (tmp_path / "target/place").is_dir()

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="not a directory"):
            make_private_directory(tmp_path / "file")
        with pytest.raises(StoreError, match="cannot be made"):
            make_private_directory(tmp_path / "file/place")

    @pytest.mark.may_skip("only root can give a directory away")
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_another_users_directory_is_refused(self, tmp_path: Path) -> None:
        place = tmp_path / "place"
        place.mkdir(0o700)
        os.chown(place, 12345, 12345)
        with pytest.raises(StoreError, match="belongs to user 12345"):
            make_private_directory(place)

    def test_a_refusal_closes_what_it_opened(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        with pytest.raises(StoreError):
            make_private_directory(tmp_path)
        free = os.open(tmp_path, os.O_RDONLY)
        os.close(free)
        with pytest.raises(StoreError):
            make_private_directory(tmp_path)
        again = os.open(tmp_path, os.O_RDONLY)
        os.close(again)
        assert again == free

    def test_many_at_once(self, tmp_path: Path) -> None:
        start = threading.Barrier(8)

        def make(_: int) -> None:
            start.wait()
            make_private_directory(tmp_path / "a/b/place")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(make, range(8)))
        assert (tmp_path / "a/b/place").is_dir()


class TestNamedPlace:
    def test_it_is_made_in_shared_memory_once(self, memory: Path) -> None:
        place = named_place("name")
        assert place.parent == memory
        assert str(os.geteuid()) in place.name
        assert place.stat().st_mode & 0o777 == 0o700
        assert named_place("name") == place
        assert list(memory.iterdir()) == [place]

    def test_names_are_places_of_their_own(self, memory: Path) -> None:
        assert named_place("one") != named_place("two")

    def test_a_bad_name(self, memory: Path) -> None:
        with pytest.raises(ValueError, match="1 to 100"):
            named_place("../x")

    def test_one_on_disk_is_found_when_shared_memory_has_come_later(self, memory: Path, disk: Path) -> None:
        memory.rmdir()
        place = named_place("name")
        memory.mkdir()
        assert place.parent == disk
        assert named_place("name") == place

    def test_where_shared_memory_is_short_of_room(
        self, memory: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_places, "ROOM_FOR_A_PLACE", 2**62)
        assert named_place("name").parent == disk

    def test_a_place_of_that_name_that_others_can_write_is_refused(self, memory: Path) -> None:
        named_place("name").chmod(0o777)
        with pytest.raises(StoreError, match="chmod 700"):
            named_place("name")

    def test_nowhere_to_make_it(self, memory: Path, disk: Path) -> None:
        memory.rmdir()
        disk.rmdir()
        with pytest.raises(StoreError, match="TMPDIR"):
            named_place("name")

    def test_makers_wait_for_one_another_and_agree(self, memory: Path, disk: Path) -> None:
        """Whoever enters the gate next finds what the one before it has made, in the other root too."""
        with ThreadPoolExecutor(1) as pool, _places.sole_maker("batche-shm-test"):
            (gate,) = memory.iterdir()
            later = pool.submit(self.enter, "batche-shm-test")
            assert _places.hold(gate, fcntl.LOCK_EX) is None
            (disk / "made").mkdir()
        assert later.result() == [disk / "made"]
        assert list(memory.iterdir()) == []

    @staticmethod
    def enter(name: str) -> list[Path]:
        with _places.sole_maker(name):
            return [path for root in _places.roots() for path in root.iterdir() if path.name == "made"]

    def test_a_maker_that_never_ends_is_not_waited_for_for_ever(
        self, memory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_places, "MAKER_PATIENCE", 0.02)
        with _places.sole_maker("name"), pytest.raises(StoreError, match="another process"), _places.sole_maker("name"):
            pass
        assert list(memory.iterdir()) == []


class TestHold:
    def test_a_file_that_was_replaced_is_not_held(self, tmp_path: Path) -> None:
        """One process opens the file, another replaces it, and only then the first gets its lock."""
        path = tmp_path / "lock"
        directory = tmp_path / "retired"
        directory.mkdir()
        (directory / "lock").touch()
        path.touch()
        opened = os.open(directory, os.O_RDONLY)
        try:
            assert _places.hold(path, fcntl.LOCK_SH, directory=opened) is None
        finally:
            os.close(opened)

    def test_it_does_not_follow_a_symlink(self, tmp_path: Path) -> None:
        (tmp_path / "target").touch()
        (tmp_path / "lock").symlink_to(tmp_path / "target")
        with pytest.raises(OSError, match="lock"):
            _places.hold(tmp_path / "lock", fcntl.LOCK_SH)

    def test_shared_holders_exclude_an_exclusive_one(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        path.touch()
        held = [_places.hold(path, fcntl.LOCK_SH) for _ in range(2)]
        assert None not in held
        assert _places.hold(path, fcntl.LOCK_EX) is None
        for descriptor in held:
            os.close(descriptor or -1)
        last = _places.hold(path, fcntl.LOCK_EX)
        assert last is not None
        os.close(last)


SMALL_SHARED_MEMORY = """
mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 77
exec "$0" -c "from batche import _places; print(_places.named_place('small').parent)"
"""


@pytest.mark.may_skip("mounting needs a user namespace, which a machine may forbid")
def test_a_real_small_shared_memory_is_passed_over(tmp_path: Path) -> None:
    """Docker's is 64 MB."""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", SMALL_SHARED_MEMORY, sys.executable]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode in (1, 77) and "batche" not in done.stderr:
        pytest.skip(f"cannot mount: {done.stderr}")
    assert done.stdout.strip() == str(tmp_path), done.stderr
