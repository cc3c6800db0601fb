"""What a function is checked for at decoration, how its calls are bound, and what it may be given and return."""

from __future__ import annotations

import collections
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, List, NewType, Optional, Protocol, TypeVar, Union  # noqa: UP035 - what users of 0.1.1 wrote

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batche._batches import items_of, results_of
from batche._signature import BatchSignature, function_name, not_called_error
from batche.errors import AnnotationError, BatcheException, ResultLengthError, SignatureError

T = TypeVar("T")
Texts = NewType("Texts", list)  # type: ignore[type-arg]  # a bare list is what is checked


class Reads(Protocol):
    def read(self) -> str: ...


class Rows(Generic[T]):
    """A generic class that no list is."""


def embed(texts: list[str], model: str = "small", *, scale: int = 1) -> list[str]:
    return [model * scale + text for text in texts]


def annotated(batch: object = inspect.Parameter.empty, result: object = inspect.Signature.empty) -> Callable[..., Any]:
    def function(texts):  # type: ignore[no-untyped-def]  # its annotations are set below
        return texts

    annotations = {"texts": batch, "return": result}
    function.__annotations__ = {
        name: value for name, value in annotations.items() if value is not inspect.Parameter.empty
    }
    return function


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[type | None, Any]:
    """What a call returns, or the type and the text of the error it raises."""
    try:
        return None, function(*args, **kwargs)
    except TypeError as error:
        return type(error), str(error)


# Decoration.


def test_a_name_that_is_no_parameter_is_refused_with_the_parameters_there_are() -> None:
    with pytest.raises(SignatureError, match=r"words must be a valid argument of the batch function.*'texts', 'model'"):
        BatchSignature(embed, "words")


@pytest.mark.parametrize("name", ["rows", "options"])
def test_a_parameter_that_collects_arguments_is_no_batch(name: str) -> None:
    def function(*rows: Any, **options: Any) -> None: ...

    with pytest.raises(SignatureError, match=f"{name} must be a valid argument of the batch function: it collects"):
        BatchSignature(function, name)


@pytest.mark.parametrize("names", [(), ("texts", "texts")])
def test_batches_are_named_each_once(names: Any) -> None:
    with pytest.raises(SignatureError, match="each only once"):
        BatchSignature(embed, names)


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        (("seed",), "names 'seed', which is no parameter; it can name 'model', 'scale'"),
        (("texts",), "names the batch 'texts'"),
        ("model", r"write ignore=\('model',\)"),
    ],
)
def test_ignore_is_checked(ignore: Any, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        BatchSignature(embed, "texts", ignore)


def test_what_has_no_readable_parameters_is_refused() -> None:
    with pytest.raises(SignatureError, match="parameters cannot be read"):
        BatchSignature(classmethod(embed), "texts")  # type: ignore[arg-type]  # the mistake


LISTS: list[object] = [
    list,
    list[int],
    list[list[int]],
    List,  # noqa: UP006 - the old spelling is what is tested
    List[int],  # noqa: UP006 - the same
    Sequence,
    Sequence[str],
    Iterable[str],
    Optional[list[int]],  # noqa: UP045 - the same
    Union[list[int], str],  # noqa: UP007 - the same
    list[int] | None,
    Annotated[list[int], "sorted"],
    Annotated[list[int] | None, "sorted"],
    Texts,
    T,
    Any,
    object,
    Reads,
    None,
    "list[int]",
    "Sequence[Unknown]",
    "not python",
    inspect.Parameter.empty,
]
NO_LISTS: list[object] = [
    int,
    str,
    dict,
    dict[str, int],
    set[int],
    tuple[int, ...],
    Mapping[str, int],
    Iterator[int],
    Rows[int],
    np.float64,
    Optional[str],  # noqa: UP045 - the old spelling is what is tested
    str | int,
    "str",
    "Optional[str]",
    Annotated[str, "short"],
    NewType("Text", str),
]


@pytest.mark.parametrize("annotation", LISTS, ids=str)
def test_what_a_list_can_be_is_a_batch_and_a_result(annotation: Any) -> None:
    assert BatchSignature(annotated(annotation, annotation), "texts").variables == ("texts",)


@pytest.mark.parametrize("annotation", [*NO_LISTS, np.ndarray], ids=str)
def test_a_batch_that_is_no_list_is_refused(annotation: Any) -> None:
    with pytest.raises(AnnotationError, match="texts annotation must be a list of hashable objects") as caught:
        BatchSignature(annotated(annotation), "texts")
    assert caught.value.parameter == "texts"


@pytest.mark.parametrize("annotation", [*NO_LISTS, AsyncIterator[int]], ids=str)
def test_a_result_that_is_no_list_is_refused(annotation: Any) -> None:
    with pytest.raises(AnnotationError, match="return annotation must be a list") as caught:
        BatchSignature(annotated(result=annotation), "texts")
    assert caught.value.parameter == "return"


@pytest.mark.parametrize("annotation", [np.ndarray, npt.NDArray[np.float32], npt.NDArray[np.float32] | None], ids=str)
def test_an_array_is_a_result(annotation: Any) -> None:
    BatchSignature(annotated(list[int], annotation), "texts")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters are new in 3.12")
@pytest.mark.parametrize(("result", "right"), [("list[T]", True), ("Items[T]", True), ("dict[T, T]", False)])
def test_type_parameters_and_aliases_are_looked_through(result: str, right: bool) -> None:
    scope: dict[str, Any] = {}
    source = f"type Items[T] = list[T]\ndef function[T](texts: list[T]) -> {result!r}: return texts"
    exec(source, scope)
    if right:
        BatchSignature(scope["function"], "texts")
    else:
        with pytest.raises(AnnotationError):
            BatchSignature(scope["function"], "texts")


def test_a_tensor_is_a_result_by_its_name() -> None:
    tensor = type("Tensor", (), {"__module__": "torch"})
    BatchSignature(annotated(result=tensor), "texts")
    BatchSignature(annotated(result=type("Parameter", (tensor,), {"__module__": "torch.nn"})), "texts")
    with pytest.raises(AnnotationError):
        BatchSignature(annotated(result=type("Tensor", (), {"__module__": "mine"})), "texts")


def test_an_async_function_is_annotated_with_what_it_gives_when_awaited() -> None:
    async def right(texts: list[str]) -> list[str]:
        return texts

    async def wrong(texts: list[str]) -> str:
        return texts[0]

    BatchSignature(right, "texts")
    with pytest.raises(AnnotationError, match="return annotation must be a list"):
        BatchSignature(wrong, "texts")


def test_errors_are_what_0_1_1_raised_and_name_the_function() -> None:
    with pytest.raises(BatcheException, match=r"annotated.<locals>.function: texts annotation"):
        BatchSignature(annotated(int), "texts")


def test_the_form_without_parentheses_is_answered_with_the_right_one() -> None:
    class Encoder:
        def encode(self, sentences: list[str]) -> list[str]:
            return sentences

    assert '@cache_batch_variable("sentences")' in str(not_called_error(Encoder.encode))
    assert '@cache_batch_variable("texts")' in str(not_called_error(dict))


def test_an_object_is_called_by_its_class() -> None:
    assert function_name(functools.partial(embed)) == "partial"
    assert function_name(embed) == "embed"


# Calls.


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((["a"],), {}),
        ((["a"], "small"), {}),
        ((["a"],), {"model": "small"}),
        ((["a"],), {"scale": 1, "model": "small"}),
        ((), {"model": "small", "texts": ["a"]}),
    ],
)
def test_one_call_has_one_set_of_arguments_however_it_is_written(args: Any, kwargs: Any) -> None:
    bound = BatchSignature(embed, "texts").bind(args, kwargs)
    assert bound.batch == ["a"]
    assert list(bound.arguments.items()) == [("model", "small"), ("scale", 1)]
    new_args, new_kwargs = bound.call(["b"])
    assert embed(*new_args, **new_kwargs) == ["smallb"]
    assert (len(new_args), list(new_kwargs)) == (len(args), list(kwargs))


def test_binding_changes_nothing_of_the_callers() -> None:
    batch, kwargs = ["a"], {"model": "big"}
    signature = BatchSignature(embed, "texts")
    signature.bind((batch,), kwargs).call(["b"])
    signature.bind((), {**kwargs, "texts": batch}).call(["b"])
    assert (batch, kwargs) == (["a"], {"model": "big"})
    assert list(signature.bind((["c"],), {}).arguments) == ["model", "scale"]


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((), {"model": "m"}), ((), {"text": ["a"]})])
def test_a_call_without_its_batch_is_refused_as_in_0_1_1(args: Any, kwargs: Any) -> None:
    with pytest.raises(SignatureError, match="texts must be a valid argument of the batch function"):
        BatchSignature(embed, "texts").bind(args, kwargs)


def test_a_batch_inside_keyword_arguments_comes_by_keyword() -> None:
    def function(model: str, **options: Any) -> None: ...

    signature = BatchSignature(function, "texts", ignore=("seed",))
    bound = signature.bind(("m",), {"seed": 3, "texts": ["a"], "scale": 2})
    assert (bound.batch, bound.arguments) == (["a"], {"model": "m", "options": {"scale": 2}})
    assert bound.call(["b"]) == (("m",), {"seed": 3, "texts": ["b"], "scale": 2})
    with pytest.raises(SignatureError, match="texts must be a valid argument of the batch function"):
        signature.bind(("m",), {})


def test_a_batch_left_out_is_its_default() -> None:
    def plain(model: Any = "m", texts: Any = ("a",)) -> Any:
        return model, texts

    def only_positions(model: Any = "m", texts: Any = ("a",), /, **options: Any) -> Any:
        return model, texts, options

    bound = BatchSignature(plain, "texts").bind((), {})
    assert bound.batch == ("a",)
    assert bound.call(["b"]) == ((), {"texts": ["b"]})
    bound = BatchSignature(only_positions, "texts").bind((), {"texts": 1})
    assert (bound.batch, bound.arguments) == (("a",), {"model": "m", "options": {"texts": 1}})
    args, kwargs = bound.call(["b"])
    assert only_positions(*args, **kwargs) == ("m", ["b"], {"texts": 1})


def test_ignored_names_are_left_out_of_the_arguments_but_reach_the_function() -> None:
    bound = BatchSignature(embed, "texts", ignore=["model"]).bind((["a"], "big"), {"scale": 2})
    assert bound.arguments == {"scale": 2}
    assert bound.call(["b"]) == ((["b"], "big"), {"scale": 2})


def test_methods_and_wrapped_functions_are_bound_by_their_own_parameters() -> None:
    class Encoder:
        def encode(self, texts: list[str], model: str = "m") -> list[str]:
            return [model + text for text in texts]

    @functools.wraps(embed)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return embed(*args, **kwargs)

    encoder = Encoder()
    assert BatchSignature(Encoder.encode, "texts").bind((encoder, ["a"]), {}).arguments == {
        "self": encoder,
        "model": "m",
    }
    assert BatchSignature(encoder.encode, "texts").bind((["a"],), {}).arguments == {"model": "m"}
    assert BatchSignature(wrapper, "texts").bind((["a"], "m"), {}).arguments == {"model": "m", "scale": 1}
    assert BatchSignature(functools.partial(embed, model="p"), "texts").bind((["a"],), {}).arguments == {
        "model": "p",
        "scale": 1,
    }
    with pytest.raises(TypeError, match="unexpected keyword argument 'modle'"):
        BatchSignature(wrapper, "texts").bind((["a"],), {"modle": "m"})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((["a"], "m", 1), {}),
        ((["a"], "m"), {"model": "m"}),
        ((["a"],), {"texts": ["a"]}),
        ((["a"],), {"modle": "m"}),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_the_function_s_own_words(args: Any, kwargs: Any) -> None:
    assert attempt(BatchSignature(embed, "texts").bind, args, kwargs) == attempt(embed, *args, **kwargs)


def test_aligned_batches_are_one_batch_of_tuples() -> None:
    def score(model: Any, queries: Any, *, documents: Any = None) -> list[Any]:
        return [(model, query, document) for query, document in zip(queries, documents, strict=True)]

    signature = BatchSignature(score, ("documents", "queries"))
    bound = signature.bind(("m", ["q", "r"]), {"documents": ["d", "e"]})
    assert bound.arguments == {"model": "m"}
    assert signature.items(bound.batch) == [("d", "q"), ("e", "r")]
    args, kwargs = bound.call([("e", "r")])
    assert score(*args, **kwargs) == [("m", "r", "e")]
    with pytest.raises(SignatureError, match="of one length; this call passes 1 documents, 2 queries"):
        signature.items((["d"], ["q", "r"]))
    assert signature.is_uncached((None, ["q"]))
    assert not signature.is_uncached((["d"], None))


@pytest.mark.parametrize(
    ("function", "allowed"),
    [
        (annotated(), False),
        (annotated(list[int]), False),
        (annotated(Any), False),
        (annotated(Optional[list[int]]), True),  # noqa: UP045 - the old spelling is tested too
        (annotated("list[int] | None"), True),
        (annotated(Annotated[Texts | None, "some"]), True),
        (lambda texts=None: texts, True),
    ],
)
def test_none_stands_for_a_batch_where_the_signature_says_so(function: Any, allowed: bool) -> None:
    signature = BatchSignature(function, "texts")
    assert signature.is_uncached(None) is allowed
    assert not signature.is_uncached(["a"])


def test_aligned_batches_left_out_are_passed_by_their_positions() -> None:
    def function(model: Any = "m", queries: Any = (1,), documents: Any = (2,), /) -> Any:
        return model, queries, documents

    args, kwargs = BatchSignature(function, ("documents", "queries")).bind((), {}).call([("d", "q")])
    assert function(*args, **kwargs) == ("m", ["q"], ["d"])


NAMES = ("a", "b", "texts", "c", "d")
KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


@st.composite
def functions(draw: st.DrawFn) -> Callable[..., dict[str, Any]]:
    """Functions that return their own bound arguments, with every kind of parameter."""
    kinds = sorted(draw(st.lists(st.sampled_from(KINDS), min_size=5, max_size=5)))
    defaults_from = draw(st.integers(0, 5))  # positions after one with a default have defaults too
    parameters = []
    for index, (name, kind) in enumerate(zip(draw(st.permutations(NAMES)), kinds, strict=True)):
        optional = draw(st.booleans()) if kind is inspect.Parameter.KEYWORD_ONLY else index >= defaults_from
        default = f"default {name}" if optional else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    if draw(st.booleans()):
        parameters.append(inspect.Parameter("rest", inspect.Parameter.VAR_POSITIONAL))
    if draw(st.booleans()):
        parameters.append(inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD))
    parameters.sort(key=lambda parameter: parameter.kind)
    scope: dict[str, Any] = {}
    exec(f"def function{inspect.Signature(parameters)}: return locals()", scope)
    function: Callable[..., dict[str, Any]] = scope["function"]
    return function


@given(
    function=functions(),
    args=st.lists(st.integers(), max_size=6).map(tuple),
    kwargs=st.dictionaries(st.sampled_from([*NAMES, "options", "other"]), st.integers(), max_size=6),
    ignore=st.sets(st.sampled_from([name for name in NAMES if name != "texts"])),
)
def test_every_call_is_bound_as_python_binds_it(function: Any, args: Any, kwargs: Any, ignore: Any) -> None:
    signature = BatchSignature(function, "texts", ignore)
    outcome, expected = attempt(function, *args, **kwargs)
    if outcome is TypeError:
        outcome, error = attempt(signature.bind, args, kwargs)
        assert outcome is SignatureError or (outcome, error) == (TypeError, expected)
        return
    bound = signature.bind(args, kwargs)
    assert bound.batch == expected["texts"]
    seen = {name: value for name, value in expected.get("options", {}).items() if name not in ignore}
    order = [name for name in inspect.signature(function).parameters if name != "texts" and name not in ignore]
    assert list(bound.arguments.items()) == [(name, seen if name == "options" else expected[name]) for name in order]
    new_args, new_kwargs = bound.call(["new"])
    assert function(*new_args, **new_kwargs) == {**expected, "texts": ["new"]}


# Batches and results.


class Indexed:
    """As a map-style data set is: a length, and items by their indices."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]


class Endless(Indexed):
    """One that does not say where it ends: it makes an item of any index."""

    def __getitem__(self, index: int) -> Any:
        return self._items[index % len(self)]


@pytest.mark.parametrize(
    ("batch", "items"),
    [
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        (range(2), [0, 1]),
        ((text for text in "ab"), ["a", "b"]),
        (np.array([1, 2]), [1, 2]),
        (collections.deque("ab"), ["a", "b"]),
        ([], []),
        (Indexed([1, 2]), [1, 2]),
        (Endless([1, 2]), [1, 2]),
    ],
)
def test_any_ordered_iterable_is_a_batch(batch: Any, items: Any) -> None:
    assert items_of(batch, "f") == items


def test_the_items_are_a_list_of_their_own() -> None:
    batch = ["a"]
    items = items_of(batch, "f")
    batch.append("b")
    assert items == ["a"]


class Closed(Indexed):
    """One that says that it is not to be iterated over."""

    __iter__ = None


@pytest.mark.parametrize(
    "batch",
    ["ab", b"ab", bytearray(b"ab"), {"a": 1}, {"a"}, frozenset("a"), {}.keys(), 3, None, np.array(3), Closed([1])],
)
def test_one_item_or_a_set_is_no_batch(batch: Any) -> None:
    with pytest.raises(SignatureError, match=r"texts must be a valid argument.*write f\(\[x\]\)"):
        items_of(batch, "f", "texts")


class Table(list):  # type: ignore[type-arg]  # a bare list is enough
    """As a data frame is: its length is its rows' and its iteration its columns'."""

    columns = ("a", "b")


@pytest.mark.parametrize("result", [["x", None], ("x", None), collections.deque(["x", None])])
def test_a_sized_ordered_collection_is_a_result(result: Any) -> None:
    assert results_of(result, 2, "f") == ["x", None]


def test_an_array_gives_its_rows() -> None:
    rows = results_of(np.arange(6).reshape(2, 3), 2, "f")
    assert [row.tolist() for row in rows] == [[0, 1, 2], [3, 4, 5]]
    assert results_of(np.zeros((2, 0)), 2, "f")[1].shape == (0,)


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (None, "None"),
        ({"a": 1, "b": 2}, "a dict"),
        ({1, 2}, "a set"),
        ({"a": 1, "b": 2}.keys(), "a dict_keys"),
        ("ab", "a str"),
        (b"ab", "a bytes"),
        ((text for text in "ab"), "a generator"),
        (iter([1, 2]), "a list_iterator"),
        (zip("ab", "cd", strict=True), "a zip"),
        (np.array(2), "a 0-dimensional ndarray"),
        (np.float64(2), "a 0-dimensional float64"),
        (2, "an int"),
        (Table([1, 2]), "a Table"),
        ([1], "1 result"),
        ([1, 2, 3], "3 results"),
        (np.zeros((3, 2)), "3 results"),
    ],
)
def test_anything_else_is_refused_in_words(result: Any, got: str) -> None:
    with pytest.raises(ResultLengthError, match="list of predictions of the same length as the batch") as caught:
        results_of(result, 2, "f")
    assert (caught.value.expected, caught.value.got) == (2, got)
