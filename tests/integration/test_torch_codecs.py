"""Tensors come back the same, alone, or are refused with the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from batche.codecs import AutoCodec, Codec, MsgpackCodec, PickleCodec
from batche.codecs.base import ARRAY, PICKLE, TENSOR
from batche.errors import CodecError

torch: Any = pytest.importorskip("torch")

DTYPES = [
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip
CODECS = pytest.mark.parametrize("made", [AutoCodec(), MsgpackCodec(), PickleCodec()], ids=lambda made: made.name)


@dataclass
class Box:
    content: Any


def _same(one: Any, other: Any) -> bool:
    alike = type(one) is type(other) and one.dtype is other.dtype and one.shape == other.shape
    return alike and bool(torch.equal(_bytes(one), _bytes(other)))


def _bytes(tensor: Any) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@CODECS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0, 3)], ids=str)
def test_a_tensor_comes_back_the_same(made: Codec, dtype: str, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 3).to(getattr(torch, dtype))
    assert _same(made.decode(made.encode(tensor)), tensor)
    assert _same(made.decode(made.encode({"nested": [tensor]}))["nested"][0], tensor)


def test_tensors_are_not_pickled() -> None:
    assert AutoCodec().encode(torch.ones(2))[:2] == TENSOR
    assert AutoCodec().encode([torch.ones(2)])[:2] != PICKLE


@CODECS
def test_views_come_back_equal(made: Codec) -> None:
    base = torch.arange(24).reshape(2, 3, 4)
    complex_ = torch.tensor([1 + 2j, 3j])
    for view in (base.transpose(0, 2), base[:, 1:, ::2], base[0, 0, 0], complex_.conj(), complex_.conj().imag):
        assert torch.equal(made.decode(made.encode(view)), view)
        assert not made.decode(made.encode(view)).is_conj()


@CODECS
@pytest.mark.parametrize("wrap", [lambda row: row, lambda row: [row], lambda row: {"row": (row,)}])
def test_a_row_is_stored_without_the_rest_of_its_storage(made: Codec, wrap: Callable[[Any], Any]) -> None:
    batch = torch.rand(1000, 16)
    assert len(made.encode(wrap(batch[3]))) < 64 + 200


def test_a_row_inside_an_object_or_of_a_subclass_is_stored_alone() -> None:
    batch = torch.rand(1000, 16)
    data = AutoCodec().encode(Box(batch[3]))
    assert len(data) < 64 + 400
    assert torch.equal(AutoCodec().decode(data).content, batch[3])
    parameter = torch.nn.Parameter(batch[3], requires_grad=False)
    data = AutoCodec().encode(parameter)
    assert len(data) < 64 + 1000
    assert type(AutoCodec().decode(data)) is torch.nn.Parameter
    assert torch.equal(AutoCodec().decode(data), parameter)


class Marked(torch.Tensor):  # type: ignore[misc,unused-ignore]  # torch has no types where it is not installed
    """A subclass with nothing of its own."""


def test_a_subclass_comes_back_as_itself_and_alone() -> None:
    row = torch.rand(1000, 16)[3].as_subclass(Marked)
    data = AutoCodec().encode(row)
    assert len(data) < 64 + 2000
    back = AutoCodec().decode(data)
    assert type(back) is Marked
    assert torch.equal(back, row)
    with pytest.raises(CodecError):
        MsgpackCodec().encode(row)


@CODECS
def test_each_decoding_has_its_own_memory(made: Codec) -> None:
    data = made.encode(torch.zeros(3))
    first, second = made.decode(data), made.decode(data)
    first[0] = 7
    first.resize_(5)
    assert second[0] == 0
    assert made.decode(data)[0] == 0


def _quantized() -> Any:
    return torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8)


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: torch.ones(2, requires_grad=True), r"requires grad.*detach\(\)\.cpu\(\)"),
    (lambda: torch.ones(2, requires_grad=True) * 2, r"requires grad.*detach\(\)\.cpu\(\)"),
    (lambda: torch.nn.Parameter(torch.ones(2)), r"requires grad.*detach\(\)\.cpu\(\)"),
    (lambda: torch.ones(2, device="meta"), r"device 'meta'.*cpu\(\)"),
    (lambda: torch.eye(2).to_sparse(), r"to_dense\(\)"),
    (lambda: torch.eye(2).to_sparse_csr(), r"to_dense\(\)"),
]


@pytest.mark.parametrize(("make", "remedy"), REFUSED)
@pytest.mark.parametrize(
    "wrap", [lambda tensor: tensor, lambda tensor: [tensor], lambda tensor: {"a": (tensor,)}, Box, lambda t: [Box([t])]]
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
def test_a_tensor_that_would_not_come_back_is_refused_wherever_it_is(
    make: Callable[[], Any], remedy: str, wrap: Callable[[Any], Any]
) -> None:
    value = wrap(make())
    for made in (AutoCodec(), PickleCodec()):
        with pytest.raises(CodecError, match=remedy):
            made.encode(value)
    with pytest.raises(CodecError):
        MsgpackCodec().encode(value)


@pytest.mark.filterwarnings("ignore")  # torch means to drop quantized tensors, and says so in several ways
def test_a_quantized_tensor_is_refused() -> None:
    for wrap in (lambda tensor: tensor, Box):
        with pytest.raises(CodecError, match=r"dequantize\(\)"):
            AutoCodec().encode(wrap(_quantized()))


def test_a_module_that_requires_grad_is_refused_and_a_frozen_one_comes_back() -> None:
    module = torch.nn.Linear(2, 2)
    with pytest.raises(CodecError, match="requires grad"):
        AutoCodec().encode(module)
    module.requires_grad_(False)
    back = AutoCodec().decode(AutoCodec().encode(module))
    assert torch.equal(back.weight, module.weight)


def test_attributes_of_a_tensor_are_not_dropped_in_silence() -> None:
    tensor = torch.ones(2)
    tensor.note = "kept?"
    with pytest.raises(CodecError, match="attributes"):
        AutoCodec().encode(tensor)


def test_claims_larger_than_the_data_are_refused() -> None:
    data = MsgpackCodec().encode(torch.ones(3))
    for hostile in (data[:-1], data + b"x", data[:6], data.replace(b"float32", b"float64"), ARRAY + data[2:]):
        with pytest.raises(CodecError):
            MsgpackCodec().decode(hostile)
    for name in (b"Tensor3", b"qint321", b"loadabc"):
        with pytest.raises(CodecError):
            MsgpackCodec().decode(data.replace(b"float32", name))


def test_a_tensor_is_read_where_torch_was_not_imported() -> None:
    data = MsgpackCodec().encode(torch.arange(3))
    program = f"from batche.codecs import codec; assert codec('msgpack').decode({data!r}).tolist() == [0, 1, 2]"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
