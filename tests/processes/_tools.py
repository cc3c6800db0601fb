"""What tests with real processes share: actors that do as they are told, flags and journals that order them.

Nothing here sleeps in the hope that something has happened: an actor that waits, waits for a file that another
one makes, and every wait ends with an error after `LONGEST` seconds.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

LONGEST: Final = 15.0
"""Seconds after which a wait in a test is a failure."""
GLANCE: Final = 0.0005
_SHOW: Final = getattr(signal, "SIGUSR2", signal.SIGTERM)
"""The signal at which an actor shows its stacks."""


def until(happened: Callable[[], object], what: str, seconds: float = LONGEST) -> None:
    """Return as soon as ``happened()`` is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(GLANCE)


def descriptors_in(directory: Path) -> list[tuple[int, str]]:
    """The descriptors that this process has on files in a directory, each with the name of its file (Linux)."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            path = os.readlink(f"/proc/self/fd/{name}")
            if path.startswith(str(directory)):
                found.append((int(name), Path(path).name))
    return sorted(found)


@dataclass(frozen=True)
class Flag:
    """Something that happened once: a file that is there. Known by its path in every process."""

    path: Path

    def set(self) -> None:
        self.path.touch()

    def is_set(self) -> bool:
        return self.path.exists()

    def wait(self) -> None:
        until(self.is_set, f"flag {self.path.name}")


@dataclass(frozen=True)
class Journal:
    """Lines that any process appends; each is written by one system call, so none is torn or lost."""

    path: Path

    def note(self, *lines: object) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
        finally:
            os.close(descriptor)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def counts(self) -> Counter[str]:
        return Counter(self.lines())

    def wait_for(self, number: int) -> None:
        until(lambda: len(self.lines()) >= number, f"{number} lines of {self.path.name}")


@dataclass(frozen=True)
class Scene:
    """The directory of one test: its store, flags and journals; and the options of its cached functions."""

    directory: Path
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def at(cls, directory: Path, **options: Any) -> Scene:
        return cls(directory, tuple(options.items()))

    def flag(self, name: object) -> Flag:
        return Flag(self.directory / f"{name}.flag")

    def journal(self, name: str = "computed") -> Journal:
        return Journal(self.directory / f"{name}.journal")

    @property
    def place(self) -> Path:
        return self.directory / "place"


class Task:
    """What an actor was told to do."""

    def __init__(self, actor: Actor, number: int) -> None:
        self._actor = actor
        self._number = number

    def is_done(self, within: float = 0) -> bool:
        return self._actor.has_answer(self._number, within)

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        if not self.is_done(LONGEST):
            self._actor.show_stacks()
            raise TimeoutError(f"an actor has not answered within {LONGEST:g} s")
        answer, error = self._actor.answers[self._number]
        if error is not None:
            raise error
        return answer

    def error(self) -> BaseException:
        """What it raised; an `AssertionError` if it did not."""
        try:
            answer = self.result()
        except BaseException as error:
            if isinstance(error, TimeoutError):
                raise
            return error
        raise AssertionError(f"an error was expected, not {answer!r}")


class Actor:
    """A process that runs functions of modules for a test, each in a thread of its own."""

    def __init__(self, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self._mine, theirs = multiprocessing.Pipe()
        self.process = context.Process(target=_act, args=(theirs,))
        self.process.start()
        theirs.close()
        self._numbers = itertools.count()
        self.answers: dict[int, tuple[Any, BaseException | None]] = {}

    @property
    def pid(self) -> int:
        pid = self.process.pid
        assert isinstance(pid, int)
        return pid

    def begin(self, function: Callable[..., Any], *arguments: Any, in_main_thread: bool = False) -> Task:
        number = next(self._numbers)
        self._mine.send((number, function, arguments, in_main_thread))
        return Task(self, number)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.begin(function, *arguments).result()

    def has_answer(self, number: int, within: float) -> bool:
        deadline = time.monotonic() + within
        while number not in self.answers:
            if not self._mine.poll(max(0.0, deadline - time.monotonic())):
                return False
            answered, *answer = self._mine.recv()
            self.answers[answered] = (answer[0], answer[1])
        return True

    def show_stacks(self) -> None:
        """Have it write where each of its threads stands to the standard error that it shares with the test."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, _SHOW)
            time.sleep(1)  # it has no way to say that it is done

    def kill(self) -> None:
        """SIGKILL; returns once it is dead."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.join(LONGEST)

    def freeze(self) -> None:
        """SIGSTOP; returns once it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        until(self._is_stopped, "the actor stands still")

    def _is_stopped(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def leave(self) -> None:
        """Let it end by itself, or kill it where it does not."""
        with contextlib.suppress(OSError):
            self.thaw()
            self._mine.send(None)
        self.process.join(5)
        if self.process.is_alive():
            self.kill()
        self._mine.close()


class Cast:
    """The actors of a test; all have left when the ``with`` is over."""

    def __init__(self) -> None:
        self._actors: list[Actor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            actor.leave()

    def actor(self, method: str = "fork") -> Actor:
        actor = Actor(method)
        self._actors.append(actor)
        return actor

    def actors(self, number: int, method: str = "fork") -> list[Actor]:
        return [self.actor(method) for _ in range(number)]


def _act(orders: Connection) -> None:
    if hasattr(faulthandler, "register"):
        faulthandler.register(_SHOW, file=2)
    sending = threading.Lock()
    while (order := orders.recv()) is not None:
        number, function, arguments, in_main_thread = order
        perform = threading.Thread(target=_perform, args=(orders, sending, number, function, arguments), daemon=True)
        perform.run() if in_main_thread else perform.start()


def _perform(orders: Connection, sending: Any, number: int, function: Callable[..., Any], arguments: Any) -> None:
    answer: Any = None
    error: BaseException | None = None
    me = os.getpid()
    try:
        answer = function(*arguments)
    except BaseException as raised:
        error = raised
    if os.getpid() != me:
        os._exit(99)  # a fork that came back up to here must not answer for its parent
    with sending:
        try:
            orders.send((number, answer, error))
        except Exception as unsendable:
            orders.send((number, None, RuntimeError(f"{error or answer!r}: {unsendable}")))


def fork(work: Callable[[], int | None]) -> int:
    """The pid of a new child of `os.fork` that runs ``work`` and ends with what it returned, or 98 if it raised."""
    pid = os.fork()
    if pid == 0:
        status = 98
        try:
            status = work() or 0
        finally:
            os._exit(status)
    return pid


def exit_status(pid: int) -> int:
    """How a child ended; it is killed, and this fails, if it has not ended after `LONGEST` seconds."""
    found: list[tuple[int, int]] = []

    def ended() -> bool:
        found.append(os.waitpid(pid, os.WNOHANG))
        return found[-1][0] == pid

    try:
        until(ended, f"child {pid} ends")
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(found[-1][1])
