"""Cached functions: what `cache_batch_variable` makes of a batch function, sync or async, and of a method."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from batche import _binding
from batche._binding import FOREVER, Binding
from batche._cached import Cached
from batche._coroutines import is_async, mark_async
from batche._drive import ask_store, drive
from batche._drive_async import KEYS_A_TURN, Together, ask_store_async, drive_async, in_thread, stint
from batche._engine import Run
from batche._hooks import hooks
from batche._methods import AsyncCachedMethod, CachedMethod
from batche._namespace import Declared
from batche._plan import split
from batche._signature import Bound
from batche._steps import Delete, Read
from batche._types import CacheInfo
from batche.errors import BatchError, StoreError
from batche.stores.base import attempt

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class CachedFunction(Cached[P, R]):
    """A batch function with a cache of its items. Made by `cache_batch_variable`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function with the items that are not in the cache; see `cache_batch_variable`."""
        bound = self._signature.bind(args, kwargs)
        if self._signature.may_be_uncached and self._signature.is_uncached(bound.batch):
            return self.__wrapped__(*args, **kwargs)  # type: ignore[no-any-return]  # what the function returns
        items = self._signature.items(bound.batch)
        if not items:
            return []  # type: ignore[return-value]  # the answer is always a list
        if self._checks is not None:
            self._checks.batch(items)

        # `_items` above and `_current` below, written out: they are a part of every single-item hit.
        use = self._use
        if use is None or use.until != FOREVER or hooks.off:
            use = self._bound()
        run = Run(use.settings, split(items, use.keyer.scope(bound.arguments).keys(items)))
        results = run.recall()
        if results is None:
            if _binding.private.may_discard():
                _binding.private.discard()
            results = drive(run, partial(self._compute, bound))
        return results  # type: ignore[return-value]  # the answer is always a list

    def cache_clear(self) -> None:
        """Remove every entry of this function, all versions of it, void the claims in flight and zero its counts."""
        self._clear()

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> list[bool]:
        """Whether each item of a batch has an entry; changes neither recency nor counts.

        Raises:
            StoreError: the store cannot be read, under ``strict``; else it counts as empty.
        """
        use = self._bound()
        run = Run(use.settings, self._planned(self._signature.bind(args, kwargs), use))
        try:
            entries = ask_store(run, Read(run.plan.by_use, use=False))
        except StoreError as error:
            self._tell(error)
            entries = [None] * len(run.plan.by_use)
        return run.has(entries)

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Remove the entries of a batch, and void the claims in flight on its items.

        Returns:
            The number of entries removed.

        Raises:
            StoreError: it could not be written, so old entries may still be served.
        """
        use = self._bound()
        run = Run(use.settings, self._planned(self._signature.bind(args, kwargs), use))
        removed: int = ask_store(run, Delete(run.plan.by_use))
        use.settings.wakeups.wake(run.plan.by_use)
        return removed

    def cache_refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute all items of a batch and replace their entries, which are served until then; returns the results.

        Claims in flight on the items are voided. Where the function raises, the old entries stay.
        """
        bound = self._signature.bind(args, kwargs)
        if self._signature.is_uncached(bound.batch):
            return self.__wrapped__(*args, **kwargs)  # type: ignore[no-any-return]  # what the function returns
        run = self._refreshing(bound, self._bound())
        return drive(run, partial(self._compute, bound))  # type: ignore[return-value]  # the answer is always a list

    def cache_put(self, results: Iterable[Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store ``results`` for the items of a batch, as if they were computed now; of duplicates the last one's.

        Claims in flight on the items are voided. An item whose result cannot be stored has no entry afterwards.
        A `Failed` is raised or passed over as ``on_failed`` says, and leaves an old entry as it is.

        Raises:
            ResultLengthError: there is not one result for each item; nothing is stored.
            AnnotationError: with ``validate=True``, a result is not what the annotation says; nothing is stored.
            StoreError: it could not be written, so old entries may still be served.
        """
        drive(self._putting(results, self._signature.bind(args, kwargs), self._bound()), _as_they_are)

    def cache_warm(self, *args: Any, **kwargs: Any) -> int:
        """Compute the items of a batch that have no entry, a part at a time; returns how many that were.

        The batch may be any iterable, of any length, where there is one a set or the keys of a dict too: it is taken in
        parts of 1,000, or of ``batch_size`` where that is more, in constant memory. Each part is stored when it is
        done, so what is stopped goes on where it was.
        Where items are `Failed`, the `BatchError` of the first part that has some is raised once all others are done;
        its indices count from the beginning of that part. (Type checkers do not check the arguments: a stream is no
        list, which the function asks for.)
        """
        bound = self._signature.bind(args, kwargs)
        computed = 0
        failed: BatchError | None = None
        for run in self._warming(bound, self._bound()):
            try:
                drive(run, partial(self._compute, bound))
            except BatchError as error:
                failed = failed or error
            computed += run.results.computed
        if failed is not None:
            raise failed
        return computed

    # To pyright what does not take the instance as its first parameter is a static method; mypy takes it for a method.
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[T, Q], R], instance: T, owner: type | None = None, /
    ) -> CachedMethod[Q, R]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...

    def __get__(self, instance: object | None, owner: type | None = None, /) -> Any:
        return self if instance is None else CachedMethod(self, instance)


class AsyncCachedFunction(Cached[P, R]):
    """An async batch function with a cache of its items. Made by `cache_batch_variable`.

    The same as `CachedFunction`, and with the same entries where both have one name and version; what may wait is to be
    awaited. The event loop is not kept for longer than one transaction of the store takes.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], declared: Declared | None = None) -> None:
        super().__init__(function, options, declared)
        self._opening = Together()
        self._process = 0  # the one that a thread has made ready for this function
        mark_async(self)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await the function with the items that are not in the cache; see `cache_batch_variable`."""
        bound = self._signature.bind(args, kwargs)
        if self._signature.is_uncached(bound.batch):
            return await _awaited(self.__wrapped__(*args, **kwargs))  # type: ignore[no-any-return]  # the function's
        items = self._items(bound)
        if not items:
            return []  # type: ignore[return-value]  # the answer is always a list

        use = self._at_hand() or await self._ready()
        run = Run(use.settings, split(items, use.keyer.scope(bound.arguments).keys(items)))
        results = None
        if len(items) <= KEYS_A_TURN:
            if not stint.allows(len(items)):
                await stint.pause(len(items))
            with attempt:
                results = run.recall()
        if results is None:
            if _binding.private.may_discard():
                await in_thread(_binding.private.discard)
            results = await drive_async(run, partial(self._compute_async, bound))
        return results  # type: ignore[return-value]  # the answer is always a list

    def _at_hand(self) -> Binding | None:
        return self._current() if self._process == os.getpid() else None

    async def _ready(self) -> Binding:
        """The store; where it is to be opened, that is done in a thread, because it may wait for other processes."""
        use = self._at_hand()
        return use if use is not None else await self._opening.in_thread(self._open, self._at_hand)

    def _open(self) -> Binding:
        use = self._bound()
        with suppress(StoreError):  # if it lasts, the first call meets it again
            use.settings.store.stats(use.settings.namespace)  # does what a process does once, as no step does it
        self._process = os.getpid()
        return use

    async def _compute_async(self, bound: Bound, items: list[Any]) -> Any:
        return await _awaited(self._compute(bound, items))

    def cache_info(self) -> CacheInfo:
        """The counts of this function over all processes that use its store; waits for no writer."""
        with attempt:
            return super().cache_info()

    async def cache_clear(self) -> None:
        """Remove every entry of this function, all versions of it, void the claims in flight and zero its counts."""
        await in_thread(self._clear)

    async def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> list[bool]:
        """Whether each item of a batch has an entry: see `CachedFunction.cache_contains`."""
        use = await self._ready()
        run = Run(use.settings, self._planned(self._signature.bind(args, kwargs), use))
        try:
            entries = await ask_store_async(run, Read(run.plan.by_use, use=False))
        except StoreError as error:
            self._tell(error)
            entries = [None] * len(run.plan.by_use)
        return run.has(entries)

    async def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Remove the entries of a batch, and void the claims in flight: see `CachedFunction.cache_invalidate`."""
        use = await self._ready()
        run = Run(use.settings, self._planned(self._signature.bind(args, kwargs), use))
        removed: int = await ask_store_async(run, Delete(run.plan.by_use))
        use.settings.wakeups.wake(run.plan.by_use)
        return removed

    async def cache_refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute all items of a batch and replace their entries: see `CachedFunction.cache_refresh`."""
        bound = self._signature.bind(args, kwargs)
        if self._signature.is_uncached(bound.batch):
            return await _awaited(self.__wrapped__(*args, **kwargs))  # type: ignore[no-any-return]  # the function's
        run = self._refreshing(bound, await self._ready())
        return await drive_async(run, partial(self._compute_async, bound))  # type: ignore[return-value]  # always a list

    async def cache_put(self, results: Iterable[Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store ``results`` for the items of a batch: see `CachedFunction.cache_put`."""
        await drive_async(self._putting(results, self._signature.bind(args, kwargs), await self._ready()), _as_awaited)

    async def cache_warm(self, *args: Any, **kwargs: Any) -> int:
        """Compute the items of a batch of any length that have no entry: see `CachedFunction.cache_warm`."""
        bound = self._signature.bind(args, kwargs)
        computed = 0
        failed: BatchError | None = None
        for run in self._warming(bound, await self._ready()):
            try:
                await drive_async(run, partial(self._compute_async, bound))
            except BatchError as error:
                failed = failed or error
            computed += run.results.computed
        if failed is not None:
            raise failed
        return computed

    # To pyright what does not take the instance as its first parameter is a static method; mypy takes it for a method.
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...

    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[T, Q], R], instance: T, owner: type | None = None, /
    ) -> AsyncCachedMethod[Q, R]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...

    def __get__(self, instance: object | None, owner: type | None = None, /) -> Any:
        return self if instance is None else AsyncCachedMethod(self, instance)

    if sys.version_info < (3, 12):
        # What looks like a function is asked for the flags of its code.
        __code__ = __call__.__code__
        __defaults__ = __kwdefaults__ = None


async def _awaited(result: Any) -> Any:
    """What an async function gave, also where a sync wrapper around it awaited that already."""
    return await result if inspect.isawaitable(result) else result


def _as_they_are(items: list[Any]) -> list[Any]:
    return items


async def _as_awaited(items: list[Any]) -> list[Any]:
    return items


if TYPE_CHECKING:
    # What type checkers take for cached class methods: functions whose first parameter is a class. mypy does not see
    # that in `__get__`. One whose first parameter may be anything is taken for such a function too, so that called as
    # it is, it takes any arguments.

    class TypedClassMethod(CachedFunction[..., R], Generic[Q, R]):
        def __get__(self, instance: object, owner: type | None = None, /) -> CachedMethod[Q, R]: ...  # type: ignore[override]  # of a class too  # pyright: ignore[reportIncompatibleMethodOverride]

    class TypedAsyncClassMethod(AsyncCachedFunction[..., R], Generic[Q, R]):
        def __get__(self, instance: object, owner: type | None = None, /) -> AsyncCachedMethod[Q, R]: ...  # type: ignore[override]  # of a class too  # pyright: ignore[reportIncompatibleMethodOverride]


class CachedClassMethod(classmethod):  # type: ignore[type-arg]  # its types are those of the function inside
    """A cached class method: `classmethod` itself, from Python 3.13 on, would not bind the attributes to the class."""

    def __get__(self, instance: object | None, owner: type | None = None, /) -> Any:
        return self.__func__.__get__(owner if owner is not None else type(instance))


def cached(function: Callable[..., Any], options: dict[str, Any], declared: Declared | None = None) -> Any:
    """The cached function of ``function``, of its kind."""
    if isinstance(function, classmethod):
        return CachedClassMethod(cached(function.__func__, options, declared))
    if isinstance(function, staticmethod):
        return staticmethod(cached(function.__func__, options, declared))
    kind = AsyncCachedFunction if is_async(function) else CachedFunction
    return kind(function, options, declared)
