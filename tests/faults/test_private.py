"""Nothing is opened, and nothing unpickled, in a directory that others have a part in, whatever its path leads to."""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batche import _places, _runtime, cache_batch_variable
from batche.errors import StoreError
from tests.faults._damage import SOMEBODY, Doubling, environment_of
from tests.faults._injection import TORTURE
from tests.faults.programs.swapping import OWN, attack_after_each
from tests.processes._tools import Cast, exit_status, fork, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a place needs POSIX file locks")


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


def open_to_the_group(path: Path) -> None:
    path.chmod(0o770)


def readable(path: Path) -> None:
    path.chmod(0o755)


def read_only(path: Path) -> None:
    path.chmod(0o500)


def somebody_elses(path: Path) -> None:
    os.chown(path, SOMEBODY, SOMEBODY)


def link(path: Path) -> None:
    path.symlink_to(path.rename(elsewhere(path)))


INJECTIONS: list[Callable[[Path], None]] = [
    open_to_all,
    open_to_the_group,
    readable,
    read_only,
    *([somebody_elses] if os.geteuid() == 0 else []),
    link,
]
"""What others can do, or a careless user. Only root gives directories away."""


def named(value: object) -> str:
    return getattr(value, "__name__", str(value))


class Payload:
    """What leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickled, (self.trace,)


def unpickled(trace: Path) -> Payload:
    trace.touch()
    return Payload(trace)


Where = tuple[Any, Path, bytes]


@pytest.fixture(params=["path", "shm", "runtime"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Where]:
    """What ``store=`` is given, the directory that it means, and the key of the process tree that uses it."""
    key, name = secrets.token_bytes(16), f"private-{secrets.token_hex(4)}"
    store, directory = {
        "path": (tmp_path / "place", tmp_path / "place"),
        "shm": (f"shm://{name}", _places.roots()[0] / f"batche-shm-{os.geteuid()}-{name}"),
        "runtime": (None, _places.roots()[0] / _runtime._name(key, os.geteuid())),
    }[request.param]
    yield store, directory, key
    for path in (directory, elsewhere(directory)):
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def elsewhere(path: Path) -> Path:
    return path.with_name(f"{path.name}-elsewhere")


def pickling(store: Any, answer: Callable[[], Any], *, strict: bool = False) -> Callable[[list[int]], list[Any]]:
    @cache_batch_variable("items", store=store, name="payloads", version="1", codec="pickle", strict=strict)
    def payloads(items: list[int]) -> list[Any]:
        return [answer() for _ in items]

    return payloads


def pickling_own(store: Any) -> Callable[[list[int]], list[Any]]:
    return pickling(store, own)


def in_tree(key: bytes, work: Callable[[], object]) -> None:
    """Do it in a process of the tree that has ``key``."""

    def child() -> int:
        multiprocessing.current_process().authkey = key
        work()
        return 0

    assert exit_status(fork(child)) == 0


def plant(key: bytes, store: Any, trace: Path) -> None:
    """Have another process store an entry whose bytes leave ``trace`` when they are unpickled."""
    in_tree(key, lambda: pickling(store, lambda: Payload(trace))([1]))
    trace.unlink(missing_ok=True)  # storing it may have looked whether it comes back the same


def own() -> str:
    """What a function answers that finds no entry."""
    return OWN


def below(directory: Path) -> dict[str, tuple[int, ...]]:
    """What is in a directory, and when it was changed last."""
    paths = sorted(directory.resolve().rglob("*"))
    return {str(path): (path.lstat().st_ino, path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def count_warnings() -> list[str]:
    """The messages that are logged in this process from now on."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]  # no other use of it
    logging.getLogger("batche").addHandler(handler)
    return told


@pytest.mark.parametrize("inject", INJECTIONS, ids=named)
def test_a_place_that_others_have_a_part_in_is_refused(
    where: Where, inject: Callable[[Path], None], tmp_path: Path
) -> None:
    store, directory, key = where
    trace = tmp_path / "trace"

    def refused() -> None:
        told, before = count_warnings(), below(directory)
        function = pickling(store, own)
        assert [function([1]), function([1])] == [["own"], ["own"]]
        assert len(told) == 1, told
        with pytest.raises(StoreError, match=r"choose another|chmod 700"):
            pickling(store, own, strict=True)([1])
        assert below(directory) == before

    plant(key, store, trace)
    assert environment_of(directory).is_dir()
    inject(directory)
    in_tree(key, refused)
    assert not trace.exists()


def test_the_payload_is_unpickled_from_a_place_that_is_private(where: Where, tmp_path: Path) -> None:
    """What the tests beside this one rely on."""
    store, _, key = where
    trace = tmp_path / "trace"
    plant(key, store, trace)
    in_tree(key, lambda: pickling(store, own)([1]))
    assert trace.exists()


@pytest.mark.parametrize("part", ["place", "environment"])
@pytest.mark.parametrize("inject", [open_to_all, link, *INJECTIONS[4:-1]], ids=named)
def test_a_directory_that_is_opened_to_others_while_it_is_in_use_is_left(
    where: Where, inject: Callable[[Path], None], part: str, tmp_path: Path
) -> None:
    store, directory, key = where
    trace = tmp_path / "trace"

    def leave() -> None:
        told = count_warnings()
        doubling = Doubling(store)
        doubling(1)
        inject(directory if part == "place" else environment_of(directory))
        until(lambda: not doubling(1), "it is noticed", seconds=8)
        assert len(told) == 1, told

    in_tree(key, leave)
    assert not trace.exists()


# ---- between the check and the use ----


def planted_at(directory: Path, trace: Path) -> Path:
    """Somebody else's place, whole, with a payload in it."""
    plant(b"somebody's", directory, trace)
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, SOMEBODY, SOMEBODY)
    return directory


STRIDE = 1 if TORTURE else 3
"""System calls from one that a swap comes after to the next such one."""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root plants files; elsewhere LMDB opens by path"
)
@pytest.mark.may_skip
@pytest.mark.parametrize("part", ["place", "environment"])
def test_who_swaps_the_directory_after_any_step_gets_nothing_opened(part: str, tmp_path: Path) -> None:
    place, trace = tmp_path / "place", tmp_path / "trace"
    in_tree(b"ours", lambda: pickling_own(place)([1]))
    planted = planted_at(tmp_path / "planted", trace)
    path = place if part == "place" else environment_of(place)
    with Cast() as cast:  # a small process with nothing open: it is forked a hundred times
        attacking = cast.actor("spawn").begin(
            attack_after_each, place, path, planted / path.relative_to(place), pickling_own, STRIDE
        )
        assert attacking.is_done(within=100)
        assert attacking.result() > 50
    assert not trace.exists()
