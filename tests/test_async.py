"""Async functions: the same cache, the loop goes on, and whoever is cancelled or destroyed leaves nothing held."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import gc
import inspect
import logging
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import httpx
import pytest
from blockbuster import BlockBuster, BlockingError
from fastapi import FastAPI

from batche import (
    BatchError,
    CacheInfo,
    Failed,
    LmdbStore,
    ResultLengthError,
    SignatureError,
    StoreError,
    cache_batch_variable,
)
from batche._binding import private
from batche._function import AsyncCachedFunction
from batche._types import Call, Entry, Key, Owner, Stored
from batche.stores.base import Answer

if sys.platform != "win32":
    import uvloop

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LONGEST = 60.0
"""Seconds that a crowd of tasks may take to come to its waits."""
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """As `asyncio.run`, with each kind of loop."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(main)

    return run


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of functions that share a cache, of this test alone."""
    return str(request.node.nodeid)


class Held:
    """Computes ten times each item, and writes down which; a call tells that it is inside and waits for its go."""

    def __init__(self, **options: Any) -> None:
        self.computed: list[Any] = []
        self.inside = asyncio.Event()
        self.go = asyncio.Event()
        self.cached: Any = cache_batch_variable("items", **options)(self._function())

    def _function(self) -> Any:
        async def ten_times(items: list[int]) -> list[int]:
            self.computed.extend(items)
            self.inside.set()
            await self.go.wait()
            return [10 * item for item in items]

        return ten_times

    def begin(self, items: Sequence[int]) -> asyncio.Task[list[int]]:
        return asyncio.create_task(self.cached(list(items)))

    async def waiters(self, number: int) -> None:
        """Return once so many of this process's callers wait for somebody else."""
        listeners = self.cached.store.wakeups._listeners
        deadline = time.monotonic() + LONGEST  # uvloop lets no test's time limit through
        while len({ring for rings in list(listeners.values()) for ring in list(rings)}) < number:
            assert time.monotonic() < deadline, f"not {number} callers wait"
            await asyncio.sleep(number / 100_000)  # a glance at a crowd takes a while


@cache_batch_variable("texts")
async def upper(texts: list[str], model: str = "small") -> list[str]:
    """In capitals."""
    await asyncio.sleep(0)
    return [f"{model}:{text.upper()}" for text in texts]


# ---- what it is ----


class Handler:
    async def __call__(self, texts: list[str]) -> list[str]:
        return texts

    @cache_batch_variable("texts", ignore=("self",))
    async def method(self, texts: list[str]) -> list[str]:
        return texts

    @cache_batch_variable("texts")
    @classmethod
    async def of_class(cls, texts: list[str]) -> list[str]:
        return texts

    @cache_batch_variable("texts")
    @staticmethod
    async def of_nothing(texts: list[str]) -> list[str]:
        return texts


COROUTINE_FUNCTIONS: dict[str, Any] = {
    "function": upper,
    "method": Handler().method,
    "method of the class": Handler.method,
    "class method": Handler.of_class,
    "static method": Handler.of_nothing,
    "partial": functools.partial(upper, model="large"),
    "callable object": cache_batch_variable("texts")(Handler()),
    "decorated partial": cache_batch_variable("texts")(functools.partial(upper.__wrapped__, model="large")),
    "copy": copy.deepcopy(upper),
}


@pytest.mark.parametrize("function", COROUTINE_FUNCTIONS.values(), ids=COROUTINE_FUNCTIONS)
def test_it_is_a_coroutine_function(function: Any) -> None:
    assert inspect.iscoroutinefunction(function)
    if sys.version_info < (3, 14):  # where asyncio's own question is deprecated
        assert asyncio.iscoroutinefunction(function)
    answer = function(["a"])
    assert inspect.iscoroutine(answer)
    answer.close()


def test_a_sync_function_is_none() -> None:
    def function(texts: list[str]) -> list[str]:
        return texts

    assert not inspect.iscoroutinefunction(cache_batch_variable("texts")(function))


def test_it_looks_like_the_function() -> None:
    assert isinstance(upper, AsyncCachedFunction)
    assert (upper.__name__, upper.__doc__, upper.__module__) == ("upper", "In capitals.", __name__)
    assert inspect.signature(upper) == inspect.signature(upper.__wrapped__)
    assert str(inspect.signature(Handler().method)) == "(texts: 'list[str]') -> 'list[str]'"


def test_it_goes_where_the_function_goes(run: Run[Any]) -> None:
    assert pickle.loads(pickle.dumps(upper)) is copy.copy(upper) is copy.deepcopy(upper) is upper

    async def local(texts: list[str]) -> list[str]:
        return [text.lower() for text in texts]

    there = pickle.loads(cloudpickle.dumps(cache_batch_variable("texts", name="test_goes")(local)))
    assert inspect.iscoroutinefunction(there)
    assert run(there(["A"])) == ["a"]


def test_an_async_generator_function_is_refused() -> None:
    async def stream(texts: list[str]) -> Any:
        yield texts

    with pytest.raises(SignatureError, match="stream: an async generator function is not cached"):
        cache_batch_variable("texts")(stream)


# ---- the same answers, the same cache ----


def test_a_call_answers_as_the_function_does(run: Run[Any]) -> None:
    given: list[list[str]] = []

    @cache_batch_variable("texts")
    async def lengths(texts: list[str] | None) -> list[int] | None:
        given.append(texts) if texts is not None else None
        return None if texts is None else [len(text) for text in texts]

    async def main() -> None:
        assert await lengths(["a", "bb", "a"]) == [1, 2, 1]
        assert await lengths(["bb", "ccc"]) == [2, 3]
        assert await lengths([]) == []
        assert await lengths(None) is None

    run(main())
    assert given == [["a", "bb"], ["ccc"]]
    assert lengths.cache_info()[:4] == (2, 3, None, 3)


def test_attributes_that_may_wait_are_awaited(run: Run[Any]) -> None:
    async def main() -> None:
        await upper.cache_clear()
        assert await upper(["a", "b"]) == ["small:A", "small:B"]
        assert await upper.cache_contains(["a", "c"]) == [True, False]
        assert await upper.cache_contains(["a"], model="large") == [False]
        assert await upper.cache_invalidate(["a", "c"]) == 1
        assert await upper.cache_warm(text for text in ["a", "b", "c"]) == 2
        assert await upper.cache_refresh(["c"]) == ["small:C"]
        await upper.cache_put(["put"], ["d"])
        assert await upper(["d"]) == ["put"]

    run(main())
    assert isinstance(upper.cache_info(), CacheInfo)
    assert upper.cache_parameters()["batch_variable_name"] == "texts"
    assert isinstance(upper.store, LmdbStore)
    run(upper.cache_clear())
    assert upper.cache_info()[:4] == (0, 0, None, 0)


def test_a_sync_function_of_its_name_and_version_has_its_cache(run: Run[Any], name: str) -> None:
    decorate = cache_batch_variable("texts", name=name, version="1")

    @decorate
    async def twin(texts: list[str]) -> list[str]:
        return [f"async {text}" for text in texts]

    @decorate
    def other(texts: list[str]) -> list[str]:
        return [f"sync {text}" for text in texts]

    other(["a"])
    assert run(twin(["a", "b"])) == ["sync a", "async b"]
    assert other(["a", "b"]) == ["sync a", "async b"]
    assert twin.cache_info() == other.cache_info()
    assert twin.cache_info()[:2] == (3, 2)


def test_failures_are_those_of_sync_functions(run: Run[Any]) -> None:
    @cache_batch_variable("items")
    async def some_fail(items: list[int]) -> list[Any]:
        return [Failed(ValueError(item)) if item % 2 else item for item in items]

    @cache_batch_variable("items")
    async def short(items: list[int]) -> list[int]:
        return items[1:]

    with pytest.raises(BatchError) as caught:
        run(some_fail([1, 2, 3]))
    assert caught.value.indices == (0, 2)
    assert run(some_fail.cache_contains([1, 2, 3])) == [False, True, False]
    with pytest.raises(ResultLengthError):
        run(short([1]))


def test_the_function_sees_the_context_of_its_caller(run: Run[Any]) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    answered: contextvars.ContextVar[bool] = contextvars.ContextVar("answered")

    @cache_batch_variable("texts")
    async def tagged(texts: list[str]) -> list[str]:
        answered.set(True)
        return [f"{request.get()} {text}" for text in texts]

    async def ask(name: str) -> list[str]:
        request.set(name)
        found = await tagged([name])
        assert answered.get()  # as of any function that is awaited
        return found

    async def main() -> list[list[str]]:
        return [*await asyncio.gather(ask("a"), ask("b"))]

    assert run(main()) == [["a a"], ["b b"]]


def test_wrappers_are_async_where_what_they_wrap_is(run: Run[Any]) -> None:
    async def inner(texts: list[str]) -> list[str]:
        return texts

    @functools.wraps(inner)
    def logging_wrapper(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    def function(texts: list[str]) -> list[str]:
        return texts

    @functools.wraps(function)
    async def threaded(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    for wrapper in (logging_wrapper, threaded):
        cached: Any = cache_batch_variable("texts")(wrapper)
        assert inspect.iscoroutinefunction(cached)
        assert [run(cached(["a"])), run(cached(["a"]))] == [["a"], ["a"]]
        assert cached.cache_info()[:2] == (1, 1)


def test_fastapi_awaits_it_as_an_endpoint_and_as_a_dependency(run: Run[Any], name: str) -> None:
    from fastapi import Depends

    app, computed = FastAPI(), list[str]()

    @app.post("/upper")
    @cache_batch_variable("texts", name=name)
    async def endpoint(texts: list[str], model: str = "small") -> list[str]:
        computed.extend(texts)
        asyncio.get_running_loop()
        return [f"{model}:{text.upper()}" for text in texts]

    async def dependent(found: list[str] = Depends(Handler().method)) -> list[str]:  # noqa: B008 - FastAPI's form
        return found

    app.post("/method")(dependent)

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(2):
                answer = await client.post("/upper", json=["a", "b", "a"], params={"model": "large"})
                assert answer.json() == ["large:A", "large:B", "large:A"]
            assert (await client.post("/method", json=["c"])).json() == ["c"]
            assert (await client.post("/upper", json="a")).status_code == 422

    run(main())
    assert computed == ["a", "b"]


# ---- single-flight ----


def test_tasks_that_ask_for_the_same_share_one_computation(run: Run[Any]) -> None:
    async def main() -> Held:
        held = Held()
        owner = held.begin([1, 2])
        await held.inside.wait()
        waiters = [held.begin([2, item, 1]) for item in (3, 3, 4)]
        held.go.set()
        assert await asyncio.gather(owner, *waiters) == [[10, 20], [20, 30, 10], [20, 30, 10], [20, 40, 10]]
        return held

    held = run(main())
    assert sorted(held.computed) == [1, 2, 3, 4]
    info = held.cached.cache_info()
    assert (info.misses, info.hits + info.waits) == (4, 7)


@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_threads_and_loops_share_one_computation(loop: str, name: str) -> None:
    decorate, computed = cache_batch_variable("items", name=name, version="1"), Counter[int]()
    noted, start = threading.Lock(), threading.Barrier(6)

    def note(items: list[int]) -> list[int]:
        with noted:
            computed.update(items)
        return [10 * item for item in items]

    @decorate
    async def in_task(items: list[int]) -> list[int]:
        await asyncio.sleep(0.001)  # others come to ask meanwhile
        return note(items)

    @decorate
    def in_thread(items: list[int]) -> list[int]:
        return note(items)

    batches = [[*range(at, at + 30, 3), *range(100, 120)] for at in range(20)]

    async def ask_all() -> list[list[int]]:
        return list(await asyncio.gather(*map(in_task, batches)))

    def in_loop() -> list[list[int]]:
        start.wait()
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            return runner.run(ask_all())

    def one_by_one() -> list[list[int]]:
        start.wait()
        return list(map(in_thread, batches))

    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(work) for work in (in_loop, one_by_one) * 3]
        assert all(answer.result() == [[10 * item for item in batch] for batch in batches] for answer in answers)
    assert computed == dict.fromkeys({item for batch in batches for item in batch}, 1)
    info = in_task.cache_info()
    assert info.misses == len(computed)
    assert info.hits + info.waits + info.misses == 6 * sum(map(len, batches))


def _threads_started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    started: list[str] = []
    start = threading.Thread.start

    def noting(self: threading.Thread) -> None:
        started.append(self.name)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noting)
    monkeypatch.setattr(private, "may_discard", lambda: False)  # functions of other tests, collected meanwhile
    return started


@pytest.mark.slow
@pytest.mark.parametrize("run", ["asyncio"], indirect=True)
def test_ten_thousand_tasks_wait_for_one_item_and_hold_no_thread(
    run: Run[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = _threads_started(monkeypatch)

    async def main() -> Held:
        held = Held()
        tasks = [held.begin([1]) for _ in range(10_000)]  # the store is not open yet, either
        await held.waiters(9_999)
        held.go.set()
        assert await asyncio.gather(*tasks) == [[10]] * 10_000
        return held

    held = run(main())
    assert held.computed == [1]
    assert len(started) == 1  # which opened the store
    assert held.cached.cache_info()[:2] == (0, 1)
    assert held.cached.cache_info().waits == 9_999


@pytest.mark.slow
@pytest.mark.parametrize("run", list(LOOPS)[-1:], indirect=True)
def test_ten_thousand_tasks_wait_for_items_of_one_owner_and_hold_no_thread(
    run: Run[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = _threads_started(monkeypatch)

    async def main() -> Held:
        held = Held()
        owner = held.begin(range(10_000))
        await held.inside.wait()
        tasks = [held.begin([item]) for item in range(10_000)]
        await held.waiters(10_000)
        held.go.set()
        assert await asyncio.gather(*tasks) == [[10 * item] for item in range(10_000)]
        await owner
        return held

    held = run(main())
    assert held.computed == list(range(10_000))
    assert len(started) == 1
    assert held.cached.cache_info().waits == 10_000


def test_wait_timeout_is_how_long_a_task_waits_for_another(run: Run[Any]) -> None:
    async def main() -> Held:
        held = Held(wait_timeout=0.01)
        owner = held.begin([1])
        await held.inside.wait()
        impatient = held.begin([1])
        while len(held.computed) < 2:
            await asyncio.sleep(0)
        held.go.set()
        assert [*await asyncio.gather(owner, impatient)] == [[10], [10]]
        return held

    held = run(main())
    assert held.computed == [1, 1]
    assert held.cached.cache_info().misses == 2


# ---- who is cancelled, fails or is destroyed ----


def test_a_cancelled_waiter_hurts_nobody(run: Run[Any]) -> None:
    async def main() -> Held:
        held = Held()
        owner = held.begin([1])
        await held.inside.wait()
        cancelled, waiter = held.begin([1]), held.begin([1])
        await held.waiters(2)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await held.waiters(1)
        held.go.set()
        assert [*await asyncio.gather(owner, waiter)] == [[10], [10]]
        return held

    held = run(main())
    assert held.computed == [1]
    assert held.cached.cache_info().takeovers == 0


def test_a_cancelled_owner_is_followed_by_one_waiter_and_the_others_wait_on(run: Run[Any]) -> None:
    async def main() -> Held:
        held = Held()
        owner = held.begin([1])
        await held.inside.wait()
        waiters = [held.begin([1]) for _ in range(20)]
        await held.waiters(20)
        held.inside.clear()
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        await held.inside.wait()
        await held.waiters(19)
        held.go.set()
        assert await asyncio.gather(*waiters) == [[10]] * 20
        return held

    held = run(main())
    assert held.computed == [1, 1]
    info = held.cached.cache_info()
    assert (info.misses, info.waits, info.takeovers) == (2, 19, 1)


def test_a_timeout_around_a_call_ends_it_and_its_claims(run: Run[Any]) -> None:
    async def main() -> Held:
        held = Held()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await held.cached([1])
        held.go.set()
        assert await held.cached([1]) == [10]
        return held

    held = run(main())
    assert held.cached.cache_info().waits == 0


def test_a_failing_owner_raises_for_itself_alone(run: Run[Any]) -> None:
    class FailedError(Exception):
        pass

    class StoppedError(BaseException):
        pass

    async def main(error: type[BaseException]) -> CacheInfo:
        errors, inside, go = [error], asyncio.Event(), asyncio.Event()

        @cache_batch_variable("items")
        async def failing_once(items: list[int]) -> list[int]:
            inside.set()
            await go.wait()
            if errors:
                raise errors.pop()
            return items

        async def ask() -> list[int]:
            return await failing_once([1])

        owner = asyncio.create_task(ask())
        await inside.wait()
        waiters = [asyncio.create_task(ask()) for _ in range(10)]
        listeners = failing_once.store.wakeups._listeners  # type: ignore[attr-defined]  # of an LmdbStore
        while sum(map(len, listeners.values())) < 10:
            await asyncio.sleep(0)
        go.set()
        with pytest.raises(error):
            await owner
        assert await asyncio.gather(*waiters) == [[1]] * 10
        return failing_once.cache_info()

    failed, stopped = run(main(FailedError)), run(main(StoppedError))
    assert (failed.misses, failed.waits, failed.takeovers) == (2, 9, 0)
    assert (stopped.misses, stopped.waits, stopped.takeovers) == (2, 9, 1)


def test_the_end_of_a_loop_releases_what_its_tasks_held(run: Run[Any]) -> None:
    held: list[Held] = []

    async def main() -> None:
        held.append(Held())
        held[0].begin([1, 2]).add_done_callback(lambda task: None)
        await held[0].inside.wait()

    run(main())  # ends while the task computes: it is cancelled

    async def again() -> Any:
        held[0].go = asyncio.Event()
        held[0].go.set()
        return await held[0].cached([2, 1])

    assert run(again()) == [20, 10]
    info = held[0].cached.cache_info()
    assert (info.misses, info.waits) == (4, 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_is_destroyed_releases_what_it_held(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")  # which says that it was destroyed
    owning, other = LOOPS[loop](), LOOPS[loop]()
    held = Held()

    async def begin_and_wait() -> list[asyncio.Task[Any]]:
        owner = held.begin([1])
        await held.inside.wait()
        waiter = held.begin([1])
        await held.waiters(1)
        return [owner, waiter]

    tasks = owning.run_until_complete(begin_and_wait())
    owning.close()  # and nobody cancelled them
    held.go = asyncio.Event()
    held.go.set()
    for task in tasks:
        task.get_coro().close()  # as the collector does, at a time of its own
    try:
        assert other.run_until_complete(held.cached([1])) == [10]
    finally:
        other.close()
    tasks.clear()
    gc.collect()
    info = held.cached.cache_info()
    assert (info.misses, info.waits) == (3, 0)  # what nobody lived to answer counts as missed
    assert not held.cached.store.wakeups._listeners


# ---- calls inside of calls ----


def test_a_function_may_call_itself_with_what_it_computes(run: Run[Any]) -> None:
    @cache_batch_variable("items")
    async def reentrant(items: list[int]) -> list[int]:
        if len(items) > 1:
            assert await reentrant(items[:1]) == [10 * items[0]]
            async with asyncio.TaskGroup() as group:
                inner = [group.create_task(_coroutine(reentrant([item]))) for item in items]
            assert [task.result() for task in inner] == [[10 * item] for item in items]
        return [10 * item for item in items]

    assert run(reentrant([1, 2, 3])) == [10, 20, 30]


async def _coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def test_two_functions_that_call_each_other_from_two_tasks_both_finish(run: Run[Any]) -> None:
    async def main() -> None:
        inside = {"f": asyncio.Event(), "g": asyncio.Event()}

        @cache_batch_variable("items")
        async def f(items: list[int]) -> list[int]:
            if 2 in items:
                inside["f"].set()
                await inside["g"].wait()
                assert await g([1]) == [10]
            return [10 * item for item in items]

        @cache_batch_variable("items")
        async def g(items: list[int]) -> list[int]:
            if 2 in items:
                inside["g"].set()
                await inside["f"].wait()
                assert await f([1]) == [10]
            return [10 * item for item in items]

        async with asyncio.timeout(60):
            assert [*await asyncio.gather(_coroutine(f([1, 2])), _coroutine(g([1, 2])))] == [[10, 20], [10, 20]]

    run(main())


def test_a_sync_call_in_the_loop_does_not_wait_for_a_task_that_it_stops(run: Run[Any], name: str) -> None:
    decorate = cache_batch_variable("items", name=name, version="1")

    @decorate
    def sync(items: list[int]) -> list[int]:
        return [10 * item for item in items]

    async def main() -> None:
        inside, go = asyncio.Event(), asyncio.Event()

        @decorate
        async def held(items: list[int]) -> list[int]:
            inside.set()
            await go.wait()
            return [10 * item for item in items]

        owner = asyncio.create_task(_coroutine(held([1])))
        await inside.wait()
        assert sync([1, 2]) == [10, 20]  # would wait for ever: the owner cannot go on meanwhile
        beside = asyncio.create_task(asyncio.to_thread(sync, [1]))  # stops nobody, so it waits
        while not held.store.wakeups._listeners:  # type: ignore[attr-defined]  # of an LmdbStore
            await asyncio.sleep(0)
        go.set()
        assert [*await asyncio.gather(owner, beside)] == [[10], [10]]

    run(main())
    assert sync.cache_info()[1] == 3
    assert sync.cache_info().waits == 1


# ---- the loop goes on ----


@pytest.fixture
def detector() -> Iterator[BlockBuster]:
    """Raises where something that may block is called in a loop."""
    detector = BlockBuster()
    for name in ("os.stat", "os.statvfs"):  # the store looks at its files in shared memory, which waits for nothing
        del detector.functions[name]
    detector.functions["os.listdir"].can_block_in("batche/stores/lmdb/descriptors.py", {"_all"})  # of /proc
    detector.activate()
    yield detector
    detector.deactivate()


def test_the_detector_detects(detector: BlockBuster) -> None:
    import time

    @cache_batch_variable("items")
    async def blocking(items: list[int]) -> list[int]:
        time.sleep(0.001)
        return items

    with pytest.raises(BlockingError):
        asyncio.run(blocking([1]))


def test_nothing_blocks_the_loop(run: Run[Any], detector: BlockBuster) -> None:
    @cache_batch_variable("items", maxsize=20_000)
    async def ten_times(items: list[int]) -> list[int]:
        return [10 * item for item in items]

    async def main() -> None:
        many = list(range(5_000))
        await ten_times([1])  # which opens the store
        await ten_times([1, 2])
        await asyncio.gather(*[ten_times([item, item + 1]) for item in range(50)])
        assert await ten_times(many) == [10 * item for item in many]
        assert await ten_times(many) == [10 * item for item in many]
        assert all(await ten_times.cache_contains(many))
        assert await ten_times.cache_warm(iter(range(4_000, 8_000))) == 3_000
        await ten_times.cache_refresh(many)
        await ten_times.cache_put(many, many)
        assert await ten_times.cache_invalidate(many) == 5_000
        ten_times.cache_info()
        await ten_times.cache_clear()

    run(main())


class Watched:
    """A store whose steps are written down, with the turn of the loop that each was in."""

    encoded = True

    def __init__(self, path: Path) -> None:
        self._store = LmdbStore(path)
        self.turn = 0
        self.keys = Counter[int]()
        self.owned = Counter[int]()
        self.steps = Counter[str]()

    def _note(self, name: str, keys: int) -> None:
        self.steps[name] += 1
        self.keys[self.turn] += keys

    async def count_turns(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def read(self, keys: Sequence[Key], /, *, use: bool = True) -> Sequence[Entry | None]:
        self._note("read", len(keys))
        return self._store.read(keys, use=use)

    def claim(
        self, call: Call, keys: Sequence[Key], /, limit: int | None = None, *, force: bool = False
    ) -> Sequence[Answer]:
        answers = self._store.claim(call, keys, limit, force=force)
        self._note("claim", len(answers))
        return answers

    def put(
        self,
        call: Call,
        entries: Sequence[tuple[Key, Any]],
        /,
        drop: Sequence[Key] = (),
        claim: Sequence[Key] = (),
        limit: int | None = None,
        *,
        force: bool = False,
    ) -> Stored:
        stored = self._store.put(call, entries, drop, claim, limit, force=force)
        self._note("put", len(entries) - stored.rest + len(stored.claims))
        return stored

    def release(self, call: Call, /, *, abandoned: bool = False, counts: Mapping[str, int] | None = None) -> None:
        self._store.release(call, abandoned=abandoned, counts=counts)

    def owners(self, keys: Sequence[Key], /, before: Sequence[Owner | None] | None = None) -> Sequence[Owner | None]:
        owners = self._store.owners(keys, before)
        self._note("owners as before" if owners is before else "owners", 0)
        self.owned[self.turn] += len(keys)
        return owners

    def delete(self, keys: Sequence[Key], /) -> int:
        self._note("delete", len(keys))
        return self._store.delete(keys)

    def clear(self, namespace: bytes, /) -> int:
        return self._store.clear(namespace)

    def stats(self, namespace: bytes, /) -> CacheInfo:
        return self._store.stats(namespace)

    def close(self) -> None:
        self._store.close()


MOST = 1024
"""Keys that one transaction may hold."""


def test_results_that_are_too_large_keep_no_others_from_being_put(run: Run[Any], tmp_path: Path) -> None:
    @cache_batch_variable("items", store=tmp_path / "place", name="sized", max_bytes="1MiB")
    async def sized(items: list[int]) -> list[str]:
        return ["computed"] * len(items)

    async def main() -> None:
        items, new = list(range(60)), ["new"] * 55 + ["x" * (2 << 20)] * 5
        await sized.cache_put(["old"] * 60, items)
        await sized.cache_put(new, items)
        assert await sized(items) == ["new"] * 55 + ["computed"] * 5
        assert sized.cache_info().rejected == 5

    run(main())


def test_a_large_batch_lets_the_loop_turn_between_its_transactions(run: Run[Any], tmp_path: Path) -> None:
    store, many = Watched(tmp_path / "store"), list(range(5_000))

    @cache_batch_variable("items", store=store, name="test_large")
    async def ten_times(items: list[int]) -> list[int]:
        return [10 * item for item in items]

    async def main() -> None:
        counting = asyncio.create_task(store.count_turns())
        assert await ten_times(many) == [10 * item for item in many]
        assert store.steps == {"read": 5, "claim": 5, "put": 5}
        assert await ten_times(many) == [10 * item for item in many]
        await ten_times(many[:MOST_RECALLED])
        await ten_times.cache_contains(many)
        await ten_times.cache_refresh(many)
        await ten_times.cache_put(many, many)
        await ten_times.cache_invalidate(many)
        await ten_times.cache_warm(many)
        counting.cancel()

    run(main())
    assert max(store.keys.values()) <= MOST
    assert set(store.steps) == {"read", "claim", "put", "delete"}
    store.close()


MOST_RECALLED = 1000


def test_a_wait_for_a_large_batch_lets_the_loop_turn(run: Run[Any], tmp_path: Path) -> None:
    store, many = Watched(tmp_path / "store"), list(range(3_000))

    async def main() -> None:
        held = Held(store=store, name="test_large_wait")
        counting = asyncio.create_task(store.count_turns())
        owner = held.begin(many)
        await held.inside.wait()
        waiter = held.begin(many)
        while store.steps["owners as before"] < 6:  # the store knew its own answer again, for each part
            await asyncio.sleep(0)
        held.go.set()
        assert await owner == await waiter
        counting.cancel()

    run(main())
    assert max(store.owned.values()) <= MOST
    store.close()


def test_a_store_that_cannot_be_opened_is_said_to_each_who_asked(run: Run[Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    @cache_batch_variable("items", store=str(tmp_path / "file"), name="test_unopened", strict=True)
    async def strict(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        answers = await asyncio.gather(*[strict([1]) for _ in range(20)], return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreError] * 20
        (tmp_path / "file").unlink()
        assert await strict([1]) == [1]  # nothing of the failure is kept

    run(main())


def test_who_waits_for_the_opening_of_a_store_and_is_cancelled_stops_nobody(run: Run[Any]) -> None:
    async def main() -> None:
        held = Held()
        held.go.set()
        first, second = held.begin([1]), held.begin([1])
        await asyncio.sleep(0)  # both wait for the thread that opens it
        first.cancel()
        assert await second == [10]
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main())
