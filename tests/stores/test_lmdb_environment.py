"""One environment: opened once, safe to fork, written in turn by threads and processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from batche._forks import Fork
from batche.errors import StoreError
from batche.stores.base import StoreBusyError, attempt
from batche.stores.lmdb import LmdbStore
from batche.stores.lmdb.environment import LITTLE_PATIENCE
from batche.stores.lmdb.gate import GATE, ForkGate, GateClosedError
from batche.stores.lmdb.place import open_place
from batche.stores.lmdb.upkeep import Limits
from tests.processes._tools import descriptors_in
from tests.stores._driving import Server, contents, new_call, new_place, server, use, wait_until

PATIENCE = 0.2


def make_store(path: Path) -> LmdbStore:
    return LmdbStore(path)


def write(store: LmdbStore, patience: float) -> None:
    store._opened.lmdb.write(lambda transaction: None, after=lambda _: None, patience=patience)


def write_and_hang(store: LmdbStore, flag: Path) -> None:
    """Be inside a write transaction, with something written in it, until killed."""

    def body(transaction: object) -> None:
        transaction.put(b"x-half", b"done")  # type: ignore[attr-defined]  # of LMDB, which has no types
        flag.touch()
        while True:
            signal.pause()

    store._opened.lmdb.write(body, after=lambda _: None)


@contextmanager
def writer(path: Path) -> Iterator[Server]:
    """Another process that is inside a write transaction."""
    with server(make_store, path) as other:
        flag = path.parent / "inside"
        flag.unlink(missing_ok=True)  # of an earlier one
        other.start(write_and_hang, flag)
        wait_until(flag.exists, "the other process writes")
        yield other


# ---- one environment for each inode ----


def test_a_directory_is_opened_once_through_any_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    one = LmdbStore(tmp_path / "real" / "s")
    other = LmdbStore(tmp_path / "link" / "s")
    assert one._opened is other._opened
    use(one, [1])
    assert contents(other, [1]) == {1}


def test_opening_the_same_directory_again_and_again_keeps_no_descriptor(tmp_path: Path) -> None:
    LmdbStore(tmp_path / "s")
    place = open_place(tmp_path / "s")
    before = descriptors_in(tmp_path)
    for _ in range(5):
        use(LmdbStore(tmp_path / "s"), [1])
    assert descriptors_in(tmp_path) == before != []
    assert place.path == tmp_path / "s"


def test_a_store_is_used_again_after_it_was_closed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    store.close()
    store.close()
    assert use(store, [1, 2]) == [2]


def test_closing_while_threads_read_and_write_harms_nobody(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, range(100))
    trouble: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 100):
                use(store, [number % 7, 1000 + number])
        except StoreError:
            return  # closed under it: the call goes on without the store
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        store.close()
    for thread in threads:
        thread.join()
    assert not trouble
    assert use(store, [1]) == []


# ---- forks ----


@contextmanager
def thread_inside(path: Path) -> Iterator[threading.Event]:
    """A thread inside a transaction until the event is set."""
    store, inside, out = LmdbStore(path), threading.Event(), threading.Event()

    def body(transaction: object) -> None:
        inside.set()
        out.wait(40)

    thread = threading.Thread(target=lambda: store._opened.lmdb.read(body))
    thread.start()
    inside.wait(40)
    try:
        yield out
    finally:
        out.set()
        thread.join()


def child(body: Callable[[], object]) -> int:
    """Fork; the child runs ``body`` and tells by its exit status whether it returned."""
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
        os._exit(0)
    except BaseException:
        os._exit(1)


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_waits_for_a_thread_in_a_transaction_and_the_child_uses_the_store_at_once(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with thread_inside(tmp_path / "s") as out:
        forked: list[int] = []
        forker = threading.Thread(target=lambda: forked.append(child(lambda: use(store, [1, 2]))))
        forker.start()
        wait_until(lambda: GATE._forking, "the fork has begun")
        assert not forked
        out.set()
        forker.join()
    assert status(forked[0]) == 0
    assert contents(store, [1, 2]) == {1, 2}


def test_a_fork_that_waited_too_long_leaves_the_child_without_the_store(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with thread_inside(tmp_path / "s"):
        began = time.monotonic()
        pid = child(lambda: use(store, [2]))
        assert time.monotonic() - began < 8
        assert status(pid) == 1
    assert use(store, [1, 2]) == [2]


def test_a_fork_in_a_signal_handler_inside_a_transaction_ends_at_once(tmp_path: Path) -> None:
    """The forking thread does not wait for itself; its child does not touch what is half done."""
    store = LmdbStore(tmp_path / "s")
    forked: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        forked.append(child(lambda: use(store, [2])))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        store._opened.lmdb.read(lambda transaction: os.kill(os.getpid(), signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert status(forked[0]) == 1
    assert use(store, [1]) == [1]


def test_a_use_nested_in_a_transaction_of_its_own_thread_is_refused(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    lmdb = store._opened.lmdb
    with pytest.raises(StoreError, match="already inside"):
        lmdb.read(lambda transaction: store.read([b"k" * 28]))
    with pytest.raises(StoreError):
        lmdb.write(lambda transaction: use(store, [2]), after=lambda _: None)
    assert use(store, [1, 2]) == [2]


def closed(gate: ForkGate) -> tuple[bool, Callable[[], None]]:
    """Whether it was closed with nobody inside, as before a fork of this thread; and what opens it again."""
    fork = Fork()
    gate.before_fork(fork)

    def reopen() -> None:
        for undo in fork.undo:
            undo()

    return gate._forking[threading.get_ident()], reopen


class Door(dict[int, None]):
    """Who is inside; right after each look somebody knocks, who will be sent away."""

    def keys(self) -> Any:
        seen = dict.fromkeys(super().__iter__()).keys()
        self[-1] = None
        return seen

    def __iter__(self) -> Iterator[int]:
        return iter(self.keys())


def test_who_knocks_after_the_look_does_not_make_a_fork_unclean() -> None:
    gate = ForkGate()
    gate._inside = Door()
    assert closed(gate)[0]


def test_a_thread_that_waits_at_the_gate_does_not_make_a_fork_unclean() -> None:
    """It knocks again and again; whoever forks has looked already when it is seen at the door."""
    gate = ForkGate()
    end, trouble = threading.Event(), list[BaseException]()

    def knock() -> None:
        while not end.is_set():
            try:
                gate.through(int)
            except GateClosedError as error:
                trouble.append(error)

    knockers = [threading.Thread(target=knock) for _ in range(3)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for knocker in knockers:
            knocker.start()
        unclean = 0
        for _ in range(1000):
            is_clean, reopen = closed(gate)
            unclean += not is_clean
            reopen()
    finally:
        sys.setswitchinterval(switch)
        end.set()
        for knocker in knockers:
            knocker.join()
    assert (unclean, trouble) == (0, [])


class InterruptedGate(ForkGate):
    """Whoever waits for a fork is interrupted as the wait begins."""

    def _wait_for_fork(self, thread: int) -> None:
        raise KeyboardInterrupt


def test_who_is_interrupted_at_the_gate_may_pass_it_later() -> None:
    gate = InterruptedGate()
    gate._forking[-1] = False
    with pytest.raises(KeyboardInterrupt):
        gate.through(int)
    gate._forking.clear()
    gate.through(int)
    assert closed(gate)[0]


def is_alone(gate: ForkGate) -> bool:
    return gate.alone(int)


def test_nobody_is_alone_while_another_thread_forks() -> None:
    gate = ForkGate()
    shut, opened = threading.Event(), threading.Event()

    def fork() -> None:
        _, reopen = closed(gate)
        shut.set()
        opened.wait(40)
        reopen()

    forker = threading.Thread(target=fork)
    forker.start()
    shut.wait(40)
    assert not is_alone(gate)
    opened.set()
    forker.join()
    refused: list[GateClosedError] = []

    def knock() -> None:
        try:
            gate.through(int)
        except GateClosedError as error:
            refused.append(error)

    assert gate.alone(knock)
    assert len(refused) == 1
    with pytest.raises(GateClosedError):
        gate.through(lambda: gate.through(int))
    assert gate.through(is_alone, gate) is False
    gate.through(int)


def test_a_fork_whose_wait_was_interrupted_is_not_taken_for_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = ForkGate()
    is_clean, reopen = closed(gate)
    reopen()
    assert is_clean
    gate._inside[-1] = None
    monkeypatch.setattr("batche.stores.lmdb.gate.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        closed(gate)
    assert gate._forking == {threading.get_ident(): False}


def interrupt(seconds: float) -> None:
    raise KeyboardInterrupt


def test_a_fork_of_who_is_alone_leaves_the_gate_closed() -> None:
    gate = ForkGate()
    seen: list[bool] = []

    def fork() -> None:
        is_clean, reopen = closed(gate)
        reopen()
        seen.extend([is_clean, threading.get_ident() in gate._forking])

    assert gate.alone(fork)
    assert seen == [False, True]
    assert not gate._forking


# ---- the writer's turn ----


def test_a_writer_gives_up_within_its_patience(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with writer(tmp_path / "s"):
        began = time.monotonic()
        with pytest.raises(StoreBusyError):
            write(store, PATIENCE)
        assert PATIENCE <= time.monotonic() - began < 8 * PATIENCE
        assert contents(store, [1]) == {1}


def test_a_thread_gives_up_within_its_patience(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    inside, out = threading.Event(), threading.Event()

    def body(transaction: object) -> None:
        inside.set()
        out.wait(40)

    thread = threading.Thread(target=lambda: store._opened.lmdb.write(body, after=lambda _: None))
    thread.start()
    inside.wait(40)
    try:
        with pytest.raises(StoreBusyError):
            write(store, PATIENCE)
    finally:
        out.set()
        thread.join()
    write(store, 8)


def waited(store: LmdbStore, patience: float) -> float:
    """How many seconds a write waits in vain that would wait for ``patience``."""
    began = time.monotonic()
    with pytest.raises(StoreBusyError):
        write(store, patience)
    return time.monotonic() - began


def test_who_has_waited_in_vain_waits_only_a_little_until_it_has_had_a_turn(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    patience = 2 * LITTLE_PATIENCE
    with writer(tmp_path / "s"):
        assert waited(store, patience) >= patience
        assert [waited(store, 30) < 15 for _ in range(2)] == [True, True]
    write(store, 30)
    with writer(tmp_path / "s"):
        assert waited(store, patience) >= patience


def test_attempts_end_with_another_error_that_says_how_long_they_went_on(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with writer(tmp_path / "s"):
        for seconds, error in ((0, StoreBusyError), (9.9, StoreBusyError), (10, StoreError), (0.2, StoreBusyError)):
            assert type(trouble := attempted(store, seconds)) is error
            assert "for 10 s" in str(trouble) or seconds == 0.2
        assert type(trouble := attempted(store, LITTLE_PATIENCE)) is StoreError  # it has waited in vain before
        assert "for 0.25 s" in str(trouble)


def attempted(store: LmdbStore, seconds: float) -> StoreError:
    """What an attempt to write raises that began so many seconds ago."""
    with pytest.raises(StoreError) as caught, attempt.after(seconds):
        write(store, 10)
    return caught.value


class InterruptedInTestError(Exception):
    pass


def test_a_writer_that_waits_is_interrupted_by_a_handler_that_raises(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])

    def handler(number: int, frame: FrameType | None) -> None:
        raise InterruptedInTestError

    before = signal.signal(signal.SIGALRM, handler)
    left = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        with writer(tmp_path / "s") as other:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedInTestError):
                write(store, 40)
            other.kill()
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)
    write(store, 8)


def test_a_writer_killed_inside_its_transaction_hands_the_turn_on_at_once(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with writer(tmp_path / "s") as other:
        other.kill()
        began = time.monotonic()
        assert use(store, [1, 2]) == [2]
        assert time.monotonic() - began < 8 * 0.25
    assert store._opened.lmdb.read(lambda transaction: transaction.get(b"x-half")) is None


def test_a_stopped_writer_stops_no_reader(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with writer(tmp_path / "s") as other:
        os.kill(other.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        assert contents(store, [1]) == {1}
        with pytest.raises(StoreBusyError):
            write(store, PATIENCE)
        assert contents(store, [1]) == {1}


def test_the_first_hit_of_a_process_waits_for_no_stopped_writer(tmp_path: Path) -> None:
    """It would join, and takes its first turn to write later instead."""
    use(LmdbStore(tmp_path / "s"), [1])
    with writer(tmp_path / "s") as other, server(make_store, tmp_path / "s") as reader:
        os.kill(other.pid, signal.SIGSTOP)
        assert reader.do(contents, [1]) == {1}


def test_a_child_forked_while_its_parent_waited_to_write_does_not_keep_the_turn(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1])
    with writer(tmp_path / "s") as other, server(make_store, tmp_path / "s") as waiter:
        waiter.start(fork_while_waiting, tmp_path)
        wait_until((tmp_path / "forked").exists, "the fork")
        other.kill()
        waiter.finish()
        wait_until((tmp_path / "tried").exists, "the child's try")
        write(store, 8)
        (tmp_path / "end").touch()
        wait_until((tmp_path / "ended").exists, "the child's end")


def fork_while_waiting(store: LmdbStore, directory: Path) -> None:
    """Wait to write, and fork in a signal handler meanwhile; the child goes on waiting as its parent does."""
    parent = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.fork():
            (directory / "forked").touch()

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        write(store, 40)
    except StoreError:
        if os.getpid() == parent:
            raise
    if os.getpid() != parent:
        (directory / "tried").touch()
        wait_until((directory / "end").exists, "the end")
        (directory / "ended").touch()
        os._exit(0)


# ---- several environments of one place ----


def test_environments_of_one_place_share_its_workers_and_nothing_else(tmp_path: Path) -> None:
    one = LmdbStore.of_function(new_place(tmp_path), "one", Limits())
    two = LmdbStore.of_function(new_place(tmp_path), "two", Limits())
    assert one._opened.workers is two._opened.workers
    use(one, [1])
    assert contents(two, [1]) == set()
    with writer_of(tmp_path, "one"):
        assert use(two, [1, 2]) == [1, 2]


@contextmanager
def writer_of(directory: Path, name: str) -> Iterator[None]:
    with server(make_function_store, directory / "p", name) as other:
        other.start(write_and_hang, directory / "inside")
        wait_until((directory / "inside").exists, "the other process writes")
        yield


def make_function_store(place: Path, name: str) -> LmdbStore:
    return LmdbStore.of_function(place, name, Limits())


def test_a_call_ends_though_the_store_is_busy(tmp_path: Path) -> None:
    """`release` waits for nobody: a word in a table ends a call."""
    store = LmdbStore(tmp_path / "s")
    call = new_call()
    use(store, [1])
    assert store.claim(call, [b"\0" * 7 + b"\1" + b"k" * 20])
    call.holds = True
    with writer(tmp_path / "s"):
        began = time.monotonic()
        store.release(call, counts={"misses": 1})
        assert time.monotonic() - began < 1
        assert store.owners([b"\0" * 7 + b"\1" + b"k" * 20]) == [None]
