"""The runtime place in real processes: who shares it, who keeps it, who removes it.

Each program below runs in an interpreter of its own, with two directories of the test in place of shared
memory and of the directory for temporary files.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from batche import errors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no runtime place on Windows")

PREAMBLE = """
import atexit, os, signal, subprocess, sys, threading
import multiprocessing as mp
from multiprocessing import process
from pathlib import Path
from batche import _places, _runtime

_places.SHARED_MEMORY = os.environ["TEST_SHARED_MEMORY"]

def be_of_tree(key):
    process.current_process().authkey = key

def show(*words):
    print(*words, flush=True)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


class Roots:
    """The two roots of a test, and the programs that see them."""

    def __init__(self, directory: Path) -> None:
        self.memory = directory / "memory"
        self.disk = directory / "disk"
        self.programs = directory / "programs"
        for made in (self.memory, self.disk, self.programs):
            made.mkdir()

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        path = self.programs / f"program{len(list(self.programs.iterdir()))}.py"
        path.write_text(PREAMBLE + textwrap.dedent(program))
        environment = os.environ | {
            "TEST_SHARED_MEMORY": str(self.memory),
            "TMPDIR": str(self.disk),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        }
        return subprocess.Popen(
            [sys.executable, str(path), *arguments],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, program: str, *arguments: str, status: int = 0) -> list[str]:
        """The lines that a program and all its descendants wrote until the last of them ended."""
        with self.start(program, *arguments) as running:
            output, errors = running.communicate(timeout=60)
        assert running.returncode == status, errors
        assert "Traceback" not in errors, errors
        return output.splitlines()

    def left(self) -> list[Path]:
        return [path for root in (self.memory, self.disk) for path in root.iterdir() if "batche" in path.name]


@pytest.fixture
def roots() -> Iterator[Roots]:
    """Under a short path: a forkserver's socket, which lies in the directory for temporary files, needs one."""
    with tempfile.TemporaryDirectory(prefix="places-") as directory:
        yield Roots(Path(directory))


@pytest.fixture
def member(roots: Roots) -> Iterator[subprocess.Popen[str]]:
    """A living program that is the one member of a place."""
    with roots.start("show(_runtime.join().path); sys.stdin.read()") as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(str(roots.memory))
        yield running
        running.kill()


START_CHILD = {
    "fork": "mp.get_context('fork').Process(target=child)",
    "spawn": "mp.get_context('spawn').Process(target=child)",
    "forkserver": "mp.get_context('forkserver').Process(target=child)",
    "daemon": "mp.get_context('fork').Process(target=child, daemon=True)",
}


@pytest.mark.parametrize("way", START_CHILD)
def test_a_child_started_by_multiprocessing_joins_its_parents_place(roots: Roots, way: str) -> None:
    paths = roots.run(f"""
        def child():
            show(_runtime.join().path)

        if __name__ == "__main__":
            show(_runtime.join().path)
            started = {START_CHILD[way]}
            started.start()
            started.join()
    """)
    assert len(paths) == 2
    assert len(set(paths)) == 1
    assert roots.left() == []


@pytest.mark.parametrize("way", START_CHILD)
def test_a_parent_that_joins_after_its_child_has_left_makes_the_place_again(roots: Roots, way: str) -> None:
    there = roots.run(f"""
        def child():
            show(_runtime.join().path.is_dir())

        if __name__ == "__main__":
            started = {START_CHILD[way]}
            started.start()
            started.join()
            show(os.listdir(_places.SHARED_MEMORY))
            show(_runtime.join().path.is_dir())
    """)
    assert there == ["True", "[]", "True"]
    assert roots.left() == []


@pytest.mark.parametrize(
    "executor",
    [
        "concurrent.futures.ProcessPoolExecutor(2, mp.get_context('fork'))",
        "concurrent.futures.ProcessPoolExecutor(2, mp.get_context('spawn'))",
        "loky.get_reusable_executor(2)",
    ],
)
def test_workers_of_an_executor_join(roots: Roots, executor: str) -> None:
    if executor.startswith("loky"):
        pytest.importorskip("loky")
    paths = roots.run(f"""
        def work(_):
            _places.SHARED_MEMORY = os.environ["TEST_SHARED_MEMORY"]  # loky does not run the main module
            return str(_runtime.join().path)

        if __name__ == "__main__":
            import {executor.partition(".")[0]}
            import concurrent.futures
            show(_runtime.join().path)
            executor = {executor}  # kept: one that is collected as the interpreter ends may meet its own end
            for path in executor.map(work, range(4)):
                show(path)
    """)
    assert len(paths) == 5
    assert len(set(paths)) == 1
    assert roots.left() == []


def test_a_pool_that_nobody_closes_leaves_nothing(roots: Roots) -> None:
    """Its workers are members until the interpreter's last moments, after this process's own handlers."""
    assert roots.run("""
        def work(_):
            return _runtime.join().is_held()

        if __name__ == "__main__":
            _runtime.join()
            pool = mp.get_context("fork").Pool(2)
            show(pool.map(work, range(4)))
    """) == ["[True, True, True, True]"]
    assert roots.left() == []


def test_the_last_to_leave_ends_what_a_killed_member_began_to_remove(roots: Roots) -> None:
    """As a pool's worker may that its parent terminates while it leaves."""
    roots.run("""
        path = _runtime.join().path
        begun = path.with_name(path.name + ".0123abcd")
        begun.mkdir(0o700)
        (begun / "lock").touch(0o600)
        (begun / "entries").write_text("half removed")
    """)
    assert roots.left() == []


def test_a_program_started_by_a_member_is_no_member(roots: Roots) -> None:
    own, other = roots.run("""
        show(_runtime.join().path)
        if len(sys.argv) == 1:
            subprocess.run([sys.executable, __file__, "started"], check=True)
    """)
    assert own != other
    assert roots.left() == []


def test_an_executed_program_does_not_keep_the_place(roots: Roots) -> None:
    """It inherits every descriptor but those that close on exec, and is alive when the last member has left."""
    with roots.start("""
        _runtime.join()
        command = ["sh", "-c", "echo started; cat >/dev/null"]
        subprocess.Popen(command, close_fds=False, stdout=subprocess.PIPE).stdout.readline()
    """) as running:
        assert running.wait(timeout=60) == 0
        assert roots.left() == []
        running.communicate(timeout=60)


START_ORPHAN = {
    "fork": "mp.get_context('fork').Process(target=child, args=arguments).start()",
    "spawn": "mp.get_context('spawn').Process(target=child, args=arguments).start()",
    "forkserver": "mp.get_context('forkserver').Process(target=child, args=arguments).start()",
    "os.fork": "os.fork() or sys.exit(child(*arguments))",
    "os.fork twice": "os.fork() or sys.exit(0 if os.fork() else child(*arguments))",
    "os.fork in a fork": "mp.get_context('fork').Process(target=forking_child, args=arguments).start()",
}


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a process is watched through a pidfd")
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
@pytest.mark.parametrize("way", START_ORPHAN)
def test_a_child_keeps_the_place_when_its_parent_is_gone_and_then_removes_it(roots: Roots, way: str, end: str) -> None:
    shown = roots.run(
        f"""
        import select

        def child(parent, ready):
            watch = os.pidfd_open(parent)
            place = _runtime.join()
            ready.send("joined")
            select.select([watch], [], [])
            show(place.path.is_dir(), place.is_held(), _runtime.join() is place)

        def forking_child(parent, ready):
            if os.fork() == 0:
                child(parent, ready)

        if __name__ == "__main__":
            joined, ready = mp.Pipe(duplex=False)
            arguments = (os.getpid(), ready)
            _runtime.join()
            {START_ORPHAN[way]}
            joined.recv()
            {end}
        """,
        status=0 if "exit" in end else -signal.SIGKILL,
    )
    assert shown == ["True True True"]
    assert roots.left() == []


def test_a_parent_that_never_uses_the_place_keeps_it_between_its_children(roots: Roots) -> None:
    shown = roots.run("""
        def child():
            (_runtime.join().path / "entries").touch()

        def later_child():
            show(os.listdir(_runtime.join().path))

        if __name__ == "__main__":
            _runtime.join()
            for target in (child, later_child):
                started = mp.get_context("spawn").Process(target=target)
                started.start()
                started.join()
    """)
    assert "entries" in shown[0]
    assert roots.left() == []


def test_a_forked_child_that_ends_leaves_the_place_to_its_parent(roots: Roots) -> None:
    """It runs the exit handlers that it inherited."""
    shown = roots.run("""
        place = _runtime.join()
        child = os.fork()
        if child == 0:
            sys.exit(7)
        show(ended(child), place.path.is_dir(), place.is_held())
    """)
    assert shown == ["7 True True"]
    assert roots.left() == []


def test_a_place_goes_with_all_that_is_in_it(roots: Roots) -> None:
    roots.run("""
        place = _runtime.join().path
        (place / "environment/deeper").mkdir(parents=True)
        (place / "environment/deeper/data").write_bytes(b"entries")
        (place / "elsewhere").symlink_to(sys.argv[1])
    """, str(roots.programs))  # fmt: skip
    assert roots.left() == []
    assert list(roots.programs.iterdir())


@pytest.mark.parametrize("end", ["os._exit(9)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_next_starter_removes_what_the_killed_left(roots: Roots, end: str) -> None:
    roots.run(f"(_runtime.join().path / 'entries').touch(); {end}", status=9 if "exit" in end else -signal.SIGKILL)
    assert len(roots.left()) == 1
    assert len(roots.run("_runtime.join(); show(*os.listdir(_places.SHARED_MEMORY))")[0].split()) == 1
    assert roots.left() == []


def test_nobody_joins_what_a_killed_process_had_begun_to_remove(roots: Roots) -> None:
    shown = roots.run("""
        def be_killed(event, arguments):
            if event == "shutil.rmtree":
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            place = _runtime.join().path
            for environment in ("one", "two"):
                (place / environment).mkdir()
            sys.addaudithook(be_killed)
            _runtime.leave()
        show(ended(child), *os.listdir(_runtime.join().path))
    """)
    assert shown == [f"{-signal.SIGKILL} lock"]
    assert roots.left() == []


def test_a_starter_removes_nothing_that_has_a_member(roots: Roots, member: subprocess.Popen[str]) -> None:
    (theirs,) = roots.left()
    roots.run("_runtime.join()")
    assert roots.left() == [theirs]
    member.communicate(timeout=60)
    assert roots.left() == []


def test_a_starter_removes_the_files_of_starters_that_were_killed(roots: Roots) -> None:
    """One was killed while it prepared a place, one while it removed one, one with its lock file in place."""
    name = f"batche-run-{os.geteuid()}-4026531836-{'ab' * 16}"
    (roots.memory / f"{name}.01234567").mkdir(0o700)
    (roots.disk / f"{name}.89abcdef").mkdir(0o700)
    (roots.disk / f"{name}.89abcdef" / "lock").touch()
    (roots.disk / f"{name}.89abcdef" / "data").touch()
    (roots.memory / f".{name}").touch()
    roots.run("_runtime.join()")
    assert roots.left() == []


def test_a_starter_leaves_alone_what_is_not_a_place_of_its_user(roots: Roots) -> None:
    name = f"batche-run-{os.geteuid()}-4026531836-"
    link, shared, half = (roots.memory / (name + digits * 16) for digits in ("0a", "0b", "0c"))
    link.symlink_to(roots.programs)
    for directory, mode in ((shared, 0o755), (half, 0o700)):
        directory.mkdir()
        directory.chmod(mode)
        (directory / "data").touch()
    (shared / "lock").touch()
    (roots.memory / "batche-shm-0-named").mkdir()
    (roots.programs / "lock").touch()
    before = sorted(roots.left())
    roots.run("_runtime.join()")
    assert sorted(roots.left()) == before
    assert (roots.programs / "lock").exists()
    assert (shared / "data").exists()
    assert (half / "data").exists()


def test_leaving_twice_and_joining_again(roots: Roots) -> None:
    shown = roots.run("""
        first = _runtime.join()
        _runtime.leave()
        _runtime.leave()
        show(first.path.exists(), first.is_held())
        second = _runtime.join()
        show(second.path == first.path, second.path.exists(), second.is_held())
    """)
    assert shown == ["False False", "True True True"]
    assert roots.left() == []


def test_a_join_from_an_exit_handler_is_left_again(roots: Roots) -> None:
    roots.run("""
        atexit.register(_runtime.join)
        _runtime.join()
    """)
    assert roots.left() == []


def test_who_calls_once_the_process_has_left_for_good_computes_and_makes_no_place(roots: Roots) -> None:
    """A handler that was registered before `multiprocessing` was imported comes last."""
    shown = roots.run("""
        from batche import cache_batch_variable

        def late():
            show(plus_one([1]), plus_one([2]))

        from multiprocessing import util
        atexit.unregister(util._exit_function)
        atexit.register(late)
        atexit.register(util._exit_function)

        @cache_batch_variable("numbers", name="plus_one")
        def plus_one(numbers):
            return [number + 1 for number in numbers]

        plus_one([1])
    """)
    assert shown == ["[2] [3]"]
    assert roots.left() == []


PRIVATE = """
from batche import cache_batch_variable

def made():
    @cache_batch_variable("numbers")
    def plus_one(numbers):
        show("computed", *numbers)
        return [number + 1 for number in numbers]
    return plus_one

def entries():
    store = keeps.store
    return store._opened.lmdb.read(lambda transaction: sum(key[:1] == b"e" for key, _ in transaction.cursor()))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_entries_of_a_private_function_go_with_the_process_that_made_it(roots: Roots, method: str) -> None:
    shown = roots.run(PRIVATE + textwrap.dedent(f"""
        def child():
            function = made()
            function([1, 2, 3])

        if __name__ == "__main__":
            keeps = made()
            keeps([1])
            for _ in range(2):
                started = mp.get_context({method!r}).Process(target=child)
                started.start()
                started.join()
            show(entries(), keeps([1]))
    """))  # fmt: skip
    assert shown == ["computed 1", "computed 1 2 3", "computed 1 2 3", "1 [2]"]
    assert roots.left() == []


def test_children_share_a_private_function_of_their_parent_whatever_the_environment_says(roots: Roots) -> None:
    """Its entries are in the runtime place, which the parent keeps between them though it never calls."""
    shown = roots.run("os.environ['BATCHE_STORE'] = str(Path(os.environ['TMPDIR']) / 'store')" + PRIVATE + """
keeps = made()
for _ in range(2):
    started = mp.get_context("fork").Process(target=keeps, args=([1],))
    started.start()
    started.join()
""")  # fmt: skip
    assert shown == ["computed 1"]
    assert roots.left() == []


def test_callbacks_run_first_and_one_that_fails_stops_nothing(roots: Roots) -> None:
    with roots.start("""
        place = _runtime.join()
        _runtime.on_leave(lambda: show("first given", place.path.exists()))
        _runtime.on_leave(lambda: 1 / 0)
        _runtime.on_leave(lambda: show("last given", place.path.exists()))
        _runtime.leave()
        os._exit(0)
    """) as running:
        output, errors = running.communicate(timeout=60)
    assert output.splitlines() == ["last given True", "first given True"]
    assert "ZeroDivisionError" in errors
    assert roots.left() == []


def test_callbacks_run_where_no_place_was_joined(roots: Roots) -> None:
    assert roots.run("""
        def child():
            pass

        _runtime.on_leave(lambda: show(mp.current_process().name))
        if __name__ == "__main__":
            started = mp.get_context("fork").Process(target=child, name="child")
            started.start()
            started.join()
            _runtime.leave()
            os._exit(0)
    """) == ["child", "MainProcess"]


def test_another_key_is_another_place_and_both_go(roots: Roots) -> None:
    shown = roots.run("""
        first = _runtime.join()
        be_of_tree(b"another")
        second = _runtime.join()
        show(first.path != second.path, first.is_held(), second.is_held())
        child = os.fork()
        if child == 0:
            show(_runtime.join() is second)
            sys.exit()
        ended(child)
    """)
    assert shown == ["True True True", "True"]
    assert roots.left() == []


def test_descriptors_closed_by_somebody_else_are_not_closed_again(roots: Roots) -> None:
    """A daemon closes all it has, and the numbers go to files of its own."""
    shown = roots.run("""
        lost = _runtime.join()
        os.closerange(3, 100)
        opened = [os.open(__file__, os.O_RDONLY) for _ in range(60)]
        show(lost.is_held())
        again = _runtime.join()
        show(again.path == lost.path, again.is_held())
        os.closerange(3, 100)
        opened = [os.open(__file__, os.O_RDONLY) for _ in range(90)]
        _runtime.leave()
        show(all(os.fstat(number) for number in opened))
    """)
    assert shown == ["False", "True True", "True"]
    assert roots.left() == []


@pytest.mark.parametrize("damage", ["shutil.rmtree(place.path)", "(place.path / 'lock').unlink()"])
def test_a_place_that_was_deleted_is_made_again(roots: Roots, damage: str) -> None:
    shown = roots.run(f"""
        import shutil
        place = _runtime.join()
        (place.path / "data").touch()
        {damage}
        again = _runtime.join()
        show(place.is_held(), again.is_held(), again.path == place.path, *os.listdir(again.path))
    """)
    assert shown == ["False True True lock"]
    assert roots.left() == []


CACHED = """
from batche import StoreError, cache_batch_variable

computing, goes_on = threading.Event(), threading.Event()

@cache_batch_variable("numbers", name="plus_one")
def plus_one(numbers):
    computing.set()
    if 99 in numbers:
        goes_on.wait()
    return [number + 1 for number in numbers]

def show_calls():
    show(plus_one([1]), plus_one([2]), plus_one([1, 2, 3]))
    try:
        plus_one.cache_info()
    except StoreError:
        pass
    show("done")
"""


def test_calls_of_an_exit_handler_that_comes_after_the_place_has_gone_answer(roots: Roots) -> None:
    shown = roots.run(CACHED + textwrap.dedent("""
        atexit.unregister(_runtime.leave)
        atexit.register(show_calls)
        atexit.register(_runtime.leave)
        plus_one([1])
    """))  # fmt: skip
    assert shown == ["[2] [3] [2, 3, 4]", "done"]
    assert roots.left() == []


def test_calls_after_the_place_was_deleted_answer(roots: Roots) -> None:
    shown = roots.run(CACHED + textwrap.dedent("""
        import shutil
        plus_one([1])
        shutil.rmtree(_runtime.join().path)
        show_calls()
    """))  # fmt: skip
    assert shown == ["[2] [3] [2, 3, 4]", "done"]
    assert roots.left() == []


def test_a_call_of_a_daemon_that_is_computing_when_the_place_goes_answers(roots: Roots) -> None:
    shown = roots.run(CACHED + textwrap.dedent("""
        def call():
            show(plus_one([1, 99]))
            show_calls()

        daemon = threading.Thread(target=call, daemon=True)
        daemon.start()
        computing.wait()
        _runtime.leave()
        goes_on.set()
        daemon.join()
    """))  # fmt: skip
    assert shown == ["[2, 100]", "[2] [3] [2, 3, 4]", "done"]
    assert roots.left() == []


@pytest.mark.parametrize("options", ["name='own'", ""], ids=["named", "private"])
def test_a_place_that_goes_before_a_first_use_opens_it_is_not_made_again(roots: Roots, options: str) -> None:
    """As under a daemon thread: the last member leaves between its join and the opening of an environment."""
    shown = roots.run(CACHED + textwrap.dedent(f"""
        join = _runtime.join

        def join_too_late():
            place = join()
            _runtime.leave()
            return place

        _runtime.join = join_too_late
        late = cache_batch_variable("numbers", {options})(lambda numbers: numbers)
        show(late([1, 2]), *os.listdir(_places.SHARED_MEMORY))
        os._exit(0)
    """))  # fmt: skip
    assert shown == ["[1, 2]"]
    assert roots.left() == []


def test_without_shared_memory_the_place_is_in_the_directory_for_temporary_files(roots: Roots) -> None:
    roots.memory.rmdir()
    (path,) = roots.run("show(_runtime.join().path)")
    assert path.startswith(str(roots.disk))
    roots.memory.mkdir()
    assert roots.left() == []


def test_the_first_of_a_tree_decides_for_all_where_the_place_is(roots: Roots) -> None:
    """Shared memory appears after the parent has looked for it; its child finds the place where it was made."""
    roots.memory.rmdir()
    paths = roots.run("""
        def child():
            show(_runtime.join().path)

        if __name__ == "__main__":
            show(_runtime.join().path)
            os.mkdir(_places.SHARED_MEMORY)
            started = mp.get_context("spawn").Process(target=child)
            started.start()
            started.join()
    """)
    assert len(paths) == 2
    assert len(set(paths)) == 1
    assert roots.left() == []


def test_where_no_directory_can_be_written_joining_says_so(roots: Roots) -> None:
    """And it does so within the call, not after a time-out."""
    roots.memory.rmdir()
    (message,) = roots.run("""
        import tempfile
        from batche.errors import StoreError

        tempfile.tempdir = _places.SHARED_MEMORY
        _places.PATIENCE = float("inf")
        try:
            _runtime.join()
        except StoreError as error:
            show(error)
    """)
    assert "TMPDIR" in message


def test_threads_that_join_at_once_share_one_membership(roots: Roots) -> None:
    shown = roots.run("""
        def is_open(number, file):
            try:
                return os.path.samestat(os.fstat(number), file)
            except OSError:
                return False

        start, places = threading.Barrier(16), []

        def thread():
            start.wait()
            places.append(_runtime.join())

        threads = [threading.Thread(target=thread) for _ in range(16)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        lock = os.stat(places[0].path / "lock")
        show(len(set(places)), sum(is_open(number, lock) for number in range(100)))
    """)
    assert shown == ["1 1"]
    assert roots.left() == []


@pytest.mark.skipif(sys.platform != "linux", reason="open descriptors are listed by /proc")
def test_forks_while_other_threads_join_and_leave(roots: Roots) -> None:
    """A child inherits neither a lock that nobody will release nor a membership that it does not know of."""
    shown = roots.run("""
        def descriptors_of_places():
            with os.scandir("/proc/self/fd") as numbers:
                return sum("batche-run" in os.readlink(number.path) for number in numbers)

        stop = threading.Event()

        def thread():
            while not stop.is_set():
                _runtime.join()
                _runtime.leave()

        threads = [threading.Thread(target=thread) for _ in range(2)]
        [thread.start() for thread in threads]
        statuses = set()
        for _ in range(60):
            child = os.fork()
            if child == 0:
                only = threading.Thread(target=lambda: _runtime.join() and _runtime.leave(), daemon=True)
                only.start()
                only.join(timeout=20)
                os._exit(only.is_alive() or descriptors_of_places())
            statuses.add(ended(child))
        stop.set()
        [thread.join() for thread in threads]
        show(statuses)
    """)
    assert shown == ["{0}"]
    assert roots.left() == []


def test_a_storm_of_joins_and_leaves_removes_nothing_under_a_member(roots: Roots) -> None:
    """Eight processes join and leave the places of three trees; each looks for its own file while a member."""
    shown = roots.run("""
        def storm(number, start, rounds):
            start.wait()
            for round in range(rounds):
                be_of_tree(b"tree %d" % ((number + round) % 3))
                place = _runtime.join()
                mine = place.path / f"{number}"
                mine.write_text(str(round))
                os.sched_yield()
                if mine.read_text() != str(round) or not place.is_held():
                    os._exit(1)
                _runtime.leave()

        if __name__ == "__main__":
            context = mp.get_context("fork")
            start = context.Barrier(8)
            members = [context.Process(target=storm, args=(number, start, 150)) for number in range(8)]
            [member.start() for member in members]
            [member.join() for member in members]
            show(*[member.exitcode for member in members])
    """)
    assert shown == ["0 0 0 0 0 0 0 0"]
    assert roots.left() == []


def test_the_modules_import_and_say_so_where_files_cannot_be_locked() -> None:
    """The standard library is imported first, and the package's own first module not at all."""
    program = """
import logging, multiprocessing.util, os, secrets, shutil, sys, tempfile, types
sys.modules["batche"] = package = types.ModuleType("batche")
package.__path__ = [sys.argv[1]]
sys.platform = "win32"
sys.modules["fcntl"] = None
del os.register_at_fork, os.geteuid, os.O_NOFOLLOW, os.O_DIRECTORY
from batche import _capacity, _places, _runtime
from batche.errors import StoreError
for use in (_runtime.join, lambda: _places.named_place("n"), lambda: _places.make_private_directory(_places.Path("p"))):
    try:
        use()
    except StoreError as error:
        print("lacks" in str(error))
"""
    package = str(Path(errors.__file__).parent)
    output = subprocess.run([sys.executable, "-c", program, package], text=True, check=True, stdout=subprocess.PIPE)
    assert output.stdout.split() == ["True", "True", "True"]
