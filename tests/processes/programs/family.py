"""A program whose parent and child call one cached function."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from batche import cache_batch_variable
from tests.processes._tools import exit_status, fork

PARENT = "BATCHE_TEST_PARENT"


@cache_batch_variable("items")
def triple(items: list[int]) -> list[int]:
    return [3 * item for item in items]


@cache_batch_variable("items")
def tenfold(items: list[int]) -> list[int]:
    who = "parent" if os.environ[PARENT] == str(os.getpid()) else "child"
    for item in items:
        os.write(1, f"{who} computes {item}\n".encode())
    return [10 * item for item in items]


def child() -> int:
    assert tenfold([1, 2]) == [10, 20]
    return 0


def in_pool() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.apply(child)
        pool.close()
        pool.join()


def in_executor() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(child).result()


def in_loky() -> None:
    from loky import ProcessPoolExecutor as Loky

    with Loky(1) as executor:
        executor.submit(child).result()


def in_subprocess() -> None:
    subprocess.run([sys.executable, *sys.orig_argv[1:3], "os.fork", "not-used-before"], check=True)


def in_process(method: str) -> None:
    process = multiprocessing.get_context(method).Process(target=child)  # type: ignore[attr-defined]  # has one
    process.start()
    process.join()
    assert process.exitcode == 0


WAYS = {
    "os.fork": lambda: exit_status(fork(child)),
    "pool": in_pool,
    "executor": in_executor,
    "loky": in_loky,
    "subprocess": in_subprocess,
}


def main(way: str, used_before: str) -> None:
    os.environ[PARENT] = str(os.getpid())
    if used_before == "used-before":
        tenfold([1])
    WAYS[way]() if way in WAYS else in_process(way)
    answer = tenfold([1, 2])
    info = tenfold.cache_info()
    print(f"parent: {answer[0]} {answer[1]}, {info.misses} misses, {info.hits} hits", flush=True)
