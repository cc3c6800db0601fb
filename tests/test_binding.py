"""Where entries go: what `store=` and the environment say, when that is decided, and what if it cannot be used."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batche import CacheInfo, CodecError, StoreError, _binding, _runtime, cache_batch_variable
from batche._binding import Copies, Uncopied, private, wakeups_of
from batche._places import named_place
from batche.stores.lmdb.store import LmdbStore
from batche.stores.mapping import MappingStore
from batche.stores.null import NullStore
from tests.processes._tools import exit_status, fork


def double(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


def triple(numbers: list[int]) -> list[int]:
    return [3 * number for number in numbers]


def cached(name: str | None = "double", function: Callable[..., Any] = double, **options: Any) -> Any:
    return cache_batch_variable("numbers", name=name, **options)(function)


def place_of(function: Any) -> Path:
    """The directory that the function's environment lies in."""
    store = function.store
    assert isinstance(store, LmdbStore)
    return Path(store._opened.path).parent


def held(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")} if directory.exists() else set()


@pytest.fixture
def shared_name() -> Iterator[str]:
    name = f"test-binding-{os.getpid()}"
    yield name
    shutil.rmtree(named_place(name))


# ---- what store= says ----


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_a_directory_that_persists(tmp_path: Path, kind: type) -> None:
    first = cached(store=kind(tmp_path / "store"))
    assert first([1, 2]) == [2, 4]
    assert place_of(first) == tmp_path / "store"
    assert cached(store=kind(tmp_path / "store")).cache_contains([1, 2, 3]) == [True, True, False]
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_a_home_directory_is_meant_at_decoration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    function = cached(store="~/entries")
    monkeypatch.setenv("HOME", "/nowhere")
    function([1])
    assert place_of(function) == tmp_path / "entries"


def test_a_relative_path_is_meant_at_decoration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = cached(store="entries")
    monkeypatch.chdir("/")
    function([1])
    assert place_of(function) == tmp_path / "entries"


def test_decorating_touches_no_disk(tmp_path: Path) -> None:
    cached(store=tmp_path / "store")
    assert held(tmp_path) == set()


def test_a_name_in_shared_memory(shared_name: str) -> None:
    function = cached(store=f"shm://{shared_name}")
    function([1])
    assert place_of(function) == named_place(shared_name)
    assert cached(store=f"shm://{shared_name}").cache_contains([1]) == [True]


def test_off_computes_everything() -> None:
    function = cached(store="off")
    assert [*function([1, 1]), *function([1])] == [2, 2, 2]
    assert isinstance(function.store, NullStore)
    assert function.cache_contains([1]) == [False]
    info = function.cache_info()
    assert (info.misses, info.hits, info.errors, info.currsize) == (2, 1, 0, 0)
    assert function.cache_invalidate([1]) == 0
    function.cache_clear()
    assert function.cache_info().misses == 0


def test_a_store_may_be_shared_by_functions_that_clear_only_their_own(tmp_path: Path) -> None:
    for store in (MappingStore(maxsize=3), LmdbStore(tmp_path / "store", maxsize=3)):
        doubling, tripling = cached(store=store), cached("triple", triple, store=store)
        doubling([1, 2])
        tripling([1, 2])
        assert doubling.cache_contains([1, 2]) == [False, True]  # the store's limit, for both together
        assert (doubling.cache_info().maxsize, doubling.cache_info().currsize) == (3, 3)
        assert (doubling.cache_info().evictions, tripling.cache_info().evictions) == (1, 1)
        doubling.cache_clear()
        assert tripling.cache_contains([1, 2]) == [True, True]
        assert (doubling.cache_info().misses, tripling.cache_info().misses) == (0, 2)


def test_functions_of_one_store_wake_each_other(tmp_path: Path) -> None:
    mapping, lmdb = MappingStore(), LmdbStore(tmp_path / "store")
    assert wakeups_of(mapping) is wakeups_of(mapping)
    assert wakeups_of(mapping) is not wakeups_of(MappingStore())
    assert wakeups_of(lmdb) is lmdb.wakeups


# ---- what the environment says ----


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.delenv("BATCHE_STORE", raising=False)
    return lambda value: monkeypatch.setenv("BATCHE_STORE", value)


def test_the_environment_is_read_at_the_first_use(environment: Callable[[str], None], tmp_path: Path) -> None:
    function = cached()
    environment(str(tmp_path / "first"))
    function([1])
    environment(str(tmp_path / "second"))
    function([2])
    assert place_of(function) == tmp_path / "first"
    assert not (tmp_path / "second").exists()


def test_what_is_stated_goes_before_the_environment(environment: Callable[[str], None], tmp_path: Path) -> None:
    environment(str(tmp_path / "environment"))
    function = cached(store=tmp_path / "stated")
    function([1])
    assert held(tmp_path / "environment") == set()
    assert held(tmp_path / "stated") != set()


def test_the_environment_can_turn_caches_off(environment: Callable[[str], None]) -> None:
    environment("off")
    function = cached()
    function([1])
    assert isinstance(function.store, NullStore)


@pytest.mark.parametrize("value", ["ftp://host", "shm://", "shm://a/b", "redis://host"])
def test_a_wrong_environment_is_told_at_the_first_use(environment: Callable[[str], None], value: str) -> None:
    environment(value)
    function = cached()
    with pytest.raises(ValueError, match=value.replace("?", ".")):
        function([1])


def test_an_empty_environment_says_nothing(environment: Callable[[str], None]) -> None:
    environment("")
    function = cached()
    function([1])
    assert place_of(function) == _runtime.join().path


def test_what_has_no_name_is_at_the_runtime_place_whatever_the_environment_says(
    environment: Callable[[str], None], tmp_path: Path
) -> None:
    environment(str(tmp_path / "store"))
    function = cached(None, lambda numbers: numbers)
    assert function([1]) == [1]
    assert place_of(function) == _runtime.join().path
    assert held(tmp_path) == set()


# ---- names and limits ----


def test_decorations_of_one_name_share_entries_and_counts(tmp_path: Path) -> None:
    first, second = cached(store=tmp_path), cached(store=tmp_path)
    first([1, 2])
    second([2, 3])
    assert first.cache_info() == second.cache_info()
    assert first.cache_info()[:2] == (1, 3)


def test_the_last_limit_that_is_stated_holds_for_all(tmp_path: Path) -> None:
    first = cached(store=tmp_path, maxsize=5)
    first([1, 2, 3, 4, 5])
    second = cached(store=tmp_path, maxsize=2)
    second([6])
    assert (first.cache_info().maxsize, first.cache_info().currsize) == (2, 2)
    unstated = cached(store=tmp_path)
    unstated([7])
    assert unstated.cache_info().maxsize == 2


def test_an_older_limit_does_not_come_back_with_a_late_first_use(tmp_path: Path) -> None:
    older, newer = cached(store=tmp_path, maxsize=2), cached(store=tmp_path, maxsize=10)
    newer([1, 2, 3, 4, 5])
    older([6])
    assert (older.cache_info().maxsize, older.cache_info().currsize) == (10, 6)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["used in turn", "the later one used first"])
@pytest.mark.parametrize("limits", [({"maxsize": 10}, {"max_bytes": 2**20}), ({"max_bytes": 2**20}, {"maxsize": 10})])
def test_a_limit_holds_though_another_limit_was_stated_later(
    tmp_path: Path, limits: tuple[dict[str, Any], ...], order: tuple[int, ...]
) -> None:
    functions = [cached(store=tmp_path, **limit) for limit in limits]
    for number in order:
        functions[number]([number])
    info = functions[0].cache_info()
    assert (info.maxsize, info.max_bytes) == (10, 2**20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_an_older_limit_does_not_come_back_with_a_forked_child(tmp_path: Path) -> None:
    older = cached(store=tmp_path, maxsize=2)
    older([1])
    newer = cached(store=tmp_path, maxsize=10)
    newer([2, 3, 4, 5])
    assert exit_status(fork(lambda: int(older([6]) != [12]))) == 0
    assert (newer.cache_info().maxsize, newer.cache_info().currsize) == (10, 6)


def test_each_name_has_an_environment_and_limits_of_its_own(tmp_path: Path) -> None:
    doubling, tripling = cached(store=tmp_path, maxsize=1), cached("triple", triple, store=tmp_path)
    doubling([1, 2])
    tripling([1, 2])
    assert (doubling.cache_info().currsize, tripling.cache_info().currsize) == (1, 2)
    doubling.cache_clear()
    assert tripling.cache_contains([1, 2]) == [True, True]


# ---- a store that cannot be used ----


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A path that cannot become a directory before `unblock`."""
    (tmp_path / "store").write_text("somebody's file")
    return tmp_path / "store"


def test_a_store_that_cannot_be_opened_is_told_once(blocked: Path, caplog: pytest.LogCaptureFixture) -> None:
    function = cached(store=blocked)
    for _ in range(3):
        assert function([1, 2, 1]) == [2, 4, 2]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("batche", "WARNING")
    assert str(blocked) in record.getMessage()
    info = function.cache_info()
    assert (info.misses, info.hits, info.errors) == (6, 3, 3)
    assert function.cache_contains([1]) == [False]
    assert blocked.read_text() == "somebody's file"


@pytest.mark.parametrize("strict", [True, False])
def test_an_invalidation_that_cannot_be_written_raises_strict_or_not(blocked: Path, strict: bool) -> None:
    function = cached(store=blocked, strict=strict)
    with pytest.raises(StoreError, match=str(blocked)):
        function.cache_invalidate([1])
    with pytest.raises(StoreError, match=str(blocked)):
        function.cache_clear()


def test_calls_answer_though_the_directory_was_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    function = cached(store=tmp_path / "store")
    function([1])
    shutil.rmtree(tmp_path / "store")
    assert [function(batch) for batch in ([1], [2], [1, 2, 3])] == [[2], [4], [2, 4, 6]]
    assert len(caplog.records) == 1


def test_what_is_asked_of_a_store_that_is_gone_is_answered_as_of_an_empty_one(tmp_path: Path) -> None:
    asked = {
        strict: cached(f"asked {strict}", store=tmp_path / f"store {strict}", strict=strict) for strict in (False, True)
    }
    for strict, function in asked.items():
        function([1])
        os.chmod(tmp_path / f"store {strict}", 0o755)
        function.store._opened.look_at = 0.0  # as half a second later
    lenient, strict_one = asked[False], asked[True]
    assert lenient.cache_contains([1, 2]) == [False, False]
    assert lenient.cache_info() == CacheInfo(0, 0, None, 0)
    assert lenient.cache_parameters()["strict"] is False
    for ask in (strict_one.cache_info, strict_one.cache_parameters, lambda: strict_one.cache_contains([1])):
        with pytest.raises(StoreError, match="chmod 700"):
            ask()


def test_strict_raises_at_every_call(blocked: Path, caplog: pytest.LogCaptureFixture) -> None:
    function = cached(store=blocked, strict=True)
    for _ in range(2):
        with pytest.raises(StoreError, match=str(blocked)):
            function([1])
    assert caplog.records == []


def test_it_is_tried_again_and_then_used(blocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binding, "_RETRY", 0.0)
    function = cached(store=blocked)
    function([1])
    function([1])
    assert function.cache_info().misses == 2  # counted on while it is tried again
    blocked.unlink()
    function([1])
    assert function.cache_contains([1]) == [True]
    assert place_of(function) == blocked


def test_it_is_not_tried_at_every_call(blocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binding, "_RETRY", 3600.0)
    function = cached(store=blocked)
    function([1])
    blocked.unlink()
    function([1])
    assert isinstance(function.store, NullStore)


def test_a_function_without_a_store_still_gives_each_position_its_own(blocked: Path) -> None:
    function = cached(store=blocked, function=lambda numbers: [[0]] * len(numbers))
    first, second, third = function([1, 2, 1])
    first.append(1)
    assert (second, third) == ([0], [0])


# ---- codecs of stores that keep objects ----


def test_copies_are_deep_and_the_immutable_is_not_copied() -> None:
    codec, value, text = Copies(), [[1], {"a": [2]}], "text"
    kept = codec.encode(value)
    assert kept == value
    assert kept[0] is not value[0]
    assert codec.encode(text) is codec.decode(text) is text


def test_what_cannot_be_copied_says_so_and_what_to_do() -> None:
    with pytest.raises(CodecError, match=r"a lock cannot be copied .* return plain data") as caught:
        Copies().encode(threading.Lock())
    assert isinstance(caught.value.__cause__, TypeError)


def test_what_is_not_kept_is_copied_only_when_it_is_handed_out_again() -> None:
    codec, value = Uncopied(), [[1]]
    assert codec.encode(value) is value
    assert codec.decode(value) == value
    assert codec.decode(value) is not value


@pytest.mark.parametrize("where", ["private", "path"])
def test_orphans_are_removed_with_the_next_function_that_computes(where: str, tmp_path: Path) -> None:
    function = cached(None, lambda numbers: numbers)
    function([1])
    store, namespace = function.store, function._bound().settings.namespace
    assert store.stats(namespace).currsize == 1
    options = {} if where == "private" else {"store": tmp_path / "place"}
    following = cached(None if where == "private" else "f", lambda numbers: numbers, **options)
    following([1])
    del function
    assert namespace in private.orphans
    following([1])
    assert namespace in private.orphans
    following([2])
    assert namespace not in private.orphans
    assert store.stats(namespace).currsize == 0


def test_orphans_are_removed_with_the_next_async_function_that_computes() -> None:
    function = cached(None, lambda numbers: numbers)
    function([1])
    store, namespace = function.store, function._bound().settings.namespace

    @cache_batch_variable("numbers")
    async def following(numbers: list[int]) -> list[int]:
        return numbers

    del function
    assert namespace in private.orphans
    assert asyncio.run(following([1])) == [1]
    assert namespace not in private.orphans
    assert store.stats(namespace).currsize == 0
