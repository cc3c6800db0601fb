"""``store=`` given a mapping of the user's: a dict, a cachetools cache, one that refuses or raises."""

from __future__ import annotations

import gc
import multiprocessing
import shelve
import threading
import time
from collections import UserDict, defaultdict
from collections.abc import Callable, MutableMapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cachetools
import pytest

import batche
from batche import StoreError, cache_batch_variable
from batche._function import CachedFunction
from batche.stores.mapping import MappingStore, store_of
from batche.testing import recording
from batche.testing._driving import in_threads

Lists = CachedFunction[[list[Any]], list[Any]]


def squares(store: MutableMapping[str, Any], **options: Any) -> Lists:
    @cache_batch_variable("numbers", store=store, **options)
    def square(numbers: list[Any]) -> list[Any]:
        return [number * number for number in numbers]

    return square


def test_results_are_in_the_mapping_under_text_that_begins_with_the_namespace() -> None:
    held: dict[str, Any] = {}
    one, other = squares(held, name="one"), squares(held, name="other")
    assert (one([2, 3]), other([3])) == ([4, 9], [9])
    assert sorted(held.values()) == [4, 9, 9]
    assert all(type(key) is str for key in held)
    spaces = [key.partition(":")[0] for key in held]
    assert sorted(spaces.count(space) for space in set(spaces)) == [1, 2]
    assert one([3, 2, 2]) == [9, 4, 4]
    assert one.cache_info()[:4] == (3, 2, None, 3)


def test_a_cache_that_is_empty_is_a_mapping_all_the_same() -> None:
    held = cachetools.LRUCache[str, Any](10)
    square = squares(held)
    with recording(square) as computed:
        square([1, 2])
        square([2, 3])
    assert computed == [1, 2, 3]
    assert len(held) == 3


def test_clearing_one_of_two_functions_leaves_the_evictions_which_are_the_mappings() -> None:
    held = cachetools.LRUCache[str, Any](2)
    one, other = squares(held, name="one"), squares(held, name="other")
    one([1, 2, 3, 4])
    other([5])
    evicted = one.cache_info().evictions
    assert evicted > 0
    other.cache_clear()
    assert one.cache_info().evictions == evicted
    one.cache_clear()
    assert one.cache_info().evictions == 0


def test_the_mappings_own_limit_and_order_hold() -> None:
    square = squares(cachetools.LRUCache(3))
    square([1, 2, 3])
    square([1])
    assert square.cache_contains([2, 3, 1]) == [True, True, True]  # no use
    square([4])
    assert square.cache_contains([1, 2, 3, 4]) == [True, False, True, True]
    info = square.cache_info()
    assert (info.maxsize, info.currsize, info.evictions) == (3, 3, 1)
    assert square.cache_parameters()["maxsize"] == 3
    assert square(list(range(10))) == [number**2 for number in range(10)]


def test_the_mappings_own_expiry_holds() -> None:
    now = [0.0]
    square = squares(cachetools.TTLCache(10, ttl=5, timer=lambda: now[0]))
    with recording(square) as computed:
        square([1])
        now[0] = 4
        square([1])
        assert square.cache_contains([1]) == [True]
        now[0] = 6
        assert square.cache_contains([1]) == [False]
        square([1])
    assert computed == [1, 1]


def test_a_value_that_the_mapping_refuses_is_returned_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    held = cachetools.LRUCache[str, Any](10, getsizeof=lambda value: value)
    square = squares(held)
    for _ in range(2):
        assert square([2, 5]) == [4, 25]
    assert list(held.values()) == [4]
    info = square.cache_info()
    assert (info.rejected, info.errors, info.currsize, info.maxsize) == (2, 0, 4, 10)
    assert [record.getMessage() for record in caplog.records].count(caplog.records[0].getMessage()) == 1
    assert "or the mapping's own limit; raise it" in caplog.records[0].getMessage()


class Raising(UserDict[str, Any]):
    """Raises in what it is told to."""

    failing = ""

    def __getitem__(self, key: str) -> Any:
        if self.failing == "get":
            raise RuntimeError("no reading")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if self.failing == "set":
            raise RuntimeError("no storing")
        super().__setitem__(key, value)


@pytest.mark.parametrize("failing", ["get", "set"])
def test_a_mapping_that_raises_is_trouble_with_the_store(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    held = Raising()
    square, strict = squares(held, name="s"), squares(held, name="s", strict=True)
    square([1])
    held.failing = failing
    assert square([1, 2]) == [1, 4]
    assert square.cache_info().errors == 1
    assert "the mapping of type Raising: RuntimeError: no " in caplog.text
    with pytest.raises(StoreError, match="RuntimeError") as raised:
        strict([1, 3])
    assert isinstance(raised.value.__cause__, RuntimeError)
    held.failing = ""
    assert square([1, 2, 3]) == [1, 4, 9]  # no claim was left behind


def test_a_mapping_that_makes_what_is_missing_is_not_asked_to() -> None:
    square = squares(defaultdict(lambda: "made"))
    assert square([1, 2]) == [1, 4]


def test_a_mapping_on_disk(tmp_path: Path) -> None:
    for expected in ([1, 2], []):
        with shelve.open(str(tmp_path / "shelf")) as shelf:
            square = squares(shelf, name="square", version="1")
            with recording(square) as computed:
                assert square([1, 2]) == [1, 4]
            assert computed == expected


def test_results_are_copied_so_that_nobody_changes_the_cache() -> None:
    held: dict[str, Any] = {}

    @cache_batch_variable("xs", store=held)
    def wrap(xs: list[int]) -> list[list[int]]:
        return [[x] for x in xs]

    for _ in range(3):
        one, same = wrap([1, 1])
        one.append(9)
        assert same == [1]
    assert list(held.values()) == [[1]]


def test_clearing_removes_only_what_is_the_functions() -> None:
    held: dict[Any, Any] = {"mine": 1, 5: 2}
    one, other = squares(held), squares(held)
    one([1, 2])
    other([3])
    one.cache_clear()
    assert one.cache_contains([1, 2]) == [False, False]
    assert other.cache_contains([3]) == [True]
    assert len(held) == 3
    assert (held["mine"], held[5]) == (1, 2)
    assert other.cache_invalidate([3, 4]) == 1


@pytest.mark.parametrize(
    "options", [{"maxsize": 5}, {"max_bytes": 5}, {"ttl": 5}], ids=lambda options: next(iter(options))
)
def test_a_limit_beside_a_mapping_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give them to the LRUCache \(as cachetools.LRUCache\(maxsize\)"):
        squares(cachetools.LRUCache(3), **options)


def test_one_mapping_has_one_store_for_as_long_as_it_is_used() -> None:
    held: dict[str, Any] = {}
    one, other, another = squares(held), squares(held), squares({})
    assert one.store is other.store is store_of(held)
    assert one.store is not another.store
    before = id(one.store)
    del one, other
    gc.collect()
    assert store_of(held) is not None
    assert isinstance(store_of({}), MappingStore)
    assert before


class Watching(dict[str, Any]):
    """Notes whether two threads were ever inside of it at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.crowded = False

    def __setitem__(self, key: str, value: Any) -> None:
        self.inside += 1
        time.sleep(0)  # the interpreter changes threads here
        self.crowded |= self.inside > 1
        super().__setitem__(key, value)
        self.inside -= 1


def test_functions_that_share_a_mapping_are_never_inside_of_it_at_one_time() -> None:
    held = Watching()
    functions = [squares(held) for _ in range(4)]

    def call(index: int) -> list[list[Any]]:
        return [functions[index]([number]) for number in range(100)]

    answers = in_threads(4, call)
    assert answers == [[[number * number] for number in range(100)]] * 4
    assert not held.crowded


def test_threads_compute_once_and_wait_for_one_another() -> None:
    inside, go = threading.Event(), threading.Event()
    computed: list[int] = []

    @cache_batch_variable("xs", store=cachetools.LRUCache(10))
    def slow(xs: list[int]) -> list[int]:
        computed.extend(xs)
        inside.set()
        assert go.wait(30)
        return [-x for x in xs]

    answers: list[list[int]] = []
    threads = [threading.Thread(target=lambda: answers.append(slow([1]))) for _ in range(2)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert answers == [[-1], [-1]]
    assert computed == [1]


def test_code_of_the_mapping_may_call_a_cached_function() -> None:
    inner = squares({})

    def size(value: Any) -> int:
        return len(inner([value]))

    outer = squares(cachetools.LRUCache(5, getsizeof=size))
    assert outer([1, 2, 3]) == [1, 4, 9]


def test_another_thread_that_is_stuck_in_one_mapping_keeps_nobody_from_another() -> None:
    held = MappingStore({})
    with held._guard.lock:
        assert in_threads(1, lambda _: squares({})([2])) == [[4]]


# ---- forks ----


class Slow(dict[str, Any]):
    """Waits in the midst of a change until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go = threading.Event(), threading.Event()
        self.whole = True
        self.slow = False

    def __setitem__(self, key: str, value: Any) -> None:
        self.whole = False
        if self.slow:
            self.inside.set()
            assert self.go.wait(30)
        super().__setitem__(key, value)
        self.whole = True


def _in_child(square: Lists, held: Slow, answers: Connection) -> None:
    held.slow = False
    answers.send((held.whole, square([1, 2]), square.cache_info().errors))


def _fork_inside(release: Callable[[Slow], object]) -> tuple[bool, list[int], int]:
    """Fork while another thread is changing the mapping; what the child sees of it."""
    held = Slow()
    square = squares(held)
    square([1])
    held.slow = True
    writer = threading.Thread(target=square, args=([3],))
    writer.start()
    assert held.inside.wait(30)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(square, held, sender))
    release(held)
    child.start()
    held.go.set()
    writer.join(30)
    answered = receiver.poll(30)
    if not answered:
        child.kill()
    child.join()
    assert answered
    answer: tuple[bool, list[int], int] = receiver.recv()
    return answer


def test_a_fork_waits_for_whoever_is_changing_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batche._forks.PATIENCE", 30.0)

    def soon(held: Slow) -> None:
        threading.Timer(0.05, held.go.set).start()

    assert _fork_inside(soon) == (True, [1, 4], 0)


def test_a_fork_waits_so_long_only_and_the_child_then_leaves_the_mapping_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batche._forks.PATIENCE", 0.01)
    assert _fork_inside(lambda held: None) == (False, [1, 4], 1)


def test_a_child_has_its_own_copy() -> None:
    square = squares({})
    square([1])
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        with recording(square) as computed:
            square([1, 2])
        sender.send(list(computed))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert receiver.poll(30)
    assert receiver.recv() == [2]
    assert square.cache_contains([1, 2]) == [True, False]


def test_a_third_partys_store_needs_neither_hash_nor_weak_references() -> None:
    from tests.stores.test_contract import SmallStore

    store = SmallStore()
    assert isinstance(store, batche.Store)
    with pytest.raises(TypeError):
        hash(store)
    one, other = squares(store), squares(store)  # type: ignore[arg-type]  # a Store is taken as well
    assert one([1, 2]) == one([1, 2]) == [1, 4]
    assert one._bound().settings.wakeups is other._bound().settings.wakeups
    assert squares(SmallStore())._bound().settings.wakeups is not one._bound().settings.wakeups  # type: ignore[arg-type]  # as above
