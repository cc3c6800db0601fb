"""`batche.testing`, which is public, is tested as everything else: `disabled`, `recording`, `StoreContract`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest

from batche import Codec, CodecError, LmdbStore, cache_batch_variable
from batche._hooks import hooks
from batche.stores.base import Store
from batche.stores.mapping import MappingStore
from batche.testing import LruStoreContract, Recording, ScannableStoreContract, StoreContract, disabled, recording
from batche.testing._driving import in_threads
from tests.stores.test_contract import SmallStore


def negated(store: Any = None, **options: Any) -> Any:
    @cache_batch_variable("xs", store=store if store is not None else {}, **options)
    def negate(xs: list[int]) -> list[int]:
        return [-x for x in xs]

    return negate


@pytest.fixture(autouse=True)
def _caching_is_on_again() -> Iterator[None]:
    yield
    assert hooks.off == 0


# ---- disabled ----


def test_disabled_computes_everything_and_leaves_the_cache_as_it_was() -> None:
    negate = negated()
    negate([1])
    before = negate.cache_info()
    with recording(negate) as computed, disabled():
        assert negate([1, 2, 1]) == [-1, -2, -1]
        assert negate.cache_contains([1]) == [False]
        assert negate.cache_invalidate([1]) == 0
        negate.cache_clear()
    assert computed == [1, 2]
    assert negate.cache_info() == before
    assert negate.cache_contains([1, 2]) == [True, False]


def test_disabled_opens_no_store(tmp_path: Path) -> None:
    negate = negated(tmp_path / "place", name="n")
    with disabled():
        negate([1])
    assert not (tmp_path / "place").exists()


def test_disabled_tells_its_own_calls() -> None:
    negate = negated()
    negate([1])
    with disabled():
        negate([1, 2])
        assert negate.cache_info()[:2] == (0, 2)
    assert negate.cache_info()[:2] == (0, 1)


def test_disabled_nests_and_ends_with_an_exception() -> None:
    negate = negated()
    off = disabled()
    with recording(negate) as computed:
        with disabled(), off:
            with pytest.raises(ZeroDivisionError), disabled():
                raise ZeroDivisionError
            negate([1])
            with off:
                negate([1])
        negate([1])
        negate([1])
    assert computed == [1, 1, 1]


def test_disabled_decorates_functions() -> None:
    negate = negated()

    @disabled()
    def twice(x: int) -> list[int]:
        """Said."""
        assert hooks.off == 1
        return [negate([x])[0], negate([x])[0]]

    with recording(negate) as computed:
        assert twice(3) == [-3, -3]
        assert hooks.off == 0
    assert computed == [3, 3]
    assert (twice.__name__, twice.__doc__, str(inspect.signature(twice))) == (
        "twice",
        "Said.",
        "(x: 'int') -> 'list[int]'",
    )


def test_disabled_decorates_coroutine_functions_until_they_end() -> None:
    @disabled()
    async def pause(entered: asyncio.Event, go: asyncio.Event) -> int:
        entered.set()
        await go.wait()
        return hooks.off

    async def main() -> int:
        entered, go = asyncio.Event(), asyncio.Event()
        assert inspect.iscoroutinefunction(pause)
        running = asyncio.create_task(pause(entered, go))
        await entered.wait()
        assert hooks.off == 1
        go.set()
        return await running

    assert asyncio.run(main()) == 1


def test_disabled_refuses_generators() -> None:
    def fixture() -> Iterator[None]:
        yield

    async def agen() -> Any:
        yield

    for function in (fixture, agen):
        with pytest.raises(TypeError, match=r"use `with disabled\(\):` inside of it"):
            disabled()(function)


def test_disabled_holds_for_all_threads_until_the_last_has_left() -> None:
    def switch(_: int) -> bool:
        off = True
        for _ in range(2000):
            with disabled():
                off &= hooks.off > 0
        return off

    assert all(in_threads(4, switch))
    assert hooks.off == 0


def test_a_call_of_another_thread_is_disabled_too() -> None:
    negate = negated()
    negate([1])
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with disabled():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(30)
    with recording(negate) as computed:
        negate([1])
    leave.set()
    thread.join(30)
    assert computed == [1]


def _tell_off(answers: Any) -> None:
    answers.put(hooks.off)


@pytest.mark.parametrize(("method", "off"), [("fork", 1), ("spawn", 0)])
def test_a_process_forked_meanwhile_is_disabled_and_one_spawned_is_not(method: str, off: int) -> None:
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    with disabled():
        child = context.Process(target=_tell_off, args=(answers,))
        child.start()
        child.join(60)
    assert answers.get() == off
    answers.close()


# ---- recording ----


def test_recording_has_what_was_computed_in_order() -> None:
    negate = negated()
    negate([2])
    with recording(negate) as computed:
        negate([3, 2, 1, 3])
        negate([1, 2])
        negate([4])
        assert computed == [3, 1, 4]
    negate([5])
    assert computed == [3, 1, 4]
    assert isinstance(computed, Recording)
    assert computed.batches == [[3, 1], [4]]


def test_recordings_nest_and_are_of_one_function() -> None:
    one, other = negated(), negated()
    with recording(one) as outer:
        one([1])
        with recording(one) as inner, recording(other) as others:
            one([2])
            other([3])
        one([4])
    assert (outer, inner, others) == ([1, 2, 4], [2], [3])


def test_recording_has_the_items_of_a_call_that_raises_and_not_what_the_function_does_to_its_list() -> None:
    @cache_batch_variable("xs", store={})
    def consume(xs: list[int]) -> list[int]:
        if xs.pop() == 0:
            raise ZeroDivisionError
        return [0, *xs]

    with recording(consume) as computed:
        consume([1, 2])
        with pytest.raises(ZeroDivisionError):
            consume([1, 0])
    assert computed == [1, 2, 0]


def test_recording_takes_methods_of_an_instance() -> None:
    class Model:
        @cache_batch_variable("xs", store={}, ignore=("self",))
        def embed(self, xs: list[int]) -> list[int]:
            return xs

    model = Model()
    with recording(model.embed) as computed, recording(Model.embed) as same:
        model.embed([1, 1])
    assert computed == same == [1]


def test_recording_takes_class_methods_with_the_decorator_on_either_side() -> None:
    class Model:
        @classmethod
        @cache_batch_variable("xs", store={}, ignore=("cls",))
        def inside(cls, xs: list[int]) -> list[int]:
            return xs

        @cache_batch_variable("xs", store={}, ignore=("cls",))
        @classmethod
        def outside(cls, xs: list[int]) -> list[int]:
            return xs

    methods: list[Any] = [Model.inside, Model().inside, Model.outside]
    for method in (*methods, MethodType(vars(Model)["inside"].__func__, Model)):  # the last as Python 3.13 binds it
        method.cache_clear()
        with recording(method) as computed:
            assert method([1, 1]) == [1, 1]
        assert computed == [1]


def test_async_functions_are_recorded_and_disabled_too() -> None:
    @cache_batch_variable("xs", store={})
    async def negate(xs: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [-x for x in xs]

    async def main() -> list[int]:
        await negate([1])
        with recording(negate) as computed:
            await asyncio.gather(negate([1, 2]), negate([2, 3]))
            with disabled():
                assert await negate([1]) == [-1]
                assert await negate.cache_contains([1]) == [False]
            assert await negate.cache_contains([1]) == [True]
        return list(computed)

    assert asyncio.run(main()) == [2, 3, 1]


def test_recording_takes_all_threads() -> None:
    negate = negated()
    with recording(negate) as computed:
        in_threads(4, lambda index: [negate([number]) for number in range(100)])
    assert sorted(computed) == list(range(100))


@pytest.mark.parametrize("function", [len, negated, 5, [].append, MethodType(len, "text")])
def test_recording_takes_cached_functions_only(function: Any) -> None:
    with pytest.raises(TypeError, match="decorated by cache_batch_variable"), recording(function):
        pass


# ---- a suite for stores ----


def test_the_contract_needs_no_pytest() -> None:
    script = (
        "import sys; sys.modules['pytest'] = None\n"
        "from batche.testing import StoreContract\n"
        "from batche.stores.mapping import MappingStore\n"
        "class TestIt(StoreContract):\n"
        "    def new_store(self): return MappingStore()\n"
        "names = [name for name in dir(TestIt) if name.startswith('test_')]\n"
        "for name in names:\n"
        "    test = TestIt(); getattr(test, name)(); test.teardown_method()\n"
        "print(len(names))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=90)
    assert int(done.stdout) == sum(name.startswith("test_") for name in dir(StoreContract))


def fails(contract: type[StoreContract], make: Callable[..., Store]) -> set[str]:
    """The names of those tests of a contract that a store does not pass."""

    class Test(contract):  # type: ignore[valid-type, misc]  # a base that is known at run time only
        def new_store(self, *arguments: Any) -> Store:
            return make(*arguments)

    failed = set()
    for name in (name for name in dir(Test) if name.startswith("test_")):
        test = Test()
        try:
            getattr(test, name)()
        except Exception:
            failed.add(name)
        test.teardown_method()
    return failed


class ReadsInReverse(SmallStore):
    def read(self, keys: Any, /, *, use: bool = True) -> Any:
        return super().read(keys[::-1], use=use)


class GrantsEverything(SmallStore):
    def _claim(self, call: Any, key: Any, force: bool) -> Any:
        return super()._claim(call, key, True)


class StoresWithoutClaim(SmallStore):
    def put(self, call: Any, entries: Any, /, *rest: Any, **named: Any) -> Any:
        for key, _ in entries:
            self.claims[key] = call
        return super().put(call, entries, *rest, **named)


class KeepsClaims(SmallStore):
    def release(self, call: Any, /, *, abandoned: bool = False, counts: Any = None) -> None:
        self._count(call.namespace, counts or {})


class ForgetsTheDead(SmallStore):
    def release(self, call: Any, /, *, abandoned: bool = False, counts: Any = None) -> None:
        super().release(call, counts=counts)


class DeletesEntriesOnly(SmallStore):
    def delete(self, keys: Any, /) -> int:
        return sum(self.entries.pop(key, None) is not None for key in keys)


class ClearsAll(SmallStore):
    def clear(self, namespace: bytes, /) -> int:
        self.counts.clear()
        return self.delete(list(self.entries))


class LivesForEver(SmallStore):
    def _claim(self, call: Any, key: Any, force: bool) -> Any:
        newer_than, call.newer_than = call.newer_than, 0
        try:
            return super()._claim(call, key, force)
        finally:
            call.newer_than = newer_than


class TriesNone(SmallStore):
    """Takes no claims of many keys at a time."""

    def claim(self, call: Any, keys: Any, /, limit: int | None = None, *, force: bool = False) -> Any:
        return super().claim(call, keys, limit, force=force) if len(keys) < 100 else []


class Leisurely(dict[Any, Any]):
    """Lets other threads go on between a look and the change that follows."""

    def get(self, key: Any, default: Any = None, /) -> Any:
        found = super().get(key, default)
        time.sleep(0)  # the interpreter changes threads here
        return found


class LocksNothing(SmallStore):
    """As if there were one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = contextlib.nullcontext()
        self.claims, self.counts = Leisurely(), Leisurely()


BROKEN = {
    ReadsInReverse: "test_what_is_put_is_read_by_every_call_in_the_order_asked_for",
    GrantsEverything: "test_a_claim_is_won_once",
    StoresWithoutClaim: "test_without_a_claim_nothing_is_stored",
    KeepsClaims: "test_releasing_ends_every_claim_left",
    ForgetsTheDead: "test_the_claims_of_a_call_that_was_cancelled_are_those_of_a_dead_owner",
    DeletesEntriesOnly: "test_deleting_voids_the_claims_in_flight",
    ClearsAll: "test_clearing_removes_one_namespace_and_zeroes_its_counts",
    TriesNone: "test_a_batch_larger_than_one_step_is_stored_and_read_whole",
    LivesForEver: "test_an_entry_that_is_not_newer_than_the_call_asks_for_is_claimed_and_replaced",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_store_that_breaks_a_promise_does_not_pass(broken: type[Any]) -> None:
    test = type("Test", (StoreContract,), {"new_store": lambda self: broken()})()
    with pytest.raises((AssertionError, ValueError)):
        getattr(test, BROKEN[broken])()
    test.teardown_method()


RACES = {
    "test_of_many_threads_one_wins_each_claim",
    "test_counts_of_many_threads_add_up",
    "test_a_removal_beside_a_put_leaves_nothing",
}


def test_a_store_without_a_lock_loses_the_races() -> None:
    assert fails(StoreContract, LocksNothing) >= RACES


def test_a_store_that_takes_no_claims_of_many_keys_fails_and_does_not_hang() -> None:
    assert fails(StoreContract, TriesNone) >= {
        "test_a_batch_larger_than_one_step_is_stored_and_read_whole",
        "test_of_many_threads_one_wins_each_claim",
        "test_threads_compute_each_item_once_and_all_get_every_result",
    }


def test_a_store_passes_and_one_without_an_order_does_not() -> None:
    assert fails(LruStoreContract, lambda maxsize=None: MappingStore(maxsize=maxsize)) == set()
    assert fails(LruStoreContract, lambda maxsize=None: SmallStore())
    assert fails(ScannableStoreContract, SmallStore)
    assert fails(ScannableStoreContract, lambda: MappingStore({})) >= {
        "test_keys_come_in_the_order_of_their_last_use",
    }


# ---- what users write ----


class Lines:
    """A user's codec."""

    name = "lines"

    def __init__(self) -> None:
        self.used: list[str] = []

    def encode(self, value: Any, /) -> bytes:
        if not isinstance(value, list):
            raise CodecError(self.name, "takes lists of text")
        self.used.append("encode")
        return "\n".join(value).encode()

    def decode(self, data: bytes, /) -> Any:
        self.used.append("decode")
        return data.decode().split("\n")


@pytest.mark.parametrize("place", ["path", "LmdbStore", "a third party's"])
def test_a_users_codec(tmp_path: Path, place: str) -> None:
    codec = Lines()
    stores: dict[str, Any] = {"path": tmp_path, "LmdbStore": LmdbStore(tmp_path / "s"), "a third party's": SmallStore()}
    assert isinstance(codec, Codec)

    @cache_batch_variable("texts", name="split", store=stores[place], codec=codec)
    def split(texts: list[str]) -> list[Any]:
        return [text if text == "odd" else text.split() for text in texts]

    for _ in range(2):
        assert split(["a b", "odd", "c"]) == [["a", "b"], "odd", ["c"]]
    assert codec.used.count("encode") >= 2
    assert codec.used.count("decode") == 2
    assert split.cache_info().rejected == 2
    assert split.cache_parameters()["codec"] is codec


def test_a_third_partys_store_serves_a_function() -> None:
    store = SmallStore()
    negate = negated(store)
    with recording(negate) as computed:
        assert negate([1, 2, 1]) == [-1, -2, -1]
        assert negate([2, 3]) == [-2, -3]
        assert in_threads(4, lambda _: negate(list(range(4, 60)))) == [[-x for x in range(4, 60)]] * 4
        assert negate.cache_invalidate([1]) == 1
        negate([1])
    assert sorted(computed) == [1, *range(1, 60)]
    info = negate.cache_info()
    assert (info.misses, info.currsize) == (60, 59)
    assert info.hits + info.misses + info.waits == 3 + 2 + 4 * 56 + 1
    assert all(isinstance(entry[0], bytes) for entry in store.entries.values())
    assert not store.claims
