"""A crash of the operating system: what was written to the disk before it is kept only where it is known to be whole.

A crash is every process killed and another boot identity. A process of this file that is given a boot has opened
nothing before; the page cache, which a real crash loses, is there still: so these tests show what is trusted, and the
order in which the disk is told.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batche import _boot
from batche._places import PlaceSpec
from batche._runtime import open_place as directory_of
from batche._types import Call
from batche.errors import StoreError
from batche.stores.lmdb import LmdbStore, mark, place, slots, words
from batche.stores.lmdb.mark import CLEAN, DURABLE
from batche.stores.lmdb.upkeep import Limits
from tests.stores._driving import NAMESPACE, Server, contents, keys, recount, server, use, wait_until

SOON = 0.05
HEADER = slots.HEADER_WORDS * 8
ONE_CHUNK = HEADER + 3 * slots.CHUNK * 8
"""Bytes of the header of a slot table, and of the smallest table."""


def boot_into(directory: Path, boot: int, *, clock: bool = False) -> None:
    """Have this process take the system to be in another boot; with ``clock``, in one that began just now."""
    file = directory / f"boot-{boot}"
    file.write_text(str(uuid.UUID(int=boot << 70)))
    _boot.BOOT_ID = str(file)
    if clock:
        for module in [module for name, module in sys.modules.items() if name.startswith("batche.")]:
            if hasattr(module, "boot_ns"):
                setattr(module, "boot_ns", time.process_time_ns)  # noqa: B010  # as after a boot it is near zero


def opened_in(directory: Path, boot: int, options: dict[str, Any]) -> LmdbStore:
    boot_into(directory, boot, clock=options.pop("clock", False))
    place.IDLE = options.pop("idle", 60.0)  # type: ignore[misc]  # tests wait for what it does, not for it
    return LmdbStore(directory / "s", **options)


@contextmanager
def in_boot(directory: Path, boot: int, **options: Any) -> Iterator[Server]:
    """A process of ``boot`` that has the store open; it is killed at the end."""
    with server(opened_in, directory, boot, options) as opened:
        yield opened


def run_in_boot(directory: Path, boot: int, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Have a process of ``boot`` do something with the store, and end by itself."""
    process = multiprocessing.get_context("spawn").Process(
        target=_do, args=(directory, boot, options, function, *arguments)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    process.close()


def _do(directory: Path, boot: int, options: dict[str, Any], function: Callable[..., Any], *arguments: Any) -> None:
    function(opened_in(directory, boot, options), *arguments)


def sync(store: LmdbStore) -> None:
    store.sync()


def close(store: LmdbStore) -> None:
    store.close()


def said(store: LmdbStore, directory: Path, boot: int) -> list[str]:
    """What opening the store anew logs, in a process that has not opened it in this boot."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]  # kept here
    logging.getLogger("batche").addHandler(handler)
    boot_into(directory, boot)
    contents(LmdbStore(directory / "other"), [1])
    contents(LmdbStore(directory / "s"), [1])
    return records


def state(directory: Path) -> bytes:
    return mark.read(directory / "s" / "store")


def is_kept(directory: Path, boot: int, numbers: list[int]) -> bool:
    """Whether a process of ``boot`` finds all of them; `False` where it finds none and the store works."""
    with in_boot(directory, boot) as other:
        found = other.do(contents, numbers)
        assert found in (set(numbers), set()), f"half of it is there: {found}"
        assert other.do(use, numbers) == [number for number in numbers if number not in found]
        assert other.do(recount) == Counter({bytes(8): len(numbers)})
    return bool(found)


# ---- writers that were killed ----


def test_after_its_writers_were_killed_a_store_is_kept_in_the_same_boot(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1, 2, 3])
    assert state(tmp_path) == b""
    assert is_kept(tmp_path, 1, [1, 2, 3])


def test_after_its_writers_were_killed_a_store_starts_empty_in_another_boot(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1, 2, 3])
        (tmp_path / "s" / "store" / "old").touch()
    assert not is_kept(tmp_path, 2, [1, 2, 3])
    assert not (tmp_path / "s" / "store" / "old").exists()
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"store", "workers", "workers.lock", "making.lock"}


def test_one_warning_says_that_a_store_starts_empty(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1])
    with server(opened_nothing, tmp_path) as other:
        messages = other.do(said, tmp_path, 2)
        assert other.do(said, tmp_path, 2) == []
    assert len(messages) == 1
    assert str(tmp_path / "s" / "store") in messages[0]
    assert "starts empty" in messages[0]
    assert "durable=True" in messages[0]


def opened_nothing(directory: Path) -> None:
    """A process that has opened nothing."""


def test_a_store_that_another_process_uses_was_not_there_before_a_crash(tmp_path: Path) -> None:
    """A process that cannot tell the boot as others do must not take their store away."""
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1])
        with in_boot(tmp_path, 2) as other:
            assert other.do(contents, [1]) == {1}


def test_a_store_without_a_whole_header_of_its_table_is_not_trusted(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1])
    os.truncate(tmp_path / "s" / "store" / "slots", 16)
    assert slots.boot_of(tmp_path / "s" / "store") == 0
    assert not is_kept(tmp_path, 2, [1])


# ---- who makes the mark ----


def test_the_last_process_to_leave_makes_the_mark(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as other:
        other.do(use, [1])
        run_in_boot(tmp_path, 1, use, [1, 2])
        assert state(tmp_path) == b""
    run_in_boot(tmp_path, 1, use, [3])
    assert state(tmp_path) == CLEAN
    assert is_kept(tmp_path, 2, [1, 2, 3])


def test_of_two_that_leave_together_one_makes_the_mark(tmp_path: Path) -> None:
    """One that is about to end does not count as staying."""
    with in_boot(tmp_path, 1) as other:
        other.do(use, [1])
        other.do(leave_but_stay)
        (tmp_path / "s" / "store" / "mark").unlink()
        other.do(forget_the_mark)
        run_in_boot(tmp_path, 1, use, [1])
        assert state(tmp_path) == CLEAN


def leave_but_stay(store: LmdbStore) -> None:
    place.leave()


def forget_the_mark(store: LmdbStore) -> None:
    store._opened.slots.written = _boot.boot_identity()


def test_sync_makes_the_mark_and_reading_leaves_it(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1, 2])
        writer.do(sync)
        assert writer.do(use, [1, 2]) == []
        assert state(tmp_path) == CLEAN
        with in_boot(tmp_path, 1) as reader:
            assert reader.do(use, [1, 2]) == []
            assert reader.do(hits) == 2 + 2
    assert state(tmp_path) == CLEAN
    with in_boot(tmp_path, 2) as reader:
        assert reader.do(use, [1]) == []
    assert is_kept(tmp_path, 3, [1, 2])


def hits(store: LmdbStore) -> int:
    return store.stats(NAMESPACE).hits


def test_a_reader_that_states_another_limit_has_it_written_down(tmp_path: Path) -> None:
    run_in_boot(tmp_path, 1, use, [1, 2])
    with in_boot(tmp_path, 1, maxsize=1) as reader:
        reader.do(contents, [1])
        assert reader.do(limit) == 1
    assert state(tmp_path) == b""


def limit(store: LmdbStore) -> int | None:
    return store.stats(NAMESPACE).maxsize


def test_many_readers_do_not_leave_their_lanes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batche.stores.lmdb.upkeep._MOST_LANES", 0)
    run_in_boot(tmp_path, 1, use, [1])
    store = opened_here(tmp_path, 1, monkeypatch)
    use(store, [1])
    assert state(tmp_path) == b""
    assert len([lane for lane in store._opened.lanes.all() if lane.counts[1]]) == 0
    store.close()


def opened_here(directory: Path, boot: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> LmdbStore:
    """A store that this process has open, in another boot until the end of the test."""
    monkeypatch.setattr(_boot, "BOOT_ID", _boot.BOOT_ID)
    monkeypatch.setattr(place, "IDLE", 60.0)
    return opened_in(directory, boot, options)


def test_a_process_that_only_tells_its_counts_keeps_what_an_earlier_boot_has_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no turn at its first use after the boot, and has let go of the store when it leaves."""
    store = opened_here(tmp_path, 1, monkeypatch)
    use(store, [1])
    sync(store)
    store.close()
    del store
    store = opened_here(tmp_path, 2, monkeypatch)
    with ThreadPoolExecutor(1) as other:
        other.submit(store._opened.lmdb._turn.acquire).result()
        assert contents(store, [1]) == {1}
        store.release(Call((0, 0), 0, NAMESPACE), counts={"hits": 1})
        other.submit(store._opened.lmdb._turn.release).result()
    del store
    place.leave()
    assert contents(opened_here(tmp_path, 2, monkeypatch), [1]) == {1}


def test_what_was_written_after_a_sync_and_all_with_it_is_not_trusted(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1])
        writer.do(sync)
        writer.do(use, [2])
        assert state(tmp_path) == b""
    assert not is_kept(tmp_path, 2, [1, 2])


def test_closing_makes_the_mark(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1) as writer:
        writer.do(use, [1])
        writer.do(close)
        assert state(tmp_path) == CLEAN
        writer.do(use, [2])
        assert state(tmp_path) == b""
        writer.do(close)
    assert is_kept(tmp_path, 2, [1, 2])


def test_an_idle_writer_makes_the_mark(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1, idle=SOON) as writer:
        writer.do(use, [1])
        wait_until(lambda: state(tmp_path) == CLEAN, "the mark")
        writer.do(use, [2])
        wait_until(lambda: state(tmp_path) == CLEAN, "the mark once more")
    assert is_kept(tmp_path, 2, [1, 2])


def test_where_the_idle_writer_died_another_process_makes_the_mark(tmp_path: Path) -> None:
    """One that has only read, and before anything was written."""
    run_in_boot(tmp_path, 1, use, [1])
    with in_boot(tmp_path, 1, idle=SOON) as reader:
        assert reader.do(use, [1]) == []
        with in_boot(tmp_path, 1) as writer:
            writer.do(use, [2])
        wait_until(lambda: state(tmp_path) == CLEAN, "the mark")
    assert is_kept(tmp_path, 2, [1, 2])


def test_the_mark_of_a_store_that_its_process_dropped_is_made_too(tmp_path: Path) -> None:
    with server(drop_a_store, tmp_path) as other:
        assert other.do(open_files, tmp_path) == []
        wait_until(lambda: state(tmp_path) == CLEAN, "the mark")
        assert other.do(threads) == ["MainThread"]
    assert is_kept(tmp_path, 2, [1])


def drop_a_store(directory: Path) -> None:
    use(opened_in(directory, 1, {"idle": 1.0}), [1])


def open_files(_: None, directory: Path) -> list[str]:
    links = [
        os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if entry.name.isdigit() and _is_there(entry)
    ]
    return [link for link in links if link.startswith(str(directory / "s" / "store"))]


def _is_there(entry: os.DirEntry[str]) -> bool:
    return os.path.lexists(entry.path)


def threads(_: object) -> list[str]:
    """The threads of this process, once the keeper has no more to do."""
    wait_until(lambda: threading.active_count() == 1, "the end of the keeper")
    return [thread.name for thread in threading.enumerate()]


# ---- the order of things ----


def name_of(descriptor: int) -> str:
    """The name of an open file."""
    return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name


def test_nothing_is_written_before_the_removal_of_the_mark_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened_here(tmp_path, 1, monkeypatch)
    use(store, [1])
    store.sync()
    environment = tmp_path / "s" / "store"
    steps: list[str] = []
    synced = words.sync

    def note(descriptor: int) -> None:
        steps.append(f"sync {name_of(descriptor)}, {'marked' if state(tmp_path) else 'unmarked'}")
        synced(descriptor)

    def body(transaction: Any) -> None:
        steps.append("write")

    monkeypatch.setattr(mark, "sync", note)
    store._opened.lmdb.write(body, after=lambda _: None)
    store._opened.lmdb.write(body, after=lambda _: None)
    assert steps == [f"sync {environment.name}, unmarked", "write", "write"]
    store.close()


@pytest.mark.parametrize("durable", [False, True])
def test_what_the_disk_does_not_take_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    store = opened_here(tmp_path, 1, monkeypatch, durable=durable)
    use(store, [1])
    store.sync()
    with monkeypatch.context() as patched:
        patched.setattr(words, "sync", fail)
        patched.setattr(mark, "sync", fail)
        for _ in range(2):
            with pytest.raises(StoreError, match="tried"):
                use(store, [2])
        (tmp_path / "s" / "store" / "mark").unlink(missing_ok=True)  # else the next sync has nothing to do
        with pytest.raises(StoreError, match="tried"):
            store.sync()
    assert contents(store, [1, 2]) == {1}
    assert use(store, [2]) == [2]
    assert state(tmp_path) == (DURABLE if durable else b"")
    store.close()


def fail(descriptor: int) -> None:
    raise OSError(5, "tried")


def test_the_mark_is_made_only_after_everything_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened_here(tmp_path, 1, monkeypatch)
    use(store, [1])
    synced: list[tuple[str, bytes]] = []
    real = words.sync

    def note(descriptor: int) -> None:
        synced.append((name_of(descriptor), state(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(words, "sync", note)
    monkeypatch.setattr(mark, "sync", note)
    store.sync()
    names = [name for name, _ in synced]
    assert set(names) == {"data.mdb", "slots", "counts", "format", "workers", "store", "s", tmp_path.name, "mark.new"}
    assert names[-5:] == ["data.mdb", "slots", "counts", "mark.new", "store"]
    assert [seen for _, seen in synced] == [b""] * (len(synced) - 1) + [CLEAN]
    store.sync()
    assert len(synced) == len(names)
    store.close()


def test_a_writer_that_dies_while_it_removes_the_mark_deceives_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened_here(tmp_path, 1, monkeypatch)
    use(store, [1])
    store.sync()
    with monkeypatch.context() as patched:
        patched.setattr(mark, "sync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            use(store, [2])
    assert state(tmp_path) == b""
    store.sync()
    assert state(tmp_path) == CLEAN
    store.close()
    assert is_kept(tmp_path, 2, [1])


def interrupt(descriptor: int) -> None:
    raise KeyboardInterrupt


# ---- durable ----


def test_a_durable_store_is_always_kept(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1, durable=True) as writer:
        writer.do(use, [1])
        assert writer.do(flags) == (True, True)
        assert state(tmp_path) == DURABLE
    assert is_kept(tmp_path, 2, [1])
    with in_boot(tmp_path, 3, durable=True) as writer:
        writer.do(use, [1, 2])
        writer.do(sync)
        assert state(tmp_path) == CLEAN
        writer.do(use, [3])
        assert state(tmp_path) == DURABLE
    assert is_kept(tmp_path, 4, [1, 2, 3])


def flags(store: LmdbStore) -> tuple[bool, bool]:
    env = store._opened.lmdb._handle()
    return env.flags()["sync"], env.flags()["metasync"]


def test_a_writer_that_is_not_durable_puts_the_store_at_risk_until_a_durable_one_writes(tmp_path: Path) -> None:
    with in_boot(tmp_path, 1, durable=True) as durable, in_boot(tmp_path, 1) as other:
        durable.do(use, [1])
        assert other.do(flags) == (False, False)
        other.do(use, [2])
        assert state(tmp_path) == b""
        durable.do(use, [3])
        assert state(tmp_path) == DURABLE
        other.do(use, [4])
        assert state(tmp_path) == b""
    assert not is_kept(tmp_path, 2, [1, 2, 3, 4])


def test_a_store_that_is_open_becomes_durable_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened_here(tmp_path, 1, monkeypatch)
    use(store, [1])
    also = opened_here(tmp_path, 1, monkeypatch, durable=True)
    assert flags(store) == flags(also) == (True, True)
    use(store, [2])
    assert state(tmp_path) == DURABLE
    store.close()


@pytest.mark.parametrize("left", [HEADER, ONE_CHUNK])
def test_a_durable_store_does_not_need_what_its_table_lost(tmp_path: Path, left: int) -> None:
    """The table says nothing of the entries that it does not know from before; order and limits hold all the same."""
    numbers = list(range(2 * slots.CHUNK))
    with in_boot(tmp_path, 1, durable=True, maxsize=len(numbers) + 1) as writer:
        writer.do(use, numbers)
        writer.do(delete, [5, 6])
    table = tmp_path / "s" / "store" / "slots"
    table.write_bytes(table.read_bytes()[:left].ljust(table.stat().st_size, b"\0"))
    with in_boot(tmp_path, 2, durable=True) as other:
        assert other.do(use, [*numbers[:5], *numbers[7:]]) == []
        assert other.do(use, [5, 6, 10_000]) == [5, 6, 10_000]
        assert other.do(recount)[bytes(8)] == len(numbers) + 1
        assert other.do(use, [10_001]) == [10_001]
        assert other.do(contents, [0, 1, 10_000, 10_001]) == {1, 10_000, 10_001}
        assert other.do(recount)[bytes(8)] == len(numbers) + 1


def test_the_table_of_a_durable_store_is_on_the_disk_as_large_as_its_entries_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened_here(tmp_path, 1, monkeypatch, durable=True)
    use(store, range(slots.CHUNK))
    synced: list[str] = []
    monkeypatch.setattr(words, "sync", lambda descriptor: synced.append(name_of(descriptor)))
    use(store, [slots.CHUNK + 1])
    assert synced == ["slots"]
    store.close()


def delete(store: LmdbStore, numbers: list[int]) -> int:
    return store.delete(keys(numbers))


# ---- recency ----


def test_the_order_of_use_survives_a_boot(tmp_path: Path) -> None:
    """Ticks go on where they stood, though the clock since the boot begins at zero again."""
    with in_boot(tmp_path, 1, maxsize=4) as writer:
        writer.do(use, [1, 2, 3, 4])
        writer.do(use, [2])
        writer.do(use, [1])
        writer.do(sync)
    with in_boot(tmp_path, 2, maxsize=4, clock=True) as writer:
        writer.do(use, [3])
        writer.do(use, [5])
        assert writer.do(contents, range(6)) == {1, 2, 3, 5}
        writer.do(use, [6])
        assert writer.do(contents, range(7)) == {1, 3, 5, 6}
        writer.do(sync)
    with in_boot(tmp_path, 3, maxsize=4, clock=True) as writer:
        writer.do(use, [7])
        assert writer.do(contents, range(8)) == {3, 5, 6, 7}


def test_the_first_reader_after_a_boot_lets_ticks_go_on(tmp_path: Path) -> None:
    """It writes nothing down, and yet what it uses is the most recent."""
    with in_boot(tmp_path, 1, maxsize=2) as writer:
        writer.do(use, [1, 2])
        writer.do(sync)
    with in_boot(tmp_path, 2, maxsize=2, clock=True) as reader:
        assert reader.do(use, [1]) == []
        assert state(tmp_path) == CLEAN
        reader.do(use, [3])
        assert reader.do(contents, [1, 2, 3]) == {1, 3}


# ---- places that vanish at a crash ----


def of_function(directory: Path, boot: int, kind: str) -> LmdbStore:
    boot_into(directory, boot)
    place.IDLE = 0.01  # type: ignore[misc]  # a keeper, if there were one, would be quick
    spec = PlaceSpec("shm", f"crash-{os.path.basename(directory)}") if kind == "shm" else PlaceSpec("runtime")
    return LmdbStore.of_function(directory_of(spec), "f", Limits())


@pytest.mark.parametrize("kind", ["shm", "runtime"])
def test_a_place_that_a_crash_removes_has_no_mark_no_sync_and_no_thread(tmp_path: Path, kind: str) -> None:
    with server(of_function, tmp_path, 1, kind) as other:
        other.do(forbid_syncing)
        assert other.do(use, [1, 2]) == [1, 2]
        other.do(sync)
        assert other.do(threads) == ["MainThread"]
        assert "mark" not in other.do(files)
        other.do(leave_but_stay)
        assert "mark" not in other.do(files)
        other.do(remove)


def forbid_syncing(store: LmdbStore) -> None:
    os.fsync = os.fdatasync = fail  # type: ignore[assignment]  # in a process of its own


def files(store: LmdbStore) -> list[str]:
    return os.listdir(store._opened.path)


def remove(store: LmdbStore) -> None:
    shutil.rmtree(store._opened.path.parent)


def test_a_named_place_in_shared_memory_starts_empty_in_another_boot(tmp_path: Path) -> None:
    """Where it lies on a disk, because there is no shared memory."""
    with server(of_function, tmp_path, 1, "shm") as other:
        other.do(use, [1])
    with server(of_function, tmp_path, 2, "shm") as other:
        assert other.do(use, [1]) == [1]
        other.do(remove)


# ---- the thread ----


def test_nobody_forks_with_the_keeper_beside_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python warns of forks of a process with threads from 3.12 on; the parent's goes on, a child begins its own."""
    run_in_boot(tmp_path, 1, fork_beside_the_keeper, tmp_path)


def fork_beside_the_keeper(store: LmdbStore, directory: Path) -> None:
    use(store, [1])
    assert [thread.name for thread in threading.enumerate()] == ["MainThread", "batche-keeper"]
    place.IDLE = SOON  # type: ignore[misc]  # of this process
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pid = os.fork()
    if not pid:
        child = threading.enumerate()
        use(store, [2])
        wait_until(lambda: state(directory) == CLEAN, "the child's mark")
        os._exit(0 if len(child) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert threading.active_count() == 2
    use(store, [3])
    wait_until(lambda: state(directory) == CLEAN, "the parent's mark")


def test_a_program_with_a_path_ends_at_once_and_leaves_its_function_store_marked(tmp_path: Path) -> None:
    """The real thing: a decorated function, a program that ends, a crash, and the program again."""
    assert run_program(tmp_path, 1, [1, 2]) == "[1, 2]"
    assert [path.read_bytes() for path in (tmp_path / "p").glob("*/mark")] == [CLEAN]
    assert run_program(tmp_path, 2, [1, 2, 3]) == "[3]"
    assert run_program(tmp_path, 3, [1, 4], ending="os.kill(os.getpid(), 9)") == "[4]"
    assert run_program(tmp_path, 4, [1, 4]) == "[1, 4]"


PROGRAM = """
import os, sys
from batche import _boot, cache_batch_variable
_boot.BOOT_ID = sys.argv[1]

@cache_batch_variable("items", store=sys.argv[2], name="crash")
def double(items):
    print(items, end="", flush=True)
    return [2 * item for item in items]

assert double({items}) == [2 * item for item in {items}]
{ending}
"""


def run_program(directory: Path, boot: int, items: list[int], ending: str = "") -> str:
    """What a program of ``boot`` computed."""
    file = directory / f"boot-{boot}"
    file.write_text(str(uuid.UUID(int=boot << 70)))
    text = PROGRAM.format(items=items, ending=ending)
    arguments = [sys.executable, "-c", text, str(file), str(directory / "p")]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False).stdout
