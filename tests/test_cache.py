"""`Cache`: a mapping in a store, with exact LRU, in every kind of store."""

from __future__ import annotations

import collections
import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import cachetools
import cachetools.keys
import pytest

import batche
from batche import Cache, CodecError, LmdbStore, StoreError, UnkeyableError
from batche.stores.mapping import MappingStore
from batche.testing._driving import in_threads
from tests.stores.test_contract import SmallStore

Make: TypeAlias = Callable[..., Cache[Any, Any]]


@pytest.fixture(params=["place", "store", "mapping"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a cache with a limit by count, in a place, in a store that others may share, and in this process."""

    def place(maxsize: int | None = None, **options: Any) -> Cache[Any, Any]:
        return Cache(tmp_path / "p", maxsize=maxsize, **options)

    def store(maxsize: int | None = None, **options: Any) -> Cache[Any, Any]:
        return Cache(LmdbStore(tmp_path / "s", maxsize=maxsize), **options)

    def mapping(maxsize: int | None = None, **options: Any) -> Cache[Any, Any]:
        return Cache(MappingStore(maxsize=maxsize), **options)

    made: dict[str, Make] = {"place": place, "store": store, "mapping": mapping}
    return made[request.param]


@pytest.fixture
def cache(make: Make) -> Iterator[Cache[Any, Any]]:
    with make() as cache:
        yield cache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The wall clock, in nanoseconds, which a test sets."""
    now = [1_800_000_000 * 10**9]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    return now


# ---- a mapping ----


def test_it_is_a_mapping_that_begins_empty(cache: Cache[Any, Any]) -> None:
    assert isinstance(cache, collections.abc.MutableMapping)
    assert isinstance(cache, batche.Cache)
    assert (len(cache), list(cache), bool(cache)) == (0, [], False)
    assert cache == {}


def test_what_is_stored_is_found_and_what_is_not_is_a_key_error(cache: Cache[Any, Any]) -> None:
    cache["a"] = [1, 2]
    assert cache["a"] == [1, 2]
    assert "a" in cache
    with pytest.raises(KeyError) as raised:
        cache["b"]
    assert raised.value.args == ("b",)
    assert cache.get("b") is None
    assert cache.get("b", 7) == 7


def test_none_is_a_value(cache: Cache[Any, Any]) -> None:
    cache["a"] = None
    assert cache["a"] is None
    assert cache.get("a", 7) is None
    assert "a" in cache
    assert cache.get_many(["a"]) == {"a": None}
    assert cache.pop("a", 7) is None


def test_keys_differ_by_type_and_content_and_come_back_as_they_were(cache: Cache[Any, Any]) -> None:
    keys = [1, 1.0, True, "1", b"1", (1,), [1], {"a": [1]}, None, date(2020, 1, 1), (1, ("x", frozenset({2})))]
    for number, key in enumerate(keys):
        cache[key] = number
    assert [cache[key] for key in keys] == list(range(len(keys)))
    found = list(cache)
    assert found == keys
    assert list(map(type, found)) == list(map(type, keys))


def test_it_equals_the_mappings_of_its_keys_and_values_in_any_order(cache: Cache[Any, Any], make: Make) -> None:
    cache.update({"a": 1, "b": [2]})
    other = make(name="other")
    other.update({"b": [2], "a": 1})
    for same in ({"b": [2], "a": 1}, other, cache):
        assert cache == same
        assert same == cache
    for different in ({"a": 1}, {"a": 1, "b": [3]}, {"a": 1, "c": [2]}, {"a": 1, object(): 2}, [("a", 1)], None):
        assert cache != different
        assert different != cache
    with pytest.raises(TypeError, match="unhashable"):
        hash(cache)


def test_it_is_compared_whatever_its_keys_are(cache: Cache[Any, Any], make: Make) -> None:
    cache.set_many([([1], "list"), ({"a": 1}, "dict")])
    other = make(name="other")
    other.set_many([({"a": 1}, "dict"), ([1], "list")])
    assert cache == other
    assert cache != {"a": 1}
    other[[1]] = "another"
    assert cache != other


def test_keys_that_only_compare_equal_are_told_apart_in_comparing(cache: Cache[Any, Any]) -> None:
    cache.set_many([(1, "int"), (True, "bool")])
    assert cache != {1: "bool"}
    del cache[True]
    assert cache == {1: "int"}
    assert cache != {True: "int"}


def test_comparing_is_no_use(make: Make) -> None:
    with make(maxsize=2) as cache:
        cache.update({"a": 1, "b": 2})
        assert cache == {"a": 1, "b": 2}
        cache["c"] = 3
        assert list(cache) == ["b", "c"]
        assert (cache.info().hits, cache.info().misses) == (0, 0)


def test_keys_that_are_one_in_a_dict_are_one_of_those_that_were_asked_for(cache: Cache[Any, Any]) -> None:
    cache.set_many([(1, "int"), (True, "bool")])
    (pair,) = cache.get_many([1, True]).items()
    assert pair == (1, "bool")
    assert type(pair[0]) is int


def test_a_value_that_is_handed_out_is_nobody_elses(cache: Cache[Any, Any]) -> None:
    given = [1]
    cache["a"] = given
    given.append(2)
    cache["a"].append(3)
    next(iter(cache.values())).append(4)
    assert cache["a"] == [1]


def test_storing_again_replaces(cache: Cache[Any, Any]) -> None:
    cache["a"] = 1
    cache["a"] = 2
    assert (cache["a"], len(cache)) == (2, 1)


def test_deleting(cache: Cache[Any, Any]) -> None:
    cache["a"] = 1
    del cache["a"]
    assert "a" not in cache
    with pytest.raises(KeyError):
        del cache["a"]


def test_pop(cache: Cache[Any, Any]) -> None:
    cache["a"] = 1
    assert cache.pop("a") == 1
    assert cache.pop("a", 5) == 5
    with pytest.raises(KeyError):
        cache.pop("a")


def test_popitem_takes_the_least_recently_used(cache: Cache[Any, Any]) -> None:
    cache.update(a=1, b=2, c=3)
    cache["a"]
    assert [cache.popitem() for _ in range(3)] == [("b", 2), ("c", 3), ("a", 1)]
    with pytest.raises(KeyError, match="empty"):
        cache.popitem()


def test_setdefault_stores_only_what_is_not_there(cache: Cache[Any, Any]) -> None:
    assert cache.setdefault("a", 1) == 1
    assert cache.setdefault("a", 2) == 1
    assert cache.setdefault("b") is None
    assert dict(cache) == {"a": 1, "b": None}


def test_update_takes_what_a_dict_takes(cache: Cache[Any, Any]) -> None:
    class Keyed:
        def keys(self) -> list[str]:
            return ["d"]

        def __getitem__(self, key: str) -> int:
            return 4

    cache.update({"a": 1}, b=2)
    cache.update([("c", 3)])
    cache.update(Keyed())
    assert cache == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert cache != {"a": 1}
    assert cache == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_views_and_clearing(cache: Cache[Any, Any]) -> None:
    cache.update(a=1, b=2)
    assert list(cache.keys()) == ["a", "b"]
    assert list(cache.values()) == [1, 2]
    assert list(cache.items()) == [("a", 1), ("b", 2)]
    assert ("a", 1) in cache.items()
    assert 2 in cache.values()
    assert 3 not in cache.values()
    assert len(cache.items()) == 2
    cache.clear()
    assert cache == {}


def test_many_at_once(cache: Cache[Any, Any]) -> None:
    cache.set_many({number: str(number) for number in range(2500)})
    cache.set_many((number, None) for number in range(2500, 2600))
    assert len(cache) == 2600
    assert cache.get_many([2499, 9999, 0, 2599]) == {2499: "2499", 0: "0", 2599: None}
    assert list(cache) == [*range(1, 2499), *range(2500, 2599), 2499, 0, 2599]
    assert cache.delete_many([1, 1, 2, 9999]) == 2
    assert len(cache) == 2598
    cache.set_many([("x", 1), ("y", 2), ("x", 3)])
    assert list(cache.items())[-2:] == [("y", 2), ("x", 3)]
    assert cache.get_many([]) == {}
    cache.set_many({})


# ---- limits ----


def test_the_least_recently_used_goes_and_looking_is_no_use(make: Make) -> None:
    cache = make(3)
    cache.update(a=1, b=2, c=3)
    cache["a"]
    assert "b" in cache
    assert list(cache.items()) == [("b", 2), ("c", 3), ("a", 1)]
    cache["d"] = 4
    assert list(cache) == ["c", "a", "d"]
    assert (cache.maxsize, cache.currsize, cache.info().evictions) == (3, 3, 1)


def test_it_is_an_ordered_dict_for_any_script(make: Make) -> None:
    cache, model, random = make(6), OrderedDict[int, int](), Random(7)
    for moment in range(600):
        key = random.randrange(10)
        match random.choice(["get", "get", "set", "set", "in", "pop", "popitem", "setdefault"]):
            case "get":
                assert cache.get(key) == model.get(key)
                if key in model:
                    model.move_to_end(key)
            case "set":
                cache[key] = model[key] = moment
                model.move_to_end(key)
            case "in":
                assert (key in cache) == (key in model)
            case "pop":
                assert cache.pop(key, None) == model.pop(key, None)
            case "popitem" if model:
                assert cache.popitem() == model.popitem(last=False)
            case "setdefault":
                assert cache.setdefault(key, moment) == model.setdefault(key, moment)
                model.move_to_end(key)
        while len(model) > 6:
            model.popitem(last=False)
        assert list(cache.items()) == list(model.items())
        assert len(cache) == len(model)


def test_bytes_are_counted_and_limited(tmp_path: Path) -> None:
    cache = Cache[int, bytes](tmp_path, max_bytes="1MiB")
    cache[0] = bytes(1000)
    assert 1000 < cache.bytes < 5000
    assert cache.max_bytes == 2**20
    for number in range(500):
        cache[number] = bytes(10_000)
    assert cache.bytes <= 2**20
    assert 50 < len(cache) < 110
    assert list(cache) == list(range(500))[-len(cache) :]


def test_a_value_that_is_too_large_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    cache = Cache[str, bytes](tmp_path, max_bytes=100_000)
    cache["a"] = b"small"
    with pytest.raises(CodecError, match=r"1 of 1 values are larger than the cache takes \(max_bytes\)"):
        cache["a"] = bytes(200_000)
    with pytest.raises(ValueError, match="larger"):
        cache.setdefault("b", bytes(200_000))
    assert dict(cache) == {"a": b"small"}


def test_a_cache_of_no_size_keeps_nothing(make: Make) -> None:
    cache = make(0)
    cache["a"] = 1
    assert "a" not in cache
    assert cache.setdefault("a", 2) == 2
    assert (len(cache), list(cache)) == (0, [])


def test_a_cache_that_is_off_keeps_nothing() -> None:
    cache = Cache[str, int]("off")
    cache["a"] = 1
    assert cache.setdefault("a", 2) == 2
    assert cache.pop("a", 3) == 3
    assert (len(cache), list(cache)) == (0, [])
    with pytest.raises(KeyError):
        cache.popitem()


# ---- age ----


def test_what_has_expired_is_not_there(make: Make, clock: list[int]) -> None:
    cache = make(ttl=10)
    cache["old"] = 1
    clock[0] += 6 * 10**9
    cache["new"] = 2
    cache["old"]  # a use does not make it younger
    assert len(cache) == 2
    clock[0] += 4 * 10**9
    assert "old" not in cache
    assert (len(cache), list(cache.items()), dict(cache)) == (1, [("new", 2)], {"new": 2})
    assert cache.get("old", 7) == 7
    assert cache.pop("old", 8) == 8
    assert cache.delete_many(["old"]) == 0
    info = cache.info()
    assert (info.hits, info.misses, info.expirations) == (2, 1, 1)


def test_what_has_expired_is_replaced_and_passed_over(make: Make, clock: list[int]) -> None:
    cache = make(ttl=10)
    cache.update(a=1, b=2, c=3)
    clock[0] += 10 * 10**9
    assert cache.setdefault("b", 5) == 5
    assert cache["b"] == 5
    assert cache.popitem() == ("b", 5)
    with pytest.raises(KeyError):
        cache.popitem()
    with pytest.raises(KeyError):
        del cache["a"]


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), True, "5"])
def test_a_ttl_is_seconds_above_zero(ttl: Any) -> None:
    with pytest.raises(ValueError, match="expected seconds, more than 0"):
        Cache(ttl=ttl)


def test_an_endless_ttl_is_none() -> None:
    cache = Cache[str, int](ttl=float("inf"))
    cache["a"] = 1
    assert dict(cache) == {"a": 1}
    cache.clear()


# ---- iteration beside changes ----


def test_what_goes_while_it_iterates_is_left_out_and_what_stays_comes_once(cache: Cache[Any, Any]) -> None:
    cache.set_many((number, number) for number in range(3000))
    walk = cache.items()
    iterator = iter(walk)
    found = [next(iterator)[0] for _ in range(100)]
    cache.delete_many(range(2000, 3000))
    cache[1500] = "new"
    cache[0]
    cache["other"] = 1
    rest = dict(iterator)
    assert rest.pop("other", 1) == 1
    assert sorted([*found, *rest]) == list(range(2000))
    assert rest[1500] == "new"


def test_each_entry_is_popped_by_one_thread(cache: Cache[Any, Any]) -> None:
    cache.set_many((number, number) for number in range(200))

    def drain(index: int) -> list[int]:
        taken = []
        while True:
            try:
                taken.append(cache.popitem()[0] if index % 2 else cache.pop(next(iter(cache), -1)))
            except KeyError:
                if not cache:
                    return taken

    assert sorted(key for keys in in_threads(4, drain) for key in keys) == list(range(200))


def test_of_threads_that_set_a_default_one_stores_it(cache: Cache[Any, Any]) -> None:
    for key in range(30):
        assert len(set(in_threads(4, lambda index, key=key: cache.setdefault(key, index)))) == 1  # type: ignore[misc]


def test_a_default_is_stored_although_somebody_died_storing_the_key(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batche._entries._LONGEST_STORING", 0.0)
    cache = make()
    stuck = cache._entries()._new_call(0)
    cache._entries().store.claim(stuck, cache._entries()._keys(["a"]))
    assert cache.setdefault("a", 1) == 1
    assert cache["a"] == 1
    cache._entries().store.release(stuck)


# ---- places, limits beside, stores ----


def test_caches_of_one_name_are_one_and_of_two_are_two(tmp_path: Path) -> None:
    one, same, other = Cache[str, int](tmp_path), Cache[str, int](tmp_path), Cache[str, int](tmp_path, name="other")
    one["a"] = 1
    assert dict(same) == {"a": 1}
    assert dict(other) == {}


def test_a_store_is_shared_and_only_the_caches_own_entries_are_seen(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    one, other = Cache[Any, int](store, name="one"), Cache[Any, int](store, name="other")
    one.set_many((number, 1) for number in range(300))
    other["a"] = 2
    assert (len(other), list(other), other.info().currsize) == (1, ["a"], 301)
    assert other.popitem() == ("a", 2)
    with pytest.raises(KeyError):
        other.popitem()
    assert len(one) == 300


def test_a_cache_and_a_function_of_one_name_do_not_meet(tmp_path: Path) -> None:
    @batche.cache_batch_variable("xs", name="default", store=tmp_path)
    def f(xs: list[int]) -> list[int]:
        return xs

    cache = Cache[int, int](tmp_path)
    f([1])
    assert dict(cache) == {}
    f.cache_clear()
    cache[1] = 2
    assert f([1]) == [1]


def test_the_runtime_place_is_the_default() -> None:
    with Cache[str, int](name="tests of the default place") as cache:
        cache["a"] = 1
        assert "the runtime place" in repr(cache)
        assert Cache[str, int](name="tests of the default place")["a"] == 1
        cache.clear()


def test_any_mapping_may_hold_it() -> None:
    held: dict[str, Any] = {"mine": 1}
    cache = Cache[Any, Any](held)
    cache.update(a=[1], b=2)
    cache["a"].append(5)
    assert list(cache.items()) == [("a", [1]), ("b", 2)]
    assert len(cache) == 2
    assert len(held) == 3
    assert all(isinstance(key, str) for key in held)
    cache.clear()
    assert held == {"mine": 1}


def test_a_cachetools_cache_may_hold_it_and_keeps_its_own_limit() -> None:
    cache = Cache[str, int](cachetools.LRUCache(2))
    cache.update(a=1, b=2)
    cache["a"]
    assert "b" in cache
    cache["c"] = 3
    assert sorted(cache.items()) == [("a", 1), ("c", 3)]
    assert cache.maxsize == 2
    sized = Cache[str, str](cachetools.LRUCache(2, getsizeof=lambda record: len(record[1])))
    with pytest.raises(ValueError, match="larger than the cache takes"):
        sized["a"] = "long"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": {}, "maxsize": 3}, "mapping has its own limits"),
        ({"store": {}, "ttl": 3}, "mapping has its own limits"),
        ({"store": MappingStore(), "max_bytes": 3}, "Store has its own limits"),
        ({"store": 5}, "store= takes"),
        ({"name": ""}, "name= takes"),
        ({"maxsize": -1}, "maxsize must be"),
        ({"codec": "json"}, "codec="),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cache(**options)


def test_a_store_that_cannot_tell_its_keys_does_the_rest() -> None:
    cache = Cache[str, int](SmallStore())
    cache.update(a=1, b=2)
    del cache["b"]
    assert (cache["a"], cache.setdefault("a", 3), "b" in cache) == (1, 1, False)
    for use in (iter, len, list, Cache.popitem, lambda cache: cache.pop("a")):
        with pytest.raises(TypeError, match="a SmallStore cannot tell its keys"):
            use(cache)


# ---- trouble ----


def test_an_unkeyable_key_says_what_to_do(cache: Cache[Any, Any]) -> None:
    with pytest.raises(UnkeyableError) as raised:
        cache[object()] = 1
    assert str(raised.value) == (
        "key of type object has no canonical key: give its class a __batche_key__() method that returns plain data"
    )
    with pytest.raises(TypeError):
        assert (1, object()) in cache


def test_a_value_that_no_codec_takes_is_an_error_and_stores_nothing(tmp_path: Path) -> None:
    cache = Cache[str, Any](tmp_path, codec="msgpack")
    with pytest.raises(CodecError, match="'msgpack'"):
        cache["a"] = {1: object()}
    with pytest.raises(CodecError):
        cache.set_many([("b", 1), ("c", object())])
    assert len(cache) == 0


def test_a_store_that_cannot_be_opened_is_an_error_at_the_first_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache[str, int](tmp_path / "file")
    with pytest.raises(StoreError):
        cache["a"] = 1


class Reversing:
    """A user's codec: takes text and nothing else."""

    name = "reversing"

    def encode(self, value: Any, /) -> bytes:
        if not isinstance(value, str):
            raise CodecError(self.name, "takes text")
        return value[::-1].encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()[::-1]


def test_a_users_codec_is_given_the_values_and_not_the_keys(tmp_path: Path) -> None:
    cache = Cache[Any, str](tmp_path, codec=Reversing())
    cache[1, "x"] = "value"
    assert dict(cache) == {(1, "x"): "value"}
    with pytest.raises(CodecError, match="takes text"):
        cache["b"] = 5  # type: ignore[assignment]  # what the codec refuses


# ---- going where the program goes ----


def test_it_pickles_and_copies_as_configuration(tmp_path: Path) -> None:
    cache = Cache[str, int](tmp_path, name="n", maxsize=5, ttl=60, codec="msgpack")
    cache["a"] = 1
    for other in (pickle.loads(pickle.dumps(cache)), copy.copy(cache), copy.deepcopy(cache)):
        assert type(other) is Cache
        assert (dict(other), other.maxsize, other._lifetime) == ({"a": 1}, 5, 60 * 10**9)
        other["a"] += 1
        assert cache.pop("a") == 2
        cache["a"] = 1


def test_copies_over_a_mapping_share_it() -> None:
    cache = Cache[str, int]({})
    cache["a"] = 1
    assert dict(copy.deepcopy(cache)) == dict(copy.copy(cache)) == {"a": 1}
    pickled = pickle.loads(pickle.dumps(cache))
    pickled["a"] = 2
    assert cache["a"] == 1  # a mapping is of one process: a pickle takes its contents along


def test_closing_twice_and_using_it_again(make: Make) -> None:
    with make() as cache:
        cache["a"] = 1
        assert "1 entries" in repr(cache)
    cache.close()
    assert "not used yet" in repr(cache)
    assert cache["a"] == 1


def test_closing_leaves_a_store_that_was_given_open(tmp_path: Path) -> None:
    class Closing(MappingStore):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    store = Closing()
    with Cache[str, int](store) as cache:
        cache["a"] = 1
    assert store.closed == 0


# ---- cachetools ----


def test_it_works_in_cachetools_cached(cache: Cache[Any, Any]) -> None:
    calls = []

    @cachetools.cached(cache=cache, lock=None)
    def add(a: int, b: int = 0, *, c: int = 0) -> int:
        calls.append((a, b, c))
        return a + b + c

    assert [add(1), add(1), add(1, 2), add(1, c=2), add(1, c=2), add(1, b=2)] == [1, 1, 3, 3, 3, 3]
    assert calls == [(1, 0, 0), (1, 2, 0), (1, 0, 2), (1, 2, 0)]
    assert len(cache) == 4
    assert cachetools.keys.hashkey(1, c=2) in list(cache)


def test_it_works_with_typed_keys_and_counts(cache: Cache[Any, Any]) -> None:
    @cachetools.cached(cache, key=cachetools.keys.typedkey, info=True)
    def double(a: float) -> float:
        return a * 2

    assert [double(1), double(1.0), double(1)] == [2, 2.0, 2]
    info = double.cache_info()
    assert (info.hits, info.misses, info.currsize) == (1, 2, 2)


def test_a_key_of_an_earlier_cachetools_is_the_plain_tuple(cache: Cache[Any, Any]) -> None:
    hashed: type[tuple[int, ...]] = vars(cachetools.keys)["_HashedTuple"]
    cache[hashed((1, 2))] = "a"
    assert cache[1, 2] == "a"


def test_what_cannot_be_stored_is_returned_by_cachetools(tmp_path: Path) -> None:
    @cachetools.cached(cache=Cache(tmp_path, max_bytes=50_000))
    def large(size: int) -> bytes:
        return bytes(size)

    assert len(large(100_000)) == 100_000
