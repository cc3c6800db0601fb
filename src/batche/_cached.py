"""What sync and async cached functions have in common: options, binding, keys, and going where the function goes."""

from __future__ import annotations

import functools
import os
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from batche import _binding, _places, _runtime
from batche._batches import results_of
from batche._engine import Run
from batche._hooks import Listener, hooks
from batche._names import adopt_program, attribute_path, program_name
from batche._namespace import Declared, declare, is_importable
from batche._options import refuse_generator, stated
from batche._plan import Plan, split
from batche._putting import PutRun
from batche._reference import owner_of, reference_to
from batche._reports import Reports
from batche._signature import BatchSignature, Bound
from batche._types import CacheInfo, Key
from batche._validation import Checks
from batche.errors import StoreError
from batche.stores.base import Store, StoreBusyError

P = ParamSpec("P")
R = TypeVar("R")

WARMED: Final = 1000
"""Items that `cache_warm` takes at a time, or as many as the function is to get."""
_MAIN: Final = ("__main__", "__mp_main__")


class Cached(Generic[P, R]):
    """What sync and async cached functions have in common.

    A cached function goes wherever the function did: it has its signature, type hints and weak references, and pickles
    and copies by reference; cloudpickle takes it by value, as configuration, where it takes the function by value.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], declared: Declared | None = None) -> None:
        wrapper: Any = self  # its subclasses can be called
        functools.update_wrapper(wrapper, function)
        self.__wrapped__: Callable[..., Any]  # declared here: annotations of the class would seem the function's
        self.__name__: str
        self.__qualname__: str
        self._options = options
        self._signature = BatchSignature(function, options["batch_variable_name"], options["ignore"])
        refuse_generator(self._signature.name, function)
        self._checks = Checks(self._signature) if options["validate"] else None
        self._stated = stated(options, self._checks)
        self._declared = declared or declare(
            function, name=options["name"], version=options["version"], key=options["key"]
        )
        self._reports = Reports(self._signature.name)
        self._use: _binding.Binding | None = None
        self._unused: _binding.Binding | None = None  # in place of `_use` while caching is off
        self._listeners: tuple[Listener, ...] = ()
        self._reference = reference_to(self, function)
        _check_early(self._signature.name, self._declared, self._stated)
        if declared is None and not self._declared.named:  # no copy that came from a pickle, nor surely found by name
            weakref.finalize(self, _binding.private.orphan, self._declared.private.id, os.getpid()).atexit = False
        if self._may_be_at_runtime_place():
            _join_quietly()

    def _may_be_at_runtime_place(self) -> bool:
        """Whether its entries will be there as far as can be told; those of a private function are anyway."""
        if self._stated.store is not None:
            return False
        return not os.environ.get(_places.ENVIRONMENT_VARIABLE) or _is_private(self._declared)

    # ---- calls ----

    def _items(self, bound: Bound) -> list[Any]:
        items = self._signature.items(bound.batch)
        if self._checks is not None:
            self._checks.batch(items)
        return items

    def _compute(self, bound: Bound, items: list[Any]) -> Any:
        for listener in self._listeners:
            listener(items)
        args, kwargs = bound.call(items)
        return self.__wrapped__(*args, **kwargs)

    def _current(self) -> _binding.Binding | None:
        """The store, where it is open and no better one is to be looked for."""
        if hooks.off:
            return self._unbound()
        use = self._use
        if use is None or (use.until != _binding.FOREVER and time.monotonic() > use.until):
            return None
        return use

    def _bound(self) -> _binding.Binding:
        return self._current() or self._bind()

    def _bind(self) -> _binding.Binding:
        namespace = self._declared.settle(self.__wrapped__, self)
        use = _binding.bind(self._signature.name, namespace, self._stated, self._reports, self._use)
        self._use = use
        return use

    def _unbound(self) -> _binding.Binding:
        """What stands for the store while caching is off."""
        if self._unused is None:
            namespace = self._declared.settle(self.__wrapped__, self)
            self._unused = _binding.unbound(self._signature.name, namespace, self._stated, self._reports)
        return self._unused

    def _planned(self, bound: Bound, use: _binding.Binding) -> Plan:
        """The plan of a call that is about the cache, not for results."""
        items = [] if self._signature.is_uncached(bound.batch) else self._signature.items(bound.batch)
        return split(items, use.keyer.scope(bound.arguments).keys(items))

    def _refreshing(self, bound: Bound, use: _binding.Binding) -> Run:
        items = self._items(bound)
        return Run(use.settings, split(items, use.keyer.scope(bound.arguments).keys(items)), refresh=True)

    def _putting(self, results: Iterable[Any], bound: Bound, use: _binding.Binding) -> PutRun:
        """A run that stores ``results`` as if they were just computed."""
        items = self._signature.items(bound.batch)
        given = list(results) if isinstance(results, Iterator) else results
        values = results_of(given, len(items), self._signature.name)
        keys: list[Key] = use.keyer.scope(bound.arguments).keys(items)
        last = dict(zip(keys, values, strict=True))
        settings = replace(use.settings, strict=True, cache_if=None, counts=False)
        return PutRun(settings, split([last[key] for key in keys], keys))

    def _warming(self, bound: Bound, use: _binding.Binding) -> Iterator[Run]:
        """A run for each part of a batch that may be of any length."""
        if self._signature.is_uncached(bound.batch):
            return
        scope = use.keyer.scope(bound.arguments)
        for items in self._signature.parts(bound.batch, max(WARMED, use.settings.batch_size or 0)):
            if self._checks is not None:
                self._checks.batch(items)
            yield Run(use.settings, split(items, scope.keys(items)))

    # ---- the cache ----

    @property
    def store(self) -> Store:
        """The store that the entries are in."""
        return self._bound().settings.store

    def cache_info(self) -> CacheInfo:
        """The counts of this function over all processes that use its store; none where that cannot be read.

        Raises:
            StoreError: it cannot be read, under ``strict``.
        """
        settings = self._bound().settings
        try:
            return settings.store.stats(settings.namespace)
        except StoreError as error:
            self._tell(error)
            return CacheInfo(0, 0, None, 0)

    def _tell(self, error: StoreError) -> None:
        """Say once that the store could not be read, or raise where that is wanted."""
        if self._stated.strict or isinstance(error, StoreBusyError):
            raise error
        self._reports.once(f"store: {error.problem}", f"answering without the store: {error}")

    def cache_parameters(self) -> dict[str, Any]:
        """What the decorator was given, with the limits that are in force; a path as text, as it was resolved."""
        info, store = self.cache_info(), self._options["store"]
        given = {**self._options, "store": str(store) if isinstance(store, _places.PlaceSpec) else store}
        return {**given, "maxsize": info.maxsize, "max_bytes": info.max_bytes}

    def _clear(self) -> None:
        settings = self._bound().settings
        settings.store.clear(settings.namespace)
        settings.wakeups.wake_all()

    # ---- going where the function goes ----

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.__module__ not in _MAIN and is_importable(self.__wrapped__, self):
            return attribute_path(self.__qualname__)
        qualname = getattr(self, "__qualname__", "")  # a partial or a callable object has none
        return _restore, (type(self), self._reference, self._options, self._settled(), qualname, program_name())

    def _settled(self) -> Declared:
        """The namespace that a copy made from this one's configuration shall share."""
        return Declared(self._declared.settle(self.__wrapped__, self), self._declared.private, named=True)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _check_early(function: str, declared: Declared, stated: _binding.Stated) -> None:
    """Say at decoration what is known by then to fail at the first use."""
    store = stated.store
    outlives = store is not None and bool(getattr(store, "outlives", False))
    if _is_private(declared):
        _binding.require_name(function, declared.private, outlives=outlives)


def _is_private(declared: Declared) -> bool:
    """Whether it is known at decoration that no name will find the function."""
    public = declared.public
    return not declared.named and (public is None or "<" in public.name.rpartition(":")[2])


def _join_quietly() -> None:
    """Be a member of the runtime place from now on, so that it lives for children though this process never calls."""
    try:
        _runtime.join()
    except StoreError:
        return  # said at the first use


def _restore(
    kind: type[Cached[Any, Any]],
    reference: Any,
    options: dict[str, Any],
    declared: Declared,
    qualname: str,
    program: str,
) -> Any:
    """The wrapper that a pickled one stands for: the one that is here, or a new one of the same configuration.

    A worker that did not run its parent's program keys the classes of that program under its name all the same.
    """
    owner = owner_of(reference)
    if owner is not None:
        return owner
    if getattr(reference, "__module__", None) in _MAIN:
        adopt_program(program)
    if isinstance(reference, types.FunctionType):
        reference.__qualname__ = qualname
    return kind(reference, options, declared)
