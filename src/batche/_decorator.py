"""`cache_batch_variable`: the public face of it all, and its documentation."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeVar,
    overload,
)

from batche._function import AsyncCachedFunction, CachedFunction, cached
from batche._options import checked
from batche._signature import not_called_error
from batche._stores import Given
from batche.codecs import Codec

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
Results = TypeVar("Results", bound=Iterable[Any] | None)
"""What a sync batch function returns: a coroutine is none of it, so that a type checker can tell the two apart."""

if TYPE_CHECKING:
    from batche._function import TypedAsyncClassMethod, TypedClassMethod


class Decorate(Protocol):
    """What `cache_batch_variable` returns: it makes a cached function of a batch function, of its kind and types."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[type[T], Q], Coroutine[Any, Any, R]], /
    ) -> TypedAsyncClassMethod[Q, R]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[type[T], Q], Results], /) -> TypedClassMethod[Q, Results]: ...

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, Results], /) -> CachedFunction[P, Results]: ...


def cache_batch_variable(
    batch_variable_name: str | tuple[str, ...],
    maxsize: float | SupportsIndex | None = None,
    *,
    max_bytes: SupportsIndex | str | None = None,
    ttl: SupportsFloat | None = None,
    store: Given = None,
    name: str | None = None,
    version: str | None = None,
    key: Callable[[Any], object] | None = None,
    ignore: Iterable[str] = (),
    batch_size: SupportsIndex | None = None,
    codec: str | Codec = "auto",
    copy: bool = True,
    cache_if: Callable[[Any, Any], object] | None = None,
    wait_timeout: SupportsFloat | None = None,
    validate: bool = False,
    on_failed: Literal["raise", "return"] = "raise",
    strict: bool = False,
) -> Decorate:
    """Cache a batch function for each item, in one cache that all threads, tasks and processes of a program share.

    Programs that are started apart share one by ``store``, or ``BATCHE_STORE``.

    **Contract.** The function takes a list of items in the parameter ``batch_variable_name`` and returns a list of as
    many results, the same for an item whatever else is in its batch. It is called with a new list of those items that
    nobody has computed yet, in first-seen order and without duplicates; it is not called where there are none.

    **Result.** ``f(xs)`` is what the undecorated ``f(xs)`` gives: results in the order of the items, always as a list
    (of rows, where the function returns an array or a tensor). ``f([])`` is ``[]``.

    **Key.** An item is told by its type and content down to the leaves, together with every other argument that is not
    ignored, and the function's name and code. What the code refers to is not seen, a model, a helper, a global: state
    that with ``version``.

    **Not cached.** A batch of `None`, where the signature allows it; results that ``cache_if`` refuses, that are
    `Failed`, that no codec takes or that are larger than ``max_bytes``; exceptions.

    **Concurrency.** While somebody computes an item, other callers wait for that result instead of computing it again:
    threads, tasks, forked and spawned processes alike. A caller computes what it owns before it waits, and holds
    nothing while it waits, so callers of overlapping batches never block each other. A waiter whose owner died takes
    over. Limit: a thread or process that the function starts and joins is another caller; give it a ``wait_timeout``.

    **Guarantee and limit.** While its owner lives an item is computed once, by all that share the place. Where a wait
    times out, an owner fails or calls nest in a circle, each waiter may compute it too. Losing a claim costs another
    computation, never a wrong entry. Eviction is exact LRU, by count and by bytes, over all processes together.

    **Values.** What a caller gets is its own: to change it changes nobody else's, nor the cache; ``copy=False`` gives
    that up for speed.

    **Trouble.** A store that is full, damaged or gone does not break the function: it computes without, counts an
    error and says so once to the logger ``batche``; ``strict=True`` raises instead.

    **Async and methods.** An ``async def`` function stays one, and its attributes that may wait are to be awaited. The
    ``self`` of a method is an argument: give its class a ``__batche_key__()``, make it a dataclass, or leave it out
    by ``ignore=("self",)``; the attributes bind it, as in ``obj.embed.cache_contains(["a"])``.

    Args:
        batch_variable_name: the parameter that holds the batch; a tuple of names for several aligned batches, where an
            item is the tuple across them.
        maxsize: most entries, exact LRU; `None`, or infinity: no limit by count; 0: nothing is cached.
        max_bytes: most bytes of entries, keys and index included; an int or ``"512MiB"``. `None`: a quarter of what
            is free, at most 4 GiB; `cache_parameters` shows it.
        ttl: seconds after its storing, by the wall clock, for which an entry counts; a hit does not prolong it.
        store: `None`: ``BATCHE_STORE`` of the environment, else the runtime place, which lives as long as the
            processes of this program. A path: a directory that persists. ``"shm://name"``: one in shared memory.
            ``"off"``: compute everything. A mapping (a dict, a cachetools cache): its results stay in this process, and
            limits and ``ttl`` are its own. Or a `Store`.
        name: names the function in the store, instead of its module and qualified name.
        version: stands for the function's code, instead of a digest of it.
        key: ``item -> plain data`` to cache by, for items that cannot be keyed as they are.
        ignore: other parameters that do not change the answer; all their values share results.
        batch_size: most items that the function gets at a time. Each part is stored when it is done, so that an error
            in a later one loses nothing, and other callers may compute other parts meanwhile.
        codec: ``"auto"``: msgpack for plain data, arrays and tensors, pickle for the rest; ``"msgpack"``: never
            unpickles anything; ``"pickle"``; or a `Codec`.
        copy: `False`: positions and callers of a process may share a result, and arrays are read-only.
        cache_if: ``(item, result) -> bool``; where it is false the result is returned and not stored.
        wait_timeout: seconds to wait for somebody else's computation before computing it too; `None`: as long as its
            owner lives.
        validate: check items and results against the annotations, by typeguard (``pip install "batche[validate]"``).
        on_failed: what becomes of results that are `Failed`: ``"raise"`` a `BatchError` once all others are stored, or
            ``"return"`` them.
        strict: raise `StoreError` for trouble with the store, instead of computing without it and saying so once.

    Returns:
        A decorator. What it makes has the function's signature and types, and these attributes; each of the second
        line is called with the function's own arguments, `cache_put` with the results before them:

        - ``cache_info()``, ``cache_clear()``, ``cache_parameters()``, ``store``, ``__wrapped__``
        - ``cache_contains(...)``, ``cache_invalidate(...)``, ``cache_refresh(...)``, ``cache_put(results, ...)``,
          ``cache_warm(...)``

    Raises:
        SignatureError: the function has no such parameter, or an option does not fit it.
        AnnotationError: the batch or the result is annotated as something that is not a list.
        ValueError: a limit, a number, a store or a codec is not one.
        ImportError: ``validate=True`` without typeguard.

    A call raises what the function raises, and `SignatureError`, `UnkeyableError` (an item or argument that has no
    key), `ResultLengthError` (not one result for each item), `BatchError`, `AnnotationError` and `StoreError` as said
    above.

    Example:
        >>> @cache_batch_variable("texts", maxsize=100_000, version="all-MiniLM-L6-v2")
        ... def embed(texts: list[str]) -> list[list[float]]:
        ...     return model.encode(texts).tolist()
    """
    if callable(batch_variable_name) or isinstance(batch_variable_name, classmethod | staticmethod):
        raise not_called_error(batch_variable_name)
    options = checked(
        {
            "batch_variable_name": batch_variable_name,
            "maxsize": maxsize,
            "max_bytes": max_bytes,
            "ttl": ttl,
            "store": store,
            "name": name,
            "version": version,
            "key": key,
            "ignore": ignore,
            "batch_size": batch_size,
            "codec": codec,
            "copy": copy,
            "cache_if": cache_if,
            "wait_timeout": wait_timeout,
            "validate": validate,
            "on_failed": on_failed,
            "strict": strict,
        }
    )

    def decorate(function: Any) -> Any:
        return cached(function, options)

    return decorate


__all__ = ["Decorate", "cache_batch_variable"]
