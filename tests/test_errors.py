"""The error tree: what each error also is, what it says, and that it arrives whole in another process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import pytest

import batche
from batche import (
    AnnotationError,
    BatcheException,
    BatchError,
    CodecError,
    Failed,
    ResultLengthError,
    SignatureError,
    StoreError,
    UnkeyableError,
)

ERRORS: list[tuple[BatcheException, type[Exception], dict[str, object]]] = [
    (SignatureError("embed", "take a list"), TypeError, {"function": "embed", "problem": "take a list"}),
    (
        AnnotationError("embed", "texts", "texts annotation must be a list of hashable objects"),
        TypeError,
        {"function": "embed", "parameter": "texts"},
    ),
    (UnkeyableError("item 3", "app.Client"), TypeError, {"where": "item 3", "type_name": "app.Client", "problem": ""}),
    (ResultLengthError("embed", 3, "2 results"), ValueError, {"function": "embed", "expected": 3, "got": "2 results"}),
    (CodecError("auto", "no"), ValueError, {"codec": "auto", "problem": "no"}),
    (StoreError("shm://x", "no room"), OSError, {"store": "shm://x", "problem": "no room"}),
]
parametrized = pytest.mark.parametrize(("error", "builtin", "fields"), ERRORS, ids=lambda value: type(value).__name__)


@parametrized
def test_each_is_of_the_tree_and_of_the_builtin_kind(
    error: BatcheException, builtin: type[Exception], fields: dict[str, object]
) -> None:
    assert isinstance(error, BatcheException)
    assert isinstance(error, builtin)


@parametrized
def test_each_keeps_what_it_is_about(
    error: BatcheException, builtin: type[Exception], fields: dict[str, object]
) -> None:
    assert {name: getattr(error, name) for name in fields} == fields


@parametrized
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_each_pickles_with_its_fields_and_message(
    error: BatcheException, builtin: type[Exception], fields: dict[str, object], protocol: int
) -> None:
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {name: getattr(back, name) for name in fields} == fields


@parametrized
def test_each_copies(error: BatcheException, builtin: type[Exception], fields: dict[str, object]) -> None:
    for back in (copy.copy(error), copy.deepcopy(error)):
        assert (type(back), str(back)) == (type(error), str(error))


def test_notes_are_kept() -> None:
    with pytest.raises(StoreError, match="no room") as caught:
        raise StoreError("shm://x", "no room")
    caught.value.add_note("in worker 3")
    assert pickle.loads(pickle.dumps(caught.value)).__notes__ == ["in worker 3"]


def test_an_item_without_a_key_names_its_index_its_type_and_the_ways_out_in_order() -> None:
    text = str(UnkeyableError("item 3", "app.Client"))
    assert text.startswith("item 3 of type app.Client has no canonical key")
    assert 0 < text.index("__batche_key__") < text.index("key=")
    assert "ignore=" not in text  # an item cannot be left out of its key


def test_an_argument_without_a_key_may_be_ignored_but_not_keyed() -> None:
    text = str(UnkeyableError("argument 'client'", "app.Client"))
    assert 0 < text.index("__batche_key__") < text.index("ignore=")
    assert "key= to the decorator" not in text
    assert 'ignore=("client",)' in text
    assert "dataclass" not in text


def test_an_instance_without_a_key_may_be_a_dataclass_too() -> None:
    text = str(UnkeyableError("argument 'self'", "app.Model"))
    assert 0 < text.index("__batche_key__") < text.index("dataclass") < text.index('ignore=("self",)')


def test_a_wrong_length_says_what_was_given_and_what_came_back() -> None:
    text = str(ResultLengthError("embed", 3, "2 results"))
    assert "batch function must return a list of predictions of the same length as the batch" in text
    assert "given 3 items and returned 2 results" in text


def test_an_error_with_too_few_fields_says_which_it_takes() -> None:
    class Broken(batche.errors._Fields):
        _fields = ("store", "problem")

    with pytest.raises(TypeError, match="Broken takes store, problem"):
        Broken("only one")


def test_all_errors_are_in_the_public_namespace() -> None:
    assert {name for name in batche.__all__ if name.endswith(("Error", "Exception"))} >= {
        type(error).__name__ for error, _, _ in ERRORS
    } | {"BatcheException"}


def test_what_an_unkeyable_class_can_do() -> None:
    text = str(UnkeyableError("argument 'cls'", "type", "a class"))
    assert text == (
        "argument 'cls' of type type has no canonical key (a class): give it a class method __batche_key__() that "
        'returns plain data, or leave it out by ignore=("cls",) if it does not change the answer'
    )


class ApiError(Exception):
    """As those of several clients: it takes more than it tells pickle."""

    def __init__(self, message: str, *, response: int) -> None:
        super().__init__(message)
        self.response = response


@batche.cache_batch_variable("items", store="off")
def fail(items: list[int]) -> list[Any]:
    return [Failed(ApiError("rate limited", response=429)), Failed(ValueError(3))][: len(items)]


def test_what_a_pool_cannot_take_back_arrives_as_what_it_said() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(BatchError) as caught:
        pool.apply_async(fail, ([1, 2],)).get(timeout=60)
    one, other = caught.value.exceptions
    assert type(one) is RuntimeError
    assert str(one) == "tests.test_errors.ApiError: rate limited"
    assert (type(other), other.args) == (ValueError, (3,))
    assert caught.value.results[0].exception is one
    assert (caught.value.function, caught.value.indices) == ("fail", (0, 1))
