"""Numbers as users write them: of whatever type, where it stands for the number that is asked for."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batche import Cache, LmdbStore, cache_batch_variable
from batche._capacity import limits
from batche._numbers import ENDLESS, real, whole
from batche._options import nanoseconds


class Five:
    """What stands for a whole number."""

    def __index__(self) -> int:
        return 5


@pytest.mark.parametrize("number", [5, Five(), np.int64(5), np.uint8(5), np.array(5)])
def test_a_whole_number_may_be_of_any_type_that_stands_for_one(number: Any) -> None:
    assert (whole(number), type(whole(number))) == (5, int)


@pytest.mark.parametrize("number", [None, True, np.True_, 5.0, "5", b"5", np.float32(5), np.array([5]), [5]])
def test_what_stands_for_no_whole_number_is_none(number: Any) -> None:
    assert whole(number) is None


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2), Decimal("0.5")])
def test_a_real_number_may_be_of_any_type_that_stands_for_one(number: Any) -> None:
    assert real(number) == 0.5


@pytest.mark.parametrize(
    "number", [None, True, np.True_, "0.5", b"5", np.str_("5"), float("nan"), np.array([0.5]), 1j, [0.5]]
)
def test_what_stands_for_no_real_number_is_none(number: Any) -> None:
    assert real(number) is None


@pytest.mark.parametrize("maxsize", [100_000, 1e5, np.int64(100_000), np.float32(1e5)])
def test_a_limit_by_count_may_be_a_float_without_a_fraction(maxsize: Any) -> None:
    assert limits(maxsize, None) == (100_000, None)


@pytest.mark.parametrize("maxsize", [float("inf"), np.float32("inf")])
def test_an_infinite_limit_by_count_is_one_that_never_counts(maxsize: Any) -> None:
    assert limits(maxsize, None) == (ENDLESS, None)


@pytest.mark.parametrize("maxsize", [-1.0, 1.5, float("nan"), float("-inf"), "5", np.array([5, 6])])
def test_what_is_no_limit_by_count_is_refused(maxsize: Any) -> None:
    with pytest.raises(ValueError, match="maxsize must be 0 or more, or None for no limit by count"):
        limits(maxsize, None)


@pytest.mark.parametrize("size", [np.array([5, 6]), np.True_, 5.0, np.int64(-1)])
def test_what_is_no_limit_by_bytes_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="a size is a number of bytes"):
        limits(None, size)


@pytest.mark.parametrize("seconds", [1.5, np.float32(1.5), Fraction(3, 2)])
def test_a_time_may_be_any_real_number(seconds: Any) -> None:
    assert nanoseconds("ttl", seconds, least=1) == 1_500_000_000


@pytest.mark.parametrize("seconds", [float("inf"), np.float32("inf")])
def test_a_time_without_end_is_none(seconds: Any) -> None:
    assert nanoseconds("ttl", seconds, least=1) is None


@pytest.mark.parametrize("seconds", ["60", np.True_, np.float32("nan"), np.array([1.0, 2.0]), float("-inf")])
def test_what_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"ttl=.*expected seconds, more than 0, or None"):
        nanoseconds("ttl", seconds, least=1)


def test_every_parameter_takes_them(tmp_path: Path) -> None:
    computed: list[list[int]] = []

    @cache_batch_variable(
        "numbers",
        np.int64(2),
        max_bytes=np.int64(2**20),
        ttl=np.float32(60),
        wait_timeout=np.float32(1),
        batch_size=Five(),
    )
    def negate(numbers: list[int]) -> list[int]:
        computed.append(numbers)
        return [-number for number in numbers]

    assert negate(list(range(7))) == [-number for number in range(7)]
    assert list(map(len, computed)) == [5, 2]
    parameters = negate.cache_parameters()
    assert (parameters["maxsize"], parameters["max_bytes"]) == (2, 2**20)
    with Cache[str, int](tmp_path / "cache", maxsize=2.0, ttl=np.float32(60)) as cache:
        assert cache.maxsize == 2
    store = LmdbStore(tmp_path / "store", maxsize=np.int64(2))
    assert store.stats(bytes(8)).maxsize == 2
    store.close()
