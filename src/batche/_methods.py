"""Cached methods as an instance has them: the cached function with ``self`` filled in, in calls and in attributes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Generic, ParamSpec, Self, TypeVar

from batche._names import attribute_path
from batche._types import CacheInfo
from batche.stores.base import Store

Q = ParamSpec("Q")
R = TypeVar("R")


class _Method(Generic[Q, R]):
    """A cached method bound to an instance, or to a class: its attributes take the arguments that a call takes."""

    def __init__(self, function: Any, instance: object) -> None:
        self.__func__: Any = function
        self.__self__ = instance
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __reduce__(self) -> tuple[Any, ...]:
        owner = self.__func__.__qualname__.rpartition(".")[0]
        return getattr, (self.__self__, attribute_path(f"{owner}.{self.__func__.__name__}").rpartition(".")[2])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self.__func__, deepcopy(self.__self__, memo))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {self.__self__!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Method):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    @property
    def store(self) -> Store:
        """The store that the entries of all instances are in."""
        store: Store = self.__func__.store
        return store

    def cache_info(self) -> CacheInfo:
        """The counts of the method, all instances together."""
        info: CacheInfo = self.__func__.cache_info()
        return info

    def cache_parameters(self) -> dict[str, Any]:
        """What the decorator was given, with the limits that are in force."""
        parameters: dict[str, Any] = self.__func__.cache_parameters()
        return parameters


class CachedMethod(_Method[Q, R]):
    """A cached method, bound. What it does is said in `CachedFunction`."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R:
        """Call the cached function on the instance."""
        result: R = self.__func__(self.__self__, *args, **kwargs)
        return result

    def cache_clear(self) -> None:
        """Remove every entry of the method, of all instances."""
        self.__func__.cache_clear()

    def cache_contains(self, *args: Q.args, **kwargs: Q.kwargs) -> list[bool]:
        """Whether each item of a batch has an entry."""
        there: list[bool] = self.__func__.cache_contains(self.__self__, *args, **kwargs)
        return there

    def cache_invalidate(self, *args: Q.args, **kwargs: Q.kwargs) -> int:
        """Remove the entries of a batch; returns how many that were."""
        removed: int = self.__func__.cache_invalidate(self.__self__, *args, **kwargs)
        return removed

    def cache_refresh(self, *args: Q.args, **kwargs: Q.kwargs) -> R:
        """Compute all items of a batch and replace their entries."""
        result: R = self.__func__.cache_refresh(self.__self__, *args, **kwargs)
        return result

    def cache_put(self, results: Iterable[Any], /, *args: Q.args, **kwargs: Q.kwargs) -> None:
        """Store ``results`` for the items of a batch."""
        self.__func__.cache_put(results, self.__self__, *args, **kwargs)

    def cache_warm(self, *args: Any, **kwargs: Any) -> int:
        """Compute the items of a batch of any length that have no entry; returns how many that were."""
        computed: int = self.__func__.cache_warm(self.__self__, *args, **kwargs)
        return computed


class AsyncCachedMethod(_Method[Q, R]):
    """A cached async method, bound. What it does is said in `CachedFunction`."""

    async def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R:
        """Await the cached function on the instance."""
        result: R = await self.__func__(self.__self__, *args, **kwargs)
        return result

    async def cache_clear(self) -> None:
        """Remove every entry of the method, of all instances."""
        await self.__func__.cache_clear()

    async def cache_contains(self, *args: Q.args, **kwargs: Q.kwargs) -> list[bool]:
        """Whether each item of a batch has an entry."""
        there: list[bool] = await self.__func__.cache_contains(self.__self__, *args, **kwargs)
        return there

    async def cache_invalidate(self, *args: Q.args, **kwargs: Q.kwargs) -> int:
        """Remove the entries of a batch; returns how many that were."""
        removed: int = await self.__func__.cache_invalidate(self.__self__, *args, **kwargs)
        return removed

    async def cache_refresh(self, *args: Q.args, **kwargs: Q.kwargs) -> R:
        """Compute all items of a batch and replace their entries."""
        result: R = await self.__func__.cache_refresh(self.__self__, *args, **kwargs)
        return result

    async def cache_put(self, results: Iterable[Any], /, *args: Q.args, **kwargs: Q.kwargs) -> None:
        """Store ``results`` for the items of a batch."""
        await self.__func__.cache_put(results, self.__self__, *args, **kwargs)

    async def cache_warm(self, *args: Any, **kwargs: Any) -> int:
        """Compute the items of a batch of any length that have no entry; returns how many that were."""
        computed: int = await self.__func__.cache_warm(self.__self__, *args, **kwargs)
        return computed
