"""Who lives: rows, tokens, the words of calls, and what the kernel says of their owners."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batche.stores.lmdb import workers
from batche.stores.lmdb.workers import FIRST_CALL, ROW_WORDS, Handle, State, Workers, is_exiting
from tests.stores._driving import server

SYS_CLONE = 56
CLONE_FILES = 0x400


def make_workers(directory: Path) -> Workers:
    return Workers(directory)


def begin(theirs: Workers) -> Handle:
    return theirs.begin()


def end(theirs: Workers, handle: Handle) -> None:
    theirs.end(handle)


def abandon(theirs: Workers, handle: Handle) -> None:
    theirs.end(handle, abandoned=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    workers.new_table(tmp_path)
    return tmp_path


def test_a_call_runs_until_it_ends(table: Path) -> None:
    mine = Workers(table)
    handle = mine.begin()
    assert mine.state(handle) is State.RUNNING
    mine.end(handle)
    assert mine.state(handle) is State.ENDED


def test_an_abandoned_call_is_dead(table: Path) -> None:
    mine = Workers(table)
    handle = mine.begin()
    mine.end(handle, abandoned=True)
    assert mine.state(handle) is State.DEAD


def test_a_word_is_used_again_under_another_serial(table: Path) -> None:
    mine = Workers(table)
    first = mine.begin()
    mine.end(first)
    later = [mine.begin() for _ in range(ROW_WORDS - FIRST_CALL)]
    assert first.word in {handle.word for handle in later}
    assert mine.state(first) is State.ENDED
    assert {mine.state(handle) for handle in later} == {State.RUNNING}


def test_more_calls_than_one_row_has_words_take_another_row(table: Path) -> None:
    mine = Workers(table)
    handles = [mine.begin() for _ in range(3 * ROW_WORDS)]
    assert len({handle.word for handle in handles}) == len(handles)
    assert len({handle.row for handle in handles}) == 4
    assert {mine.state(handle) for handle in handles} == {State.RUNNING}
    with server(make_workers, table) as other:
        theirs = other.do(begin)
        assert theirs.row not in {handle.row for handle in handles}


def test_another_process_sees_a_call_run_end_and_be_abandoned(table: Path) -> None:
    mine = Workers(table)
    with server(make_workers, table) as other:
        ended, abandoned, running = other.do(begin), other.do(begin), other.do(begin)
        assert {mine.state(handle) for handle in (ended, abandoned, running)} == {State.RUNNING}
        other.do(end, ended)
        other.do(abandon, abandoned)
        assert [mine.state(handle) for handle in (ended, abandoned, running)] == [
            State.ENDED,
            State.DEAD,
            State.RUNNING,
        ]


def test_the_calls_of_a_killed_process_are_dead(table: Path) -> None:
    mine = Workers(table)
    with server(make_workers, table) as other:
        running, ended = other.do(begin), other.do(begin)
        other.do(end, ended)
        other.kill()
        assert mine.state(running) is State.DEAD
        assert mine.state(ended) is State.ENDED


def test_a_stopped_process_is_alive(table: Path) -> None:
    mine = Workers(table)
    with server(make_workers, table) as other:
        handle = other.do(begin)
        os.kill(other.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        assert mine.state(handle) is State.RUNNING
        assert mine.alive(handle.row, handle.token)
        os.kill(other.pid, signal.SIGCONT)


def test_a_recycled_row_makes_old_claims_dead(table: Path) -> None:
    mine = Workers(table)
    with server(make_workers, table) as first:
        old = first.do(begin)
        first.kill()
    with server(make_workers, table) as second:
        new = second.do(begin)
        assert (new.row, new.word) == (old.row, old.word)
        assert mine.state(old) is State.DEAD
        assert not mine.alive(old.row, old.token)
        assert mine.state(new) is State.RUNNING


def end_as_a_fork(theirs: Workers) -> Handle:
    """Begin a call, and have a forked child end its copy of it."""
    handle = theirs.begin()
    child = os.fork()
    if child == 0:
        theirs.end(handle)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return handle


def test_a_forks_copy_of_a_call_ends_nothing(table: Path) -> None:
    mine = Workers(table)
    with server(make_workers, table) as other:
        assert mine.state(other.do(end_as_a_fork)) is State.RUNNING


def rows_of_a_family(theirs: Workers) -> tuple[Handle, Handle]:
    """A call of this process and one of a forked child of it that has ended since."""
    handle = theirs.begin()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        inherited = theirs.begin()
        os.write(
            send, f"{inherited.row} {inherited.word} {inherited.serial} {' '.join(map(str, inherited.token))}".encode()
        )
        os._exit(0)
    os.waitpid(child, 0)
    row, word, serial, *token = map(int, os.read(receive, 1000).split())
    return handle, Handle(row, word, serial, (token[0], token[1]))


def test_a_forked_child_has_a_row_and_a_token_of_its_own(table: Path) -> None:
    mine = Workers(table)
    with server(make_workers, table) as other:
        parents, childs = other.do(rows_of_a_family)
        assert parents.row != childs.row
        assert parents.token != childs.token
        assert mine.state(parents) is State.RUNNING
        assert mine.state(childs) is State.DEAD


# ---- what the kernel says ----


def share_files(theirs: Workers) -> tuple[Handle, int]:
    """Begin a call, and make a process that shares the table of descriptors, and so the lock of the row."""
    handle = theirs.begin()
    holder = int(ctypes.CDLL(None).syscall(SYS_CLONE, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0))
    while holder == 0:
        signal.pause()
    return handle, holder


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="a system call by its number")
def test_a_killed_owner_is_dead_though_its_lock_is_held_for_longer(table: Path) -> None:
    """As the kernel holds it while it takes a large process apart."""
    mine = Workers(table)
    with server(make_workers, table) as other:
        handle, holder = other.do(share_files)
        assert mine.state(handle) is State.RUNNING
        os.kill(other.pid, signal.SIGKILL)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        try:
            assert mine._is_locked(handle.row)
            assert mine.state(handle) is State.DEAD
        finally:
            os.kill(holder, signal.SIGKILL)
            other.kill()


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_running_process_is_not_exiting() -> None:
    assert not is_exiting(os.getpid(), started(os.getpid()))


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_pid_that_began_at_another_time_is_another_process() -> None:
    assert is_exiting(os.getpid(), started(os.getpid()) + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_killed_process_is_exiting_before_and_after_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = started(process.pid)
        assert not is_exiting(process.pid, began)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie
        assert is_exiting(process.pid, began)
        process.wait()
        assert is_exiting(process.pid, began)


LEADER_GONE = """
import ctypes, threading, sys
def stay():
    print("up", flush=True)
    sys.stdin.read()
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall({exit}, 0)  # ends the main thread alone
"""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="a system call by its number")
def test_a_process_whose_main_thread_ended_lives() -> None:
    program = LEADER_GONE.format(exit=60)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        began = started(process.pid)
        while "Z" not in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]:
            os.sched_yield()
        assert not is_exiting(process.pid, began)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_exiting(process.pid, began)
