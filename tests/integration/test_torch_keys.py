from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from batche._canonical import canonical
from batche._keys import Keyer
from batche.errors import UnkeyableError

torch: Any = pytest.importorskip("torch")

FLOATS = ["float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn"]
COMPLEX = ["complex64", "complex128"]
ONE_NAN = ["float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu"]
INTEGERS = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]


def key(item: object) -> bytes:
    return Keyer(b"namespac", b"").scope({}).keys([item])[0]


def tensor(values: object, dtype: str) -> Any:
    return torch.tensor(values).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", FLOATS + COMPLEX + ONE_NAN + INTEGERS)
def test_content_shape_and_dtype_count(dtype: str) -> None:
    values = [tensor(values, dtype) for values in ([1, 0], [1, 1], [[1, 0]], [[1], [0]], [1], 1, [])]
    values += [torch.zeros((0, 2), dtype=getattr(torch, dtype))]
    assert len({key(value) for value in values}) == len(values)


def test_every_dtype_is_another() -> None:
    values = [tensor([1, 0], dtype) for dtype in FLOATS + COMPLEX + ONE_NAN + INTEGERS]
    values += [[1, 0], values[2].numpy()]
    assert len({key(value) for value in values}) == len(values)


@pytest.mark.parametrize("dtype", FLOATS + COMPLEX + ONE_NAN)
def test_all_nan_are_one_and_both_zeros_are_two(dtype: str) -> None:
    nan = tensor([math.nan, 1.0], dtype)
    negative = nan.clone()
    bits = negative.view(torch.uint8).reshape(2, -1)
    if dtype in FLOATS:
        bits[0, -1] ^= 0x80  # the sign
        assert not torch.equal(nan.view(torch.uint8), negative.view(torch.uint8))
    assert key(negative) == key(nan) != key(tensor([1.0, math.nan], dtype))
    if dtype not in ONE_NAN:
        assert key(tensor([-0.0], dtype)) != key(tensor([0.0], dtype))


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_half_complex_numbers() -> None:
    half, nan = torch.zeros(2, dtype=torch.complex32), torch.full((2,), math.nan, dtype=torch.complex32)
    negative = nan.clone()
    negative.view(torch.uint8)[1] ^= 0x80  # the sign of the first real part
    assert key(negative) == key(nan) != key(half) != key(half.to(torch.complex64))


def test_nan_in_either_part_of_a_complex_number() -> None:
    first = torch.complex(torch.tensor([math.nan]), torch.tensor([1.0]))
    same = torch.complex(torch.tensor([-math.nan]), torch.tensor([1.0]))
    assert key(first) == key(same) != key(torch.complex(torch.tensor([math.nan]), torch.tensor([2.0])))


SAME: list[Callable[[Any], Any]] = [
    lambda x: x.t().contiguous().t(),
    lambda x: torch.cat([x, x])[: len(x)],
    lambda x: torch.stack([x, x], dim=-1)[..., 0],
    lambda x: (-x)._neg_view(),
    lambda x: torch.complex(x, x).conj().real,
    lambda x: torch.complex(x, -x).conj().imag,
]


@pytest.mark.parametrize("other", SAME, ids=range(len(SAME)))
def test_how_it_lies_in_memory_does_not_count(other: Callable[[Any], Any]) -> None:
    x = torch.arange(1.0, 7.0).reshape(2, 3)
    assert key(other(x)) == key(x)


def test_a_conjugate_view_is_what_it_shows() -> None:
    x = torch.tensor([1 + 2j])
    assert key(x.conj()) == key(torch.tensor([1 - 2j])) != key(x)


def test_an_expanded_tensor_is_its_content() -> None:
    assert key(torch.tensor([1.5]).expand(3)) == key(torch.full((3,), 1.5))


def test_a_tensor_that_is_encoded_is_not_changed() -> None:
    x = torch.tensor([-math.nan, 1.0])
    before = x.view(torch.int32).tolist()
    canonical(x)
    assert x.view(torch.int32).tolist() == before


class Mine(torch.Tensor):  # type: ignore[misc]  # torch is not installed where types are checked
    pass


UNKEYABLE = [
    (torch.zeros(2, device="meta"), "device meta"),
    (torch.eye(2).to_sparse(), "layout"),
    (torch.nn.Parameter(torch.zeros(2)), None),
    (torch.zeros(2).as_subclass(Mine), None),
    (torch.float32, None),
    (torch.device("cpu"), None),
    (torch.zeros(2).untyped_storage(), None),
    (torch.nn.Linear(1, 1), None),
]


@pytest.mark.parametrize(("value", "problem"), UNKEYABLE, ids=[type(value).__name__ for value, _ in UNKEYABLE])
def test_what_has_no_key(value: Any, problem: str | None) -> None:
    with pytest.raises(UnkeyableError, match=problem):
        key(value)


def test_a_tensor_that_requires_grad_is_another_item_than_its_numbers() -> None:
    plain, with_graph = torch.ones(2), torch.ones(2, requires_grad=True)
    assert key(plain) != key(with_graph) == key(with_graph * 1)
    assert key(plain) == key(with_graph.detach())


def test_a_tensor_without_content_of_its_own_has_no_key() -> None:
    def keyed(x: Any) -> Any:
        key(x)
        return x

    with pytest.raises(UnkeyableError, match="cannot be read here"):
        torch.func.vmap(keyed)(torch.zeros(2, 2))
