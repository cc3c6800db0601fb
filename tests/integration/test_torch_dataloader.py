"""A dataset that calls a cached function in the workers of a `DataLoader`, and results that are tensors."""

from __future__ import annotations

import os
from typing import Any

import pytest

from batche import cache_batch_variable
from batche._ownership import is_borrowed

torch = pytest.importorskip("torch")


@cache_batch_variable("numbers")
def embed(numbers: list[int]) -> Any:
    return torch.tensor([[number, number * number] for number in numbers], dtype=torch.float32)


@cache_batch_variable("numbers")
def computed_by(numbers: list[int]) -> list[int]:
    return [os.getpid()] * len(numbers)


class Dataset:
    """All that a `DataLoader` asks of one."""

    def __init__(self, size: int, function: Any) -> None:
        self.size, self.function = size, function

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.function([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        results: list[Any] = self.function(indices)
        return results


@pytest.fixture(autouse=True)
def _empty() -> None:
    embed.cache_clear()
    computed_by.cache_clear()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_workers_of_every_epoch_compute_each_item_once(method: str) -> None:
    loader = torch.utils.data.DataLoader(
        Dataset(12, embed), batch_size=4, num_workers=2, multiprocessing_context=method
    )
    for _ in range(2):
        rows = torch.cat(list(loader))
        assert torch.equal(rows, torch.tensor([[float(n), float(n * n)] for n in range(12)]))
    info = embed.cache_info()
    assert (info.misses, info.hits + info.waits, info.currsize) == (12, 12, 12)


def test_the_program_has_what_the_workers_computed() -> None:
    loader = torch.utils.data.DataLoader(Dataset(4, computed_by), batch_size=2, num_workers=1)
    theirs = torch.cat(list(loader)).tolist()
    assert os.getpid() not in theirs
    assert computed_by([0, 1, 2, 3]) == theirs


def test_rows_of_a_tensor_are_tensors_of_their_own() -> None:
    for batch in ([1, 2, 1], [2, 3, 1]):
        rows = embed(batch)
        assert torch.equal(torch.stack(rows), torch.tensor([[float(n), float(n * n)] for n in batch]))
        for row in rows:
            row.fill_(-1.0)
            assert sum(bool((other == -1.0).all()) for other in rows) == 1
            row.fill_(-2.0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_rows_that_share_memory_are_told_apart(mode: Any) -> None:
    @cache_batch_variable("numbers")
    def broadcast(numbers: list[int]) -> Any:
        with mode():
            return torch.zeros(4, 3)[:1].expand(len(numbers), 3)

    rows = broadcast([1, 2, 3, 1])
    rows[0].fill_(1.0)
    assert [row.sum().item() for row in rows] == [3.0, 0.0, 0.0, 0.0]


def test_a_tensor_of_its_own_is_not_borrowed_and_a_row_is() -> None:
    whole = torch.zeros(2, 3)
    assert (is_borrowed(whole), is_borrowed(whole[0]), is_borrowed(list(whole)[1])) == (False, True, True)
    assert not is_borrowed(torch.eye(2).to_sparse())


@pytest.mark.parametrize("result", ["requires grad", "sparse"])
def test_a_tensor_that_cannot_come_back_the_same_is_returned_and_counted(
    result: str, caplog: pytest.LogCaptureFixture
) -> None:
    @cache_batch_variable("numbers")
    def special(numbers: list[int]) -> list[Any]:
        if result == "sparse":
            return [torch.eye(2).to_sparse() for _ in numbers]
        return list(torch.ones(len(numbers), 3, requires_grad=True))

    for _ in range(2):
        (tensor,) = special([1])
        assert tensor.requires_grad == (result == "requires grad")
        assert tensor.is_sparse == (result == "sparse")
    assert special.cache_info().rejected == 2
    (record,) = caplog.records
    assert "return tensor." in record.getMessage()  # the remedy
