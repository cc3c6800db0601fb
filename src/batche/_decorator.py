"""`cache_batch_variable`: checks what it is given, and ties signature, keys, store and engine together."""

from __future__ import annotations

import functools
import inspect
import os
import time
import types
import weakref
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from batche import _binding, _places
from batche._capacity import limits
from batche._drive import drive
from batche._engine import Run
from batche._names import adopt_program, program_name
from batche._namespace import Declared, declare, is_importable
from batche._plan import Plan, split
from batche._reports import Reports
from batche._signature import BatchSignature, Bound, not_called_message
from batche._types import CacheInfo, Key
from batche.codecs import Codec
from batche.codecs import codec as codec_of
from batche.errors import SignatureError
from batche.stores.base import Store

P = ParamSpec("P")
R = TypeVar("R")

_MAIN = ("__main__", "__mp_main__")


class CachedFunction(Generic[P, R]):
    """A batch function with a cache of its items. Made by `cache_batch_variable`.

    It goes wherever the function did: it has its signature, type hints and weak references, and pickles and copies by
    reference; cloudpickle takes it by value, as configuration, where it takes the function by value.
    """

    def __init__(self, function: Callable[P, R], options: dict[str, Any], declared: Declared | None = None) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__: Callable[P, R]  # declared here: annotations of the class would seem to be the function's
        self.__name__: str
        self.__qualname__: str
        self._options = options
        self._signature = BatchSignature(function, options["batch_variable_name"], options["ignore"])
        self._stated = _stated(options)
        self._declared = declared or declare(
            function, name=options["name"], version=options["version"], key=options["key"]
        )
        self._reports = Reports(self._signature.name)
        self._use: _binding.Bound | None = None
        self._reference = _reference_to(self, function)
        _refuse_async(self._signature.name, function)
        _check_early(self._signature.name, self._declared, self._stated)
        if declared is None:  # not a copy that came from a pickle
            weakref.finalize(self, _binding.orphan, self._declared.private.id, os.getpid()).atexit = False
        if self._is_at_runtime_place():
            _join_quietly()

    def _is_at_runtime_place(self) -> bool:
        return self._stated.store is None and not os.environ.get(_places.ENVIRONMENT_VARIABLE)

    # ---- calling ----

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function with the items that are not in the cache; see `cache_batch_variable`."""
        bound = self._signature.bind(args, kwargs)
        if self._signature.may_be_uncached and self._signature.is_uncached(bound.batch):
            return self.__wrapped__(*args, **kwargs)
        items = self._signature.items(bound.batch)
        if not items:
            return []  # type: ignore[return-value]  # the answer is always a list

        use = self._bound()
        run = Run(use.settings, split(items, use.keyer.scope(bound.arguments).keys(items)))
        results = run.recall()
        if results is None:
            results = drive(run, partial(self._compute, bound))
        return results  # type: ignore[return-value]  # the answer is always a list

    def _compute(self, bound: Bound, items: list[Any]) -> Any:
        args, kwargs = bound.call(items)
        return self.__wrapped__(*args, **kwargs)

    def _bound(self) -> _binding.Bound:
        use = self._use
        if use is None or (use.until != _binding.FOREVER and time.monotonic() > use.until):
            use = self._bind()
        return use

    def _bind(self) -> _binding.Bound:
        namespace = self._declared.settle(self.__wrapped__, self)
        use = _binding.bind(self._signature.name, namespace, self._stated, self._reports, self._use)
        self._use = use
        return use

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_binding.Bound, Plan]:
        bound = self._signature.bind(args, kwargs)
        items = [] if self._signature.is_uncached(bound.batch) else self._signature.items(bound.batch)
        use = self._bound()
        return use, split(items, use.keyer.scope(bound.arguments).keys(items))

    # ---- the cache ----

    @property
    def store(self) -> Store:
        """The store that the entries are in."""
        return self._bound().settings.store

    def cache_info(self) -> CacheInfo:
        """The counts of this function over all processes that use its store."""
        settings = self._bound().settings
        return settings.store.stats(settings.namespace)

    def cache_parameters(self) -> dict[str, Any]:
        """What the decorator was given, with the limits that are in force."""
        info = self.cache_info()
        return {**self._options, "maxsize": info.maxsize, "max_bytes": info.max_bytes}

    def cache_clear(self) -> None:
        """Remove every entry of this function, all versions of it, void the claims in flight and zero its counts."""
        settings = self._bound().settings
        settings.store.clear(settings.namespace)
        settings.wakeups.wake_all()

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> list[bool]:
        """Whether each item of a batch has an entry; changes neither recency nor counts."""
        use, plan = self._plan(args, kwargs)
        entries = use.settings.store.read(list(plan.first), use=False)
        there = {key for key, entry in zip(plan.first, entries, strict=True) if entry is not None}
        return [key in there for key in plan.keys]

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Remove the entries of a batch, and void the claims in flight on its items.

        Returns:
            The number of entries removed.

        Raises:
            StoreError: it could not be written, so old entries may still be served.
        """
        use, plan = self._plan(args, kwargs)
        keys: list[Key] = list(plan.first)
        removed = use.settings.store.delete(keys)
        use.settings.wakeups.wake(keys)
        return removed

    # ---- going where the function goes ----

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.__module__ not in _MAIN and is_importable(self.__wrapped__, self):
            return self.__qualname__
        qualname = getattr(self, "__qualname__", "")  # a partial or a callable object has none
        return _restore, (self._reference, self._options, self._settled(), qualname, program_name())

    def _settled(self) -> Declared:
        """The namespace that a copy made from this one's configuration shall share."""
        return Declared(self._declared.settle(self.__wrapped__, self), self._declared.private, named=True)

    def __copy__(self) -> CachedFunction[P, R]:
        return self

    def __deepcopy__(self, memo: object) -> CachedFunction[P, R]:
        return self

    @overload
    def __get__(self, instance: None, owner: type, /) -> CachedFunction[P, R]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> BoundCachedFunction: ...

    def __get__(self, instance: object | None, owner: type | None = None, /) -> Any:
        return self if instance is None else BoundCachedFunction(self, instance)


class BoundCachedFunction:
    """A cached method, bound to an instance: its attributes take the arguments that a call takes."""

    def __init__(self, function: CachedFunction[Any, Any], instance: object) -> None:
        self.__func__ = function
        self.__self__ = instance
        self.__doc__ = function.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__func__.__name__)

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundCachedFunction:
        return BoundCachedFunction(self.__func__, deepcopy(self.__self__, memo))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the cached function on the instance."""
        return self.__func__(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.__func__, name)
        if name in ("cache_contains", "cache_invalidate"):
            return partial(attribute, self.__self__)
        return attribute

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {self.__self__!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundCachedFunction):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))


def cache_batch_variable(
    batch_variable_name: str,
    maxsize: int | None = None,
    *,
    max_bytes: int | str | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    name: str | None = None,
    version: str | None = None,
    key: Callable[[Any], object] | None = None,
    ignore: Iterable[str] = (),
    codec: str | Codec = "auto",
    strict: bool = False,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Cache a batch function for each item, in one cache that all processes of a host share.

    The function takes a list of items in the parameter ``batch_variable_name`` and returns a list of as many
    results. A call computes only the items that nobody has computed yet: the function is passed a new list of them,
    in first-seen order and without duplicates, and the results are merged with the others in order. While somebody
    else computes an item, callers wait for it instead of computing it again.

    The function's code is part of each key, and so are all other arguments; what the code refers to is not: a model, a
    helper, a global. State that with ``version``.

    Args:
        batch_variable_name: the parameter that holds the batch.
        maxsize: most entries, exact LRU; `None`: no limit by count; 0: nothing is cached.
        max_bytes: most bytes of entries, keys and index included; an int or ``"512MiB"``. `None`: a quarter of what
            is free, at most 4 GiB; `cache_parameters` shows it.
        store: `None`: ``BATCHE_STORE`` of the environment, else the runtime place, which lives as long as the
            processes of this program. A path: a directory that persists. ``"shm://name"``: one in shared memory.
            ``"off"``: compute everything. Or a `Store`.
        name: names the function in the store, instead of its module and qualified name.
        version: stands for the function's code, instead of a digest of it.
        key: ``item -> plain data`` to cache by, for items that cannot be keyed as they are.
        ignore: other parameters that do not change the answer; all their values share results.
        codec: ``"auto"``: msgpack for plain data, arrays and tensors, pickle for the rest; ``"msgpack"``: never
            unpickles anything; ``"pickle"``; or a `Codec`.
        strict: raise `StoreError` for trouble with the store, instead of computing without it and saying so once.

    Raises:
        SignatureError: the function has no such parameter, or an option does not fit it.
        AnnotationError: the batch or the result is annotated as something that is not a list.
        ValueError: a limit, a store or a codec is not one.

    Example:
        >>> @cache_batch_variable("texts", maxsize=100_000, version="all-MiniLM-L6-v2")
        ... def embed(texts: list[str]) -> list[list[float]]:
        ...     return model.encode(texts)
    """
    if callable(batch_variable_name):
        raise not_called_message(batch_variable_name)
    _check_option("batch_variable_name", batch_variable_name, _are_names(batch_variable_name), "a parameter's name")
    _check_option("key", key, key is None or callable(key), "a function of an item")
    options = {
        "batch_variable_name": batch_variable_name,
        "maxsize": maxsize,
        "max_bytes": max_bytes,
        "store": _resolved(store),
        "name": name,
        "version": version,
        "key": key,
        "ignore": ignore if isinstance(ignore, str) else tuple(ignore),
        "codec": codec,
        "strict": strict,
    }
    _stated(options)

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        return CachedFunction(function, options)

    return decorate


def _check_option(option: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise SignatureError("cache_batch_variable", f"{option}= takes {expected}, not {value!r}")


def _are_names(names: object) -> bool:
    return isinstance(names, str) or (isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names))


def _resolved(store: str | os.PathLike[str] | Store | None) -> Any:
    """A store as it is kept: what can be read now (a path, ``~``) is."""
    if store is None or isinstance(store, _places.PlaceSpec):
        return store
    if isinstance(store, (str, os.PathLike)):
        return _places.resolve(store, {})
    if isinstance(store, Store):
        return store
    raise ValueError(f"store= takes a path, 'shm://name', 'off' or a Store, not {type(store).__name__}")


def _stated(options: dict[str, Any]) -> _binding.Stated:
    """Check the options that concern the store."""
    maxsize, max_bytes, store = options["maxsize"], options["max_bytes"], options["store"]
    if isinstance(store, Store) and not (maxsize is None and max_bytes is None):
        raise ValueError("a Store has its own limits: give maxsize and max_bytes to it, not beside it")
    stated_limits = limits(maxsize, max_bytes)
    return _binding.Stated(
        store, *stated_limits, codec_of(options["codec"]), None, bool(options["strict"]), options["key"]
    )


def _refuse_async(name: str, function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        problem = "async functions are not cached yet; decorate the sync function that it awaits in a thread"
        raise SignatureError(name, problem)


def _check_early(function: str, declared: Declared, stated: _binding.Stated) -> None:
    """Say at decoration what is known by then to fail at the first use."""
    store, public = stated.store, declared.public
    outlives = store is not None and bool(getattr(store, "outlives", False))
    if not declared.named and (public is None or "<" in public.name.rpartition(":")[2]):
        _binding.require_name(function, declared.private, outlives=outlives)


def _join_quietly() -> None:
    """Be a member of the runtime place from now on, so that it lives for children though this process never calls."""
    from batche import _runtime
    from batche.errors import StoreError

    try:
        _runtime.join()
    except StoreError:
        return  # said at the first use


# A plain pickle must find a cached function by its name; cloudpickle must take it by value where it takes functions
# by value, and asks that only of functions. So a wrapper pickles as its reference: a function of its own that stands
# at "<qualified name>._reference", which plain pickle finds there and cloudpickle copies.
_owners: weakref.WeakKeyDictionary[Any, weakref.ref[CachedFunction[Any, Any]]] = weakref.WeakKeyDictionary()


def _reference_to(owner: CachedFunction[Any, Any], function: Any) -> Any:
    if not isinstance(function, types.FunctionType):
        return function
    reference = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    reference.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(reference, function, updated=())
    reference.__dict__ = function.__dict__.copy()  # without the __wrapped__ that this would be
    reference.__qualname__ = f"{function.__qualname__}._reference"
    _owners[reference] = weakref.ref(owner)  # weak: an owner holds its reference
    return reference


def _restore(
    reference: Any, options: dict[str, Any], declared: Declared, qualname: str, program: str
) -> CachedFunction[Any, Any]:
    """The wrapper that a pickled one stands for: the one that is here, or a new one of the same configuration.

    A worker that did not run its parent's program keys the classes of that program under its name all the same.
    """
    known = _owners.get(reference) if isinstance(reference, types.FunctionType) else None
    owner = known() if known is not None else None
    if owner is not None:
        return owner
    if getattr(reference, "__module__", None) in _MAIN:
        adopt_program(program)
    if isinstance(reference, types.FunctionType):
        reference.__qualname__ = qualname
    return CachedFunction(reference, options, declared)


__all__ = ["CachedFunction", "cache_batch_variable"]
