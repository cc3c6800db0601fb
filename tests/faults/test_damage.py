"""Damaged files: the answer is right, it is told once, what was there is set aside, and caching goes on."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import itertools
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batche import LmdbStore
from batche.errors import StoreError
from batche.stores.lmdb import pages
from batche.stores.lmdb.place import open_place
from batche.stores.lmdb.records import DOMAIN, ENTRY, GLOBAL, NAMESPACE
from tests.faults import _damage
from tests.faults._damage import ANYWHERE, Doubling, Injection, environment_of, fill, replace, set_aside
from tests.processes._tools import exit_status, fork, until
from tests.stores._driving import contents, recount, server, use

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a place needs POSIX file locks")

CONTENT: dict[str, list[Injection]] = {
    "format": [_damage.empty, _damage.garbage, _damage.cut, _damage.other_format, _damage.swapped],
    "data.mdb": [_damage.empty, _damage.garbage, _damage.zeroes, _damage.cut, _damage.swapped],
    "lock.mdb": [_damage.empty, _damage.cut],
    "slots": [_damage.empty, _damage.garbage, _damage.zeroes, _damage.cut, _damage.swapped],
    "counts": [_damage.empty, _damage.garbage, _damage.zeroes, _damage.cut, _damage.swapped],
    "gate": [],
}
DAMAGE = [(name, inject) for name, content in CONTENT.items() for inject in (*ANYWHERE, *content)]
HARMLESS = [
    ("lock.mdb", _damage.garbage),  # nobody has it open, so the first to open it begins it anew
    ("lock.mdb", _damage.swapped),
    ("gate", _damage.empty),
    ("gate", _damage.garbage),
    ("gate", _damage.swapped),
]
WORKERS = [
    *[(name, inject) for name in ("workers", "workers.lock") for inject in ANYWHERE],
    ("workers", _damage.empty),
    ("workers", _damage.cut),
]


def named(value: object) -> str:
    return getattr(value, "__name__", str(value))


def warnings(caplog: pytest.LogCaptureFixture, directory: Path) -> list[str]:
    """What was told of stores in ``directory``: those of earlier tests may be looked after still."""
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [message for message in told if str(directory) in message]


def digests(directory: Path) -> dict[str, str]:
    """What is in each file of an environment, but for LMDB's lock file, which says who has it open."""
    return {
        path.name: hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.is_file() and not path.is_symlink() and path.name != "lock.mdb"
    }


# ---- found when it is opened ----


@pytest.mark.parametrize(("name", "inject"), DAMAGE, ids=named)
def test_a_damaged_environment_is_set_aside(
    name: str, inject: Injection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    environment = fill(place, 1, 2, 3)
    inject(environment / name)
    before = digests(environment)
    doubling = Doubling(place)
    assert not doubling(1, 2, 3)
    assert doubling(3, 2, 1)
    assert set_aside(place) == ["damaged-1"]
    assert digests(environment.with_name(f"{environment.name}.damaged-1")) == before
    (warning,) = warnings(caplog, tmp_path)
    assert "damaged-1, which you may delete" in warning
    assert Doubling(place)(1, 2, 3)


@pytest.mark.parametrize(("name", "inject"), HARMLESS, ids=named)
def test_what_does_no_harm_is_used(
    name: str, inject: Injection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    inject(fill(place, 1, 2, 3) / name)
    assert Doubling(place)(1, 2, 3)
    assert warnings(caplog, tmp_path) == []


@pytest.mark.parametrize(("name", "inject"), WORKERS, ids=named)
def test_a_damaged_table_of_workers_costs_no_entries(
    name: str, inject: Injection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    fill(place, 1, 2, 3)
    inject(place / name)
    doubling = Doubling(place)
    assert doubling(1, 2, 3)
    assert not doubling(4)
    assert doubling.function.cache_info()[:2] == (3, 4)
    assert len(warnings(caplog, tmp_path)) == 1
    assert set(set_aside(place)) == {"damaged-1"}


def test_garbage_in_the_table_of_workers_is_nobodys_row(tmp_path: Path) -> None:
    place = tmp_path / "place"
    fill(place, 1)
    _damage.garbage(place / "workers")
    doubling = Doubling(place)
    assert doubling(1)
    assert not doubling(2)


def test_strict_raises_once_and_says_where_it_is(tmp_path: Path) -> None:
    place = tmp_path / "place"
    _damage.garbage(fill(place, 1) / "data.mdb")
    doubling = Doubling(place, strict=True)
    with pytest.raises(StoreError, match=r"data\.mdb is damaged.* set aside as \w+\.damaged-1, which you may delete"):
        doubling(1)
    assert not doubling(1)
    assert doubling(1)


def test_only_the_last_that_was_set_aside_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for _ in range(4):
        (fill(place, 1) / "slots").unlink()
    fill(place, 1)
    assert set_aside(place) == ["damaged-4"]


def test_a_shared_store_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "place"
    assert exit_status(fork(lambda: use(LmdbStore(place), range(5)).__len__() - 5)) == 0
    _damage.cut(place / "store" / "data.mdb")
    store = LmdbStore(place)
    assert use(store, range(5)) == [0, 1, 2, 3, 4]
    assert use(store, range(5)) == []
    assert len(warnings(caplog, tmp_path)) == 1


def test_an_environment_that_is_no_directory_is_set_aside(tmp_path: Path) -> None:
    place = tmp_path / "place"
    environment = fill(place, 1)
    moved = environment.rename(tmp_path / "moved")
    for put in (lambda: environment.write_bytes(b"x"), lambda: environment.symlink_to(moved)):
        put()
        doubling = Doubling(place)
        assert not doubling(1)
        assert doubling(1)
        shutil.rmtree(environment)
        del doubling
        gc.collect()
    assert (moved / "data.mdb").exists()


def test_a_format_in_use_by_another_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "place"
    environment = fill(place, 1)
    with server(LmdbStore, tmp_path / "place", way="fork") as other:
        other.do(use, [1])
        _damage.other_format(environment / "format")
        doubling = Doubling(place)
        assert not doubling(1)
        assert not doubling(1)
        assert set_aside(place) == []
        (warning,) = warnings(caplog, tmp_path)
        assert "format 99), which is using it: upgrade" in warning


def test_several_processes_that_find_the_damage_at_once_set_it_aside_once(tmp_path: Path) -> None:
    """All have found it before the first of them may do something about it."""
    place = tmp_path / "place"
    _damage.garbage(fill(place, 1) / "slots")
    reading, writing = os.pipe()

    def find() -> int:
        told: list[str] = []

        def tell(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and not told and str(arguments[0]).endswith("making.lock"):
                told.append(event)
                os.write(writing, b"x")

        sys.addaudithook(tell)
        doubling = Doubling(place)
        doubling(1)
        return int(not doubling(1))

    with open(place / "making.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        children = [fork(find) for _ in range(4)]
        for _ in children:
            assert os.read(reading, 1) == b"x"
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert [exit_status(child) for child in children] == [0] * 4
    assert set_aside(place) == ["damaged-1"]
    os.close(reading)
    os.close(writing)


# ---- LMDB's file ----


def churn(path: Path, seed: int) -> LmdbStore:
    """A store in which much was written and removed."""
    store = LmdbStore(path, max_bytes="2MiB")
    chance = random.Random(seed)
    for _ in range(40):
        use(store, [chance.randrange(500) for _ in range(60)], size=chance.choice([10, 700, 3000, 20_000]))
    return store


@pytest.mark.parametrize("seed", range(4))
def test_a_whole_file_is_never_taken_for_damaged_while_it_is_written(tmp_path: Path, seed: int) -> None:
    store = churn(tmp_path / "p", seed)
    directory = os.open(store._opened.path, os.O_RDONLY)
    chance = random.Random(seed)
    try:
        for _ in range(60):
            use(store, [chance.randrange(900) for _ in range(chance.randrange(1, 90))], size=chance.randrange(4000))
            assert pages.check(directory, "data.mdb") is None
    finally:
        os.close(directory)


def test_a_file_that_lacks_free_pages_is_whole(tmp_path: Path) -> None:
    """LMDB counts pages that it freed before the commit, and does not write them."""
    place = tmp_path / "place"
    data = fill(place, *range(3000), maxsize=10) / "data.mdb"
    heads = data.read_bytes()[:8192]
    last = max(int.from_bytes(heads[at : at + 8], sys.byteorder) for at in (136, 4096 + 136))
    assert data.stat().st_size < (last + 1) * 4096, "this version of LMDB writes all pages"
    assert Doubling(place, maxsize=10)(2999)
    assert set_aside(place) == []


@pytest.mark.parametrize("lacking", [1, 4095, 4096, 40_000])
def test_a_file_that_was_cut_is_told_before_it_is_mapped(tmp_path: Path, lacking: int) -> None:
    place = tmp_path / "place"
    data = fill(place, *range(3000)) / "data.mdb"
    replace(data, data.read_bytes()[:-lacking])
    doubling = Doubling(place)
    whole = doubling(*range(3000))
    assert set_aside(place) == ([] if whole else ["damaged-1"]), "what it lacks was free, or it is told"
    assert not (whole and lacking > 8192)


# ---- bits flipped in records ----


def flip(path: Path, record: bytes, position: int) -> None:
    """Flip a bit of the one place in a file that holds ``record``, under the eyes of those who have it mapped."""
    content = path.read_bytes()
    places = [at for at in range(len(content)) if content.startswith(record, at)]
    assert places
    descriptor = os.open(path, os.O_RDWR)
    try:
        for at in places:
            os.pwrite(descriptor, bytes([record[position] ^ 0x10]), at + position)
    finally:
        os.close(descriptor)


def record_of(store: LmdbStore, prefix: bytes) -> bytes:
    """The bytes under the first key with ``prefix``."""

    def first(transaction: object) -> bytes:
        cursor = transaction.cursor()  # type: ignore[attr-defined]  # LMDB's, which has no types
        assert cursor.set_range(prefix)
        assert cursor.key().startswith(prefix)
        return bytes(cursor.value())

    return store._opened.lmdb.read(first)


def test_an_entry_with_any_flipped_bit_is_recomputed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "p")
    use(store, [1])
    size = len(record_of(store, ENTRY))
    for position in range(4, size):  # the first four bytes are the slot: without them it stays out of use
        flip(store._opened.path / "data.mdb", record_of(store, ENTRY), position)
        assert contents(store, [1]) == set(), position
        assert use(store, [1]) == [1]
        assert use(store, [1]) == []
        assert sum(recount(store).values()) == 1


def test_an_entry_whose_slot_is_flipped_is_recomputed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "p")
    for position in range(4):
        use(store, [1])
        flip(store._opened.path / "data.mdb", record_of(store, ENTRY), position)
        assert use(store, [1]) == [1]
        assert use(store, [1]) == []


@pytest.mark.parametrize("prefix", [GLOBAL, DOMAIN, NAMESPACE], ids=["global", "domain", "namespace"])
def test_a_flipped_record_that_all_depend_on_ends_the_environment(
    prefix: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    doubling = Doubling(place)
    doubling(1)
    doubling.function.cache_clear()  # writes a namespace's record
    doubling(1)
    store = doubling.function.store
    assert isinstance(store, LmdbStore)
    flip(store._opened.path / "data.mdb", record_of(store, prefix), 3)
    until(lambda: set_aside(place) == ["damaged-1"] or doubling(random.randrange(1 << 60)), "it is set aside")
    assert not doubling(1)
    assert doubling(1)
    assert len(warnings(caplog, tmp_path)) <= 2


# ---- found while it is open ----


def damage_root(store: LmdbStore) -> None:
    """Clear the flags of the root of LMDB's tree of records."""
    data = store._opened.path / "data.mdb"
    descriptor = os.open(data, os.O_RDWR)
    try:
        heads = [pages._head(descriptor, at) for at in (0, 4096)]
        root = max(head for head in heads if head is not None).records
        os.pwrite(descriptor, bytes(2), root * 4096 + 10)
    finally:
        os.close(descriptor)


def test_what_lmdb_finds_corrupted_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "place"
    doubling = Doubling(place)
    doubling(1)
    damage_root(doubling.function.store)  # type: ignore[arg-type]  # it is an LmdbStore
    assert not doubling(1)
    assert "Corrupted" in warnings(caplog, tmp_path)[0]
    until(lambda: doubling(1), "caching resumes")
    assert set_aside(place) == ["damaged-1"]


def test_strict_raises_what_lmdb_finds_corrupted(tmp_path: Path) -> None:
    doubling = Doubling(tmp_path / "place", strict=True)
    doubling(1)
    damage_root(doubling.function.store)  # type: ignore[arg-type]  # it is an LmdbStore
    with pytest.raises(StoreError, match="damaged"):
        doubling(1)


def remove_place(place: Path) -> None:
    shutil.rmtree(place)


def remove_environment(place: Path) -> None:
    shutil.rmtree(environment_of(place))


def move_place(place: Path) -> None:
    place.rename(place.with_name("moved"))


def replace_place(place: Path) -> None:
    """Another store takes the place of this one."""
    other = place.with_name("another")
    fill(other, 100)
    move_place(place)
    other.rename(place)


def replace_file(name: str) -> Injection:
    def replace_it(place: Path) -> None:
        path = environment_of(place) / name
        replace(path, path.read_bytes())

    replace_it.__name__ = f"replace_{name}"
    return replace_it


def remove_file(name: str) -> Injection:
    def remove_it(place: Path) -> None:
        (environment_of(place) / name).unlink()

    remove_it.__name__ = f"remove_{name}"
    return remove_it


OPEN = [
    remove_place,
    remove_environment,
    move_place,
    replace_place,
    *[change(name) for change in (replace_file, remove_file) for name in CONTENT],
]
OPEN_ELSEWHERE = [
    remove_place,
    remove_environment,
    replace_place,
    replace_file("data.mdb"),
    replace_file("slots"),
    remove_file("lock.mdb"),
]


@pytest.mark.parametrize("inject", OPEN, ids=named)
def test_what_is_taken_away_while_it_is_open_is_noticed(
    inject: Injection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    doubling = Doubling(place)
    doubling(1)
    inject(place)
    until(lambda: not doubling(1), "it is noticed", seconds=8)
    assert doubling(1)
    assert exit_status(fork(lambda: int(not Doubling(place)(1)))) == 0, "others find what is stored now"
    store = doubling.function.store
    assert isinstance(store, LmdbStore)
    assert open_place(place) is store._opened.place, "two tables of one process would give out the same rows"
    assert len(warnings(caplog, tmp_path)) == 1


@pytest.mark.parametrize("inject", [remove_place, remove_environment, replace_file("data.mdb")], ids=named)
def test_strict_raises_when_it_is_taken_away(inject: Injection, tmp_path: Path) -> None:
    doubling = Doubling(tmp_path / "place", strict=True)
    doubling(1)
    inject(tmp_path / "place")
    with pytest.raises(StoreError, match="while in use"):
        until(lambda: not doubling(1), "it raises", seconds=8)
    assert not doubling(1)
    assert doubling(1)


@contextmanager
def another_process(place: Path) -> Iterator[Callable[..., bool]]:
    with server(Doubling, place, way="fork") as other:
        yield lambda *items: bool(other.do(Doubling.__call__, *items))


@pytest.mark.parametrize("inject", OPEN_ELSEWHERE, ids=named)
def test_processes_that_have_it_open_meet_again(inject: Injection, tmp_path: Path) -> None:
    place = tmp_path / "place"
    doubling = Doubling(place)
    doubling(1)
    with another_process(place) as another:
        assert another(1)
        inject(place)
        until(lambda: not doubling(1), "this process notices", seconds=8)
        numbers = itertools.count(2)

        def meet() -> bool:
            number = next(numbers)
            return not another(number) and doubling(number)

        until(meet, "they share one again", seconds=8)
        assert len(set(set_aside(place))) <= 1


@pytest.mark.parametrize("name", ["workers", "workers.lock"])
def test_another_table_of_workers_is_taken_over(name: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    doubling = Doubling(place)
    doubling(1)
    with another_process(place) as another:
        assert another(1)
        (place / name).unlink()
        store = doubling.function.store
        assert isinstance(store, LmdbStore)
        before = store._opened.workers.token
        workers, numbers = store._opened.workers, itertools.count(2)
        until(lambda: doubling(1) and workers.token != before, "this process notices", seconds=8)
        until(lambda: not another(next(numbers)) and workers.others_live(), "the other has a row in it too", seconds=8)
        assert not doubling(10**6)
        assert another(1, 10**6)


def test_an_invalidation_reaches_what_has_taken_the_place(tmp_path: Path) -> None:
    place = tmp_path / "place"
    doubling = Doubling(place)
    doubling(1)
    remove_place(place)
    fill(place, 1)
    assert doubling.function.cache_invalidate([1]) == 1
    assert not Doubling(place)(1)


# ---- what says nothing about the files ----


def test_nothing_is_set_aside_because_no_descriptor_is_left(tmp_path: Path) -> None:
    place = tmp_path / "place"
    fill(place, 1)

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for left in range(12):
            assert Doubling(place).function([1]) == [2], left
            os.close(taken.pop())
        return 0

    assert exit_status(fork(work)) == 0
    assert set_aside(place) == []
    assert Doubling(place)(1)


# ---- what cannot be set aside ----


READ_ONLY = """
import logging, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.faults._damage import Doubling
logging.basicConfig(format="%(message)s", stream=sys.stdout)
doubling = Doubling(Path({place!r}))
print(doubling(1), doubling(1))
try:
    Doubling(Path({place!r}), strict=True)(1)
except OSError as error:
    print("strict:", error)
"""


def run_read_only(place: Path) -> list[str]:
    """What a process prints that uses ``place`` on a file system that it cannot write to."""
    program = READ_ONLY.format(path=sys.path, place=str(place))
    mount = f'mount --bind {place} {place} && mount -o remount,ro,bind {place} {place} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts, and Linux has namespaces")
@pytest.mark.may_skip
def test_a_read_only_file_system_is_told_and_not_used(tmp_path: Path, damaged: bool) -> None:
    place = tmp_path / "place"
    environment = fill(place, 1)
    if damaged:
        _damage.garbage(environment / "slots")
    warning, answers, strict = run_read_only(place)
    assert answers == "False False"
    assert "Read-only file system" in warning
    assert "Read-only file system" in strict
    assert set_aside(place) == []
