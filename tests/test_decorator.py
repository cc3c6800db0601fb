"""The decorator: what it refuses at once, what its wrapper looks like, and the cache it gives access to."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import typing
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batche
from batche import CacheInfo, SignatureError, UnkeyableError, cache_batch_variable
from batche._function import CachedFunction
from batche._methods import CachedMethod
from batche.stores.lmdb.store import LmdbStore
from batche.stores.mapping import MappingStore
from tests.processes._tools import descriptors_in


def upper(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


@cache_batch_variable("texts")
def embed(texts: list[str], model: str = "small", *, scale: int = 1) -> list[str]:
    """Make each text what the model makes of it."""
    return [f"{model}{scale}{text}" for text in texts]


@pytest.fixture(autouse=True)
def _empty() -> None:
    embed.cache_clear()


# ---- what is refused at decoration ----


def test_without_parentheses_it_shows_the_right_form() -> None:
    with pytest.raises(SignatureError, match=r'upper: .*@cache_batch_variable\("texts"\)'):
        cache_batch_variable(upper)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("kind", [classmethod, staticmethod])
def test_without_parentheses_above_a_kind_of_method_it_shows_the_right_form_too(kind: Any) -> None:
    def embed(cls: type, words: list[str]) -> list[str]:
        return words

    with pytest.raises(SignatureError, match=r'embed: .*@cache_batch_variable\("words"\)'):
        cache_batch_variable(kind(embed))


@pytest.mark.parametrize("name", [None, 5, b"texts", ("texts", 5), 1.5])
def test_the_batch_is_named_by_text(name: Any) -> None:
    with pytest.raises(SignatureError, match="batch_variable_name= takes a parameter's name"):
        cache_batch_variable(name)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"maxsize": -1}, ValueError, "maxsize must be 0 or more, or None for no limit by count, not -1"),
    ({"maxsize": True}, ValueError, "maxsize must be 0 or more.*not True"),
    ({"maxsize": 1.5}, ValueError, "maxsize must be 0 or more.*not 1.5"),
    ({"maxsize": float("nan")}, ValueError, "maxsize must be 0 or more.*not nan"),
    ({"maxsize": float("-inf")}, ValueError, "maxsize must be 0 or more.*not -inf"),
    ({"maxsize": "10"}, ValueError, "maxsize must be 0 or more.*not '10'"),
    ({"max_bytes": -1}, ValueError, "a size is a number of bytes.*not -1"),
    ({"max_bytes": "many"}, ValueError, "like '512MiB'.*not 'many'"),
    ({"max_bytes": "5M"}, ValueError, "like '512MiB'.*not '5M'"),
    ({"max_bytes": True}, ValueError, "a size is a number of bytes"),
    ({"max_bytes": 1.5}, ValueError, "a size is a number of bytes"),
    ({"codec": "json"}, ValueError, "codec='json': expected 'auto', 'msgpack', 'pickle'"),
    ({"codec": 5}, ValueError, "codec=5: expected"),
    ({"store": "ftp://host"}, ValueError, "unknown scheme ftp://"),
    ({"store": "shm:name"}, ValueError, "write 'shm://name'"),
    ({"store": "shm://"}, ValueError, "a name is 1 to 100"),
    ({"store": "shm://../x"}, ValueError, "a name is 1 to 100"),
    ({"store": ""}, ValueError, "is not a path"),
    ({"store": 5}, ValueError, "takes a path, 'shm://name', 'off', a mapping or a Store, not int"),
    ({"store": MappingStore(), "maxsize": 5}, ValueError, "a Store has its own limits"),
    ({"store": MappingStore(), "max_bytes": 5}, ValueError, "a Store has its own limits"),
    ({"key": "id"}, SignatureError, "key= takes a function of an item, not 'id'"),
    ({"name": ""}, SignatureError, "name= takes a text that is not empty"),
    ({"name": 5}, SignatureError, "name= takes a text that is not empty, not 5"),
    ({"version": 5}, SignatureError, "version= takes a text that is not empty, not 5"),
    ({"version": ""}, SignatureError, "version= takes a text that is not empty"),
    ({"ignore": "model"}, SignatureError, r"write ignore=\('model',\)"),
    ({"ignore": ("texts",)}, SignatureError, "names the batch 'texts'"),
    ({"ignore": ("nothing",)}, SignatureError, "'nothing', which is no parameter"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_bad_options_are_refused_at_decoration(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cache_batch_variable("texts", **options)(upper)


def test_options_beside_the_limit_are_by_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        cache_batch_variable("texts", 10, "512MiB")  # type: ignore[call-arg]  # the mistake


@pytest.mark.parametrize("options", [{"store": "shm://place"}, {"store": "/nowhere/at/all"}])
def test_what_has_no_name_needs_one_in_a_store_that_outlives_the_program(options: dict[str, Any]) -> None:
    for function in (lambda texts: texts, functools.partial(upper)):
        with pytest.raises(SignatureError, match="pass name= to say it"):
            cache_batch_variable("texts", **options)(function)


def test_what_cannot_be_found_at_its_name_is_refused_at_the_first_use_at_the_latest(tmp_path: Path) -> None:
    def wrong_place(texts: list[str]) -> list[str]:
        return texts

    wrong_place.__qualname__ = "elsewhere"
    function = cache_batch_variable("texts", store=tmp_path / "store")(wrong_place)
    with pytest.raises(SignatureError, match="pass name= to say it"):
        function(["a"])
    assert not (tmp_path / "store").exists()


def test_with_a_name_any_callable_keeps_its_entries(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def noted(texts: list[str]) -> list[str]:
        calls.append(texts)
        return upper(texts)

    def make() -> Any:  # as another program would decorate it
        return cache_batch_variable("texts", store=tmp_path / "store", name="upper")(noted)

    assert make()(["a", "b"]) == make()(["a", "b"]) == ["A", "B"]
    assert calls == [["a", "b"]]


# ---- the wrapper ----


def test_the_wrapper_looks_like_the_function() -> None:
    assert (embed.__name__, embed.__qualname__, embed.__module__) == ("embed", "embed", __name__)
    assert embed.__doc__ == "Make each text what the model makes of it."
    assert str(inspect.signature(embed)) == (
        "(texts: 'list[str]', model: 'str' = 'small', *, scale: 'int' = 1) -> 'list[str]'"
    )
    assert typing.get_type_hints(embed) == {
        "texts": list[str],
        "model": str,
        "scale": int,
        "return": list[str],
    }
    assert inspect.unwrap(embed) is embed.__wrapped__
    assert repr(embed).startswith("<cached <function embed")


def test_the_wrappers_class_lends_its_annotations_to_no_function() -> None:
    assert "__annotations__" not in vars(CachedFunction)


def test_it_can_be_referred_to_weakly_compared_and_hashed() -> None:
    assert weakref.ref(embed)() is embed
    assert {embed: 1}[embed] == 1
    assert embed != cache_batch_variable("texts")(upper)


def test_copies_are_the_wrapper_itself() -> None:
    assert copy.copy(embed) is copy.deepcopy(embed) is embed
    assert copy.deepcopy({"embed": [embed]})["embed"][0] is embed


def test_attributes_of_the_function_are_the_wrappers() -> None:
    def tagged(texts: list[str]) -> list[str]:
        return texts

    tagged.tag = "fast"  # type: ignore[attr-defined]  # any function can have attributes
    assert cache_batch_variable("texts")(tagged).tag == "fast"  # type: ignore[attr-defined]  # so has its wrapper


def test_a_call_that_does_not_fit_is_refused_as_by_the_function() -> None:
    def messages(function: Callable[..., Any]) -> str:
        with pytest.raises(TypeError) as caught:
            function(["a"], modell="large")
        return str(caught.value)

    assert messages(embed) == messages(embed.__wrapped__)


@pytest.mark.parametrize(
    "call",
    [
        lambda: embed(["a"]),
        lambda: embed(texts=["a"]),
        lambda: embed(["a"], "small"),
        lambda: embed(["a"], model="small", scale=1),
    ],
)
def test_calls_that_say_the_same_are_one(call: Callable[[], list[str]]) -> None:
    embed(["a"])
    assert call() == ["small1a"]
    assert (embed.cache_info().hits, embed.cache_info().misses) == (1, 1)


def test_other_arguments_are_part_of_the_key() -> None:
    assert [*embed(["a"]), *embed(["a"], "large"), *embed(["a"], scale=2)] == ["small1a", "large1a", "small2a"]
    assert embed.cache_info().misses == 3


def test_an_argument_without_a_key_is_named_with_the_ways_out() -> None:
    with pytest.raises(UnkeyableError, match=r"argument 'model' of type object .*ignore=") as caught:
        embed(["a"], object())  # type: ignore[arg-type]  # the mistake
    assert caught.value.where == "argument 'model'"


def test_an_item_without_a_key_is_named_by_its_index() -> None:
    with pytest.raises(UnkeyableError, match=r"item 1 of type object .*key="):
        embed(["a", object()])  # type: ignore[list-item]  # the mistake


# ---- options ----


def test_key_says_what_an_item_is_cached_by() -> None:
    class Document:
        def __init__(self, number: int, text: str) -> None:
            self.number, self.text = number, text

    given: list[str] = []

    @cache_batch_variable("documents", key=lambda document: document.number)
    def read(documents: list[Document]) -> list[str]:
        given.extend(document.text for document in documents)
        return [document.text for document in documents]

    assert read([Document(1, "a"), Document(2, "b"), Document(1, "c")]) == ["a", "b", "a"]
    assert given == ["a", "b"]


def test_an_ignored_argument_shares_results() -> None:
    @cache_batch_variable("texts", ignore=("client",))
    def ask(texts: list[str], client: object) -> list[str]:
        return [f"{client}:{text}" for text in texts]

    assert ask(["a"], "first") == ask(["a"], object()) == ["first:a"]


def test_a_version_replaces_the_code() -> None:
    def make(version: str | None, suffix: str) -> Any:
        def function(texts: list[str]) -> list[str]:
            return [text + "1" for text in texts] if suffix == "1" else [text + "2" for text in texts]

        return cache_batch_variable("texts", name="test_a_version", version=version)(function)

    first, second, third = make("1", "1"), make("1", "2"), make("2", "2")
    assert (first(["a"]), second(["a"]), third(["a"])) == (["a1"], ["a1"], ["a2"])
    first.cache_clear()  # all versions
    assert third.cache_contains(["a"]) == [False]


def test_without_a_version_other_code_is_another_version() -> None:
    def plus(texts: list[str]) -> list[str]:
        return [text + "+" for text in texts]

    def minus(texts: list[str]) -> list[str]:
        return [text + "-" for text in texts]

    named = cache_batch_variable("texts", name="test_without_a_version")
    assert [*named(plus)(["a"]), *named(minus)(["a"])] == ["a+", "a-"]


@pytest.mark.parametrize("codec", ["auto", "msgpack", "pickle"])
def test_each_codec_brings_results_back(codec: str) -> None:
    @cache_batch_variable("numbers", codec=codec)
    def lists(numbers: list[int]) -> list[Any]:
        return [[number, {"a": (1, 2.5)}] for number in numbers]

    for _ in range(2):
        assert lists([1, 2]) == [[1, {"a": (1, 2.5)}], [2, {"a": (1, 2.5)}]]
    assert lists.cache_info().hits == 2


def test_msgpack_alone_rejects_what_only_pickle_takes() -> None:
    @cache_batch_variable("numbers", codec="msgpack")
    def errors(numbers: list[int]) -> list[Exception]:
        return [ValueError(number) for number in numbers]

    assert [str(error) for error in errors([1])] == ["1"]
    assert errors.cache_info().rejected == 1


def test_no_size_caches_nothing() -> None:
    @cache_batch_variable("texts", 0)
    def counted(texts: list[str]) -> list[str]:
        return upper(texts)

    for _ in range(2):
        assert counted(["a", "b", "a"]) == ["A", "B", "A"]
    info = counted.cache_info()
    assert (info.misses, info.hits, info.currsize, info.maxsize) == (4, 2, 0, 0)


def test_a_size_is_the_most_that_is_kept_least_recently_used_first() -> None:
    @cache_batch_variable("texts", 3)
    def sized(texts: list[str]) -> list[str]:
        return upper(texts)

    sized(["a", "b", "c"])
    sized(["a"])
    sized(["d"])
    assert sized.cache_contains(["a", "b", "c", "d"]) == [True, False, True, True]
    assert sized(list("abcdefgh")) == list("ABCDEFGH")  # larger than the cache
    info = sized.cache_info()
    assert (info.currsize, info.maxsize) == (3, 3)


def test_bytes_may_be_written_as_text() -> None:
    @cache_batch_variable("texts", max_bytes="512MiB")
    def limited(texts: list[str]) -> list[str]:
        return upper(texts)

    limited(["a"])
    assert limited.cache_info().max_bytes == limited.cache_parameters()["max_bytes"] == 512 * 2**20


# ---- the cache ----


def test_counts_begin_as_functools_has_them() -> None:
    assert CacheInfo._fields[:4] == type(functools.lru_cache(upper).cache_info())._fields
    embed(["a", "b", "a"])
    embed(["b", "c"])
    info = embed.cache_info()
    assert info[:4] == (2, 3, None, 3)
    assert (info.waits, info.evictions, info.takeovers, info.rejected, info.errors) == (0, 0, 0, 0, 0)
    assert 0 < info.bytes < (info.max_bytes or 0)


def test_a_call_that_raises_counts_its_positions_as_misses() -> None:
    @cache_batch_variable("texts")
    def fails(texts: list[str]) -> list[str]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        fails(["a", "b", "a"])
    assert (fails.cache_info().misses, fails.cache_info().hits) == (2, 1)


def test_clearing_removes_entries_and_zeroes_counts() -> None:
    embed(["a", "b"])
    embed(["a", "b"], "large")
    embed.cache_clear()
    assert embed.cache_info()[:4] == (0, 0, None, 0)
    assert embed.cache_contains(["a", "b"]) == [False, False]
    embed(["a"])
    assert embed.cache_info()[:4] == (0, 1, None, 1)


def test_contains_tells_each_position_and_changes_neither_counts_nor_recency() -> None:
    @cache_batch_variable("texts", 2)
    def sized(texts: list[str]) -> list[str]:
        return upper(texts)

    sized(["a"])
    sized(["b"])
    before = sized.cache_info()
    assert sized.cache_contains(["b", "c", "a", "c", "b"]) == [True, False, True, False, True]
    assert sized.cache_contains(["a"]) == [True]
    assert sized.cache_info() == before
    sized(["c"])
    assert sized.cache_contains(["a", "b", "c"]) == [False, True, True]  # looking at "a" did not keep it


def test_contains_and_invalidate_take_the_functions_own_arguments() -> None:
    embed(["a"], model="large")
    assert embed.cache_contains(["a"]) == [False]
    assert embed.cache_contains(texts=["a"], model="large") == [True]
    assert embed.cache_invalidate(["a"]) == 0
    assert embed.cache_invalidate(["a"], "large") == 1
    with pytest.raises(TypeError):
        embed.cache_contains(["a"], nothing=1)  # type: ignore[call-arg]  # the mistake


def test_invalidate_tells_how_many_entries_it_removed() -> None:
    embed(["a", "b", "c"])
    assert embed.cache_invalidate(["a", "c", "a", "d"]) == 2
    assert embed.cache_contains(["a", "b", "c"]) == [False, True, False]
    assert embed.cache_invalidate(["a"]) == 0


def test_an_empty_batch_is_asked_about_too() -> None:
    assert (embed.cache_contains([]), embed.cache_invalidate([])) == ([], 0)


def test_what_is_invalidated_while_it_is_computed_is_not_stored() -> None:
    @cache_batch_variable("texts")
    def invalidated(texts: list[str]) -> list[str]:
        invalidated.cache_invalidate(["b"])
        return upper(texts)

    assert invalidated(["a", "b"]) == ["A", "B"]
    assert invalidated.cache_contains(["a", "b"]) == [True, False]


def test_what_is_cleared_while_it_is_computed_is_not_stored() -> None:
    @cache_batch_variable("texts")
    def cleared(texts: list[str]) -> list[str]:
        cleared.cache_clear()
        return upper(texts)

    assert cleared(["a", "b"]) == ["A", "B"]
    assert cleared.cache_contains(["a", "b"]) == [False, False]


def test_parameters_are_what_was_given_with_the_limits_in_force() -> None:
    @cache_batch_variable("texts", 7, version="1", ignore=["model"], codec="msgpack")
    def function(texts: list[str], model: str = "") -> list[str]:
        return upper(texts)

    function(["a"])
    parameters = function.cache_parameters()
    assert parameters["batch_variable_name"] == "texts"
    assert (parameters["maxsize"], parameters["version"], parameters["name"]) == (7, "1", None)
    assert (parameters["ignore"], parameters["codec"], parameters["strict"]) == (("model",), "msgpack", False)
    assert 0 < parameters["max_bytes"] <= 4 * 2**30


def test_parameters_tell_a_place_as_text_and_a_store_as_it_is(tmp_path: Path) -> None:
    def told(store: Any) -> Any:
        return cache_batch_variable("texts", store=store, name="f")(upper).cache_parameters()["store"]

    store = MappingStore()
    assert told(tmp_path / "place") == str(tmp_path / "place")
    assert told("off") == "off"
    assert told(store) is store
    assert told(None) is None


def test_the_store_is_the_one_that_was_given() -> None:
    store = MappingStore()
    assert cache_batch_variable("texts", store=store)(upper).store is store
    assert isinstance(embed.store, LmdbStore)


# ---- methods ----


class Model:
    def __init__(self, name: str) -> None:
        self.name = name

    @cache_batch_variable("texts", ignore=("self",))
    def embed(self, texts: list[str]) -> list[str]:
        """Embed the texts."""
        return [f"{self.name}:{text}" for text in texts]

    @cache_batch_variable("texts")
    def unkeyable(self, texts: list[str]) -> list[str]:
        return texts


class Versioned(Model):
    def __batche_key__(self) -> str:
        return self.name


def test_a_method_is_bound_to_its_instance() -> None:
    Model.embed.cache_clear()
    model = Model("small")
    assert model.embed(["a"]) == Model.embed(model, ["a"]) == ["small:a"]
    assert Model("other").embed(["a", "b"]) == ["small:a", "other:b"]  # as ignore= says


def test_what_takes_the_functions_arguments_binds_the_instance_too() -> None:
    Model.embed.cache_clear()
    model = Model("small")
    model.embed(["a"])
    assert model.embed.cache_contains(["a", "b"]) == [True, False]
    assert Model.embed.cache_contains(model, ["a"]) == [True]
    assert model.embed.cache_invalidate(["a"]) == 1
    assert model.embed.cache_info().misses == 1
    model.embed.cache_clear()


def test_a_bound_method_looks_like_one() -> None:
    model = Model("small")
    bound = model.embed
    assert isinstance(bound, CachedMethod)
    assert (bound.__self__, bound.__func__, bound.__name__) == (model, Model.embed, "embed")
    assert bound.__doc__ == "Embed the texts."
    assert str(inspect.signature(bound)) == "(texts: 'list[str]') -> 'list[str]'"
    assert (bound == model.embed, bound == Model("small").embed, bound == 1) == (True, False, False)
    assert hash(bound) == hash(model.embed)
    assert "bound <cached" in repr(bound)
    assert copy.copy(bound) == bound


def test_self_without_a_key_is_refused_and_with_one_is_part_of_the_key() -> None:
    with pytest.raises(UnkeyableError, match="argument 'self'"):
        Model("small").unkeyable(["a"])
    assert Versioned("one").unkeyable(["a"]) == ["a"]
    assert Versioned("one").unkeyable.cache_contains(["a"]) == [True]
    assert Versioned("two").unkeyable.cache_contains(["a"]) == [False]


# ---- private namespaces ----


class Callable_:
    def __call__(self, texts: list[str]) -> list[str]:
        return upper(texts)


def local() -> Callable[[list[str]], list[str]]:
    def function(texts: list[str]) -> list[str]:
        return upper(texts)

    return function


PRIVATE: dict[str, Callable[[], Callable[..., Any]]] = {
    "lambda": lambda: lambda texts: [text.upper() for text in texts],
    "local": local,
    "partial": lambda: functools.partial(upper),
    "bound method": lambda: Callable_().__call__,
    "callable object": Callable_,
}


@pytest.mark.parametrize("make", PRIVATE.values(), ids=PRIVATE)
def test_what_has_no_name_of_its_own_has_a_cache_for_each_decoration(make: Callable[[], Callable[..., Any]]) -> None:
    first, second = cache_batch_variable("texts")(make()), cache_batch_variable("texts")(make())
    assert first(["a", "b"]) == first(["b", "a"])[::-1] == ["A", "B"]
    assert second.cache_contains(["a", "b"]) == [False, False]
    assert (first.cache_info().hits, first.cache_info().misses) == (2, 2)


def test_a_wrapper_is_gone_with_its_last_reference() -> None:
    function = cache_batch_variable("texts")(local())
    function(["a"])
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None


def _open_in(place: Path) -> tuple[list[str], int]:
    """What this process has open in a place, and how many maps of it."""
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(place) in line]
    return [name for _, name in descriptors_in(place)], len(maps)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counted in /proc")
@pytest.mark.slow
def test_ten_thousand_decorations_leave_nothing() -> None:
    def once(number: int) -> LmdbStore:
        function = cache_batch_variable("numbers")(lambda numbers: [number + value for value in numbers])
        assert function([1]) == [number + 1]
        return typing.cast(LmdbStore, function.store)

    store = once(0)
    for number in range(100):
        once(number)
    gc.collect()
    once(0)
    place = store._opened.path.parent
    files, before = sorted(place.rglob("*")), _open_in(place)
    entries = store._opened.lmdb.read(lambda transaction: sum(1 for _ in transaction.cursor()))
    for number in range(10_000):
        once(number)
    gc.collect()
    once(0)
    assert sorted(place.rglob("*")) == files
    assert _open_in(place) == before
    assert store._opened.lmdb.read(lambda transaction: sum(1 for _ in transaction.cursor())) <= entries


def test_the_public_names() -> None:
    assert batche.cache_batch_variable is cache_batch_variable
    assert set(batche.__all__) <= set(dir(batche))
