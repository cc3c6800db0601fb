"""`Cache`: a mapping whose entries all processes that use its place share, with exact LRU."""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from types import TracebackType
from typing import Any, Self, SupportsFloat, SupportsIndex, TypeVar, overload

from batche import _binding, _places, _runtime
from batche._capacity import limits
from batche._entries import PIECE, Entries
from batche._framing import framed_text
from batche._namespace import Namespace
from batche._options import nanoseconds
from batche._reports import Reports
from batche._stores import Given, refuse_limits_beside, resolved_store, stated_store
from batche._types import MISS, NAMESPACE_BYTES, CacheInfo
from batche.codecs import Codec, format_name
from batche.codecs import codec as codec_of
from batche.errors import StoreError

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Cache(MutableMapping[K, V]):
    """A mapping in a store: by default in the runtime place, so that all processes of the program share it.

    Keys are what a batch's items may be: they are told apart by type and content down to the leaves (``1``, ``1.0`` and
    ``True`` are three keys, lists and dicts are keys too), and iteration gives them back. Reading a value is a use,
    ``in``, ``len`` and iteration are not, and the least recently used entry goes first, over all processes. Each value
    that is handed out is an object of its own. An operation on one key is one step for all threads and processes, but
    two in a row are not: ``cache[key] += 1`` may lose a count. One on many keys is a step for each 1,024 of them, or
    4 MiB.

    Iteration goes from the least to the most recently used, over the keys that are there when it begins: what is
    removed since is left out, what is stored since may be. ``len`` counts entries that have not expired; with ``ttl``,
    and on a store that others use too, it reads all of them.

    Args:
        store: as for `cache_batch_variable`: `None`, a path, ``"shm://name"``, ``"off"``, a mapping, or a `Store`. A
            mapping's own order and limits hold; in one that is not a dict, telling values by iteration is a use.
        name: caches of one name in one place are one cache; with a `Codec` of your own, those of its name too.
        maxsize: most entries; `None`: no limit by count; 0: nothing is kept.
        max_bytes: most bytes, keys and index included; an int or ``"512MiB"``. `None`: by what is free.
        ttl: seconds after which an entry is gone, counted from its storing by wall clock, never extended by a use.
        codec: ``"auto"``, ``"msgpack"``, ``"pickle"``, or a `Codec`, which is then given the values, and not the keys.

    Raises:
        ValueError: a limit, a store or a codec is not one.
        KeyError: there is no such entry.
        UnkeyableError: what is given as a key has no canonical encoding; it is a `TypeError`, as for an unhashable one.
        CodecError: a value, or its key, cannot be stored so that it comes back the same, or is larger than the limit;
            it is a `ValueError`, as with ``cachetools``. What was there before stays.
        StoreError: the store cannot be used.
        TypeError: iteration, ``pop`` and ``popitem`` of a store that is not `Scannable`.

    Pickling and copying take the configuration: what comes of it is the same cache. So is ``with Cache() as cache:``,
    which closes the files in this process at its end, and leaves the entries where they are; the next use opens them.

    Example:
        >>> cache = Cache("~/.cache/pages", maxsize=10_000)
        >>> cache["https://example.org"] = "text"
        >>> cache.get_many(["https://example.org", "https://example.com"])
        {'https://example.org': 'text'}
    """

    def __init__(
        self,
        store: Given = None,
        *,
        name: str = "default",
        maxsize: float | SupportsIndex | None = None,
        max_bytes: SupportsIndex | str | None = None,
        ttl: SupportsFloat | None = None,
        codec: str | Codec = "auto",
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name= takes a text that is not empty, not {name!r}")
        resolved = resolved_store(store)
        refuse_limits_beside(resolved, maxsize, max_bytes, ttl)
        self._configuration: dict[str, Any] = {
            "store": resolved,
            "name": name,
            "maxsize": maxsize,
            "max_bytes": max_bytes,
            "ttl": ttl,
            "codec": codec,
        }
        most_entries, most_bytes = limits(maxsize, max_bytes)
        self._lifetime = nanoseconds("ttl", ttl, least=1)
        made = codec_of(codec)
        self._namespace = Namespace(f"Cache {name!r}", b"cache", private=False, id=_namespace_id(name, made))
        self._stated = _binding.Stated(
            store=stated_store(resolved),
            maxsize=most_entries,
            max_bytes=most_bytes,
            codec=made,
            key=None,
            strict=True,
            calls={"copy": True},
        )
        self._opened: Entries | None = None
        if resolved is None and not os.environ.get(_places.ENVIRONMENT_VARIABLE):
            with suppress(StoreError):  # raised at the first use
                _runtime.join()  # so that the place lives for the children of a process that never uses it

    def _entries(self) -> Entries:
        """What is kept; the store is opened at the first use."""
        if self._opened is None:
            bound = _binding.bind(self._namespace.name, self._namespace, self._stated, Reports(self._namespace.name))
            self._opened = Entries(bound, self._lifetime)
        return self._opened

    # ---- reading ----

    def __getitem__(self, key: K) -> V:
        value = self._entries().read([key])[0]
        if value is MISS:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]  # what was stored under a K is a V

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those ``keys`` that are there, 1,024 or 4 MiB read in one step; the keys are hashable here.

        The answer is a dict: of keys that are one in it (``1`` and ``True``) it has the first, and the last's value.
        """
        wanted = list(keys)
        values = self._entries().read(wanted)
        return {key: value for key, value in zip(wanted, values, strict=True) if value is not MISS}

    def __contains__(self, key: object) -> bool:
        return self._entries().has(key)

    def __len__(self) -> int:
        if self._lifetime is None and self._is_alone():
            return self.info().currsize
        return self._entries().number()

    def _is_alone(self) -> bool:
        """Whether what the store counts is this cache only."""
        return self._stated.store is None or isinstance(self._stated.store, _places.PlaceSpec)

    # ---- storing ----

    def __setitem__(self, key: K, value: V) -> None:
        self._entries().write([(key, value)])

    def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]]) -> None:
        """Store a mapping, or pairs of keys and values, 1,024 at a time; the last is then the most recent of all.

        An error leaves stored what came in earlier parts.
        """
        pairs = iter(_pairs_of(items))
        while part := list(islice(pairs, PIECE)):
            self._entries().write(part)

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """As of a dict, 1,024 entries at a time: see `set_many`."""
        self.set_many(_pairs_of(other))
        self.set_many(_pairs_of(kwargs))

    @overload
    def setdefault(self: Cache[K, T | None], key: K, default: None = None, /) -> T | None: ...

    @overload
    def setdefault(self, key: K, default: V, /) -> V: ...

    def setdefault(self, key: K, default: Any = None, /) -> Any:
        """The value of ``key``; where it has none, ``default``, which is stored, by one of all who do so."""
        value = self._entries().read([key])[0]
        return self._entries().find_or_store(key, default) if value is MISS else value

    # ---- removing ----

    def __delitem__(self, key: K) -> None:
        if not self._entries().remove([key]):
            raise KeyError(key)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove those ``keys`` that are there; their number."""
        return self._entries().remove(list(keys))

    @overload
    def pop(self, key: K, /) -> V: ...

    @overload
    def pop(self, key: K, /, default: V | T) -> V | T: ...

    def pop(self, key: K, /, default: Any = MISS) -> Any:
        """Remove an entry and return its value: each goes to one of all who do so."""
        value = self._entries().take(key)
        if value is MISS and default is MISS:
            raise KeyError(key)
        return default if value is MISS else value

    def popitem(self) -> tuple[K, V]:
        """Remove and return the least recently used entry: each goes to one of all who do so."""
        taken = self._entries().take_oldest()
        if taken is None:
            raise KeyError("popitem(): the cache is empty")
        return taken

    def clear(self) -> None:
        """Remove every entry of this cache, and zero its counts."""
        self._entries().clear()

    # ---- iterating ----

    def __iter__(self) -> Iterator[K]:
        return self._entries().keys()

    def items(self) -> ItemsView[K, V]:
        """Pairs of keys and values, the least recently used first; looking at them is no use."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values, the least recently used first; looking at them is no use."""
        return _Values(self)

    # ---- telling ----

    def __eq__(self, other: object) -> bool:
        """Whether a mapping has the same keys, told apart as here, with equal values; looking at them is no use."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return other is self or self._entries().are(list(self.items()), list(other.items()))

    __hash__ = None  # type: ignore[assignment]  # as of any mapping that may change

    @property
    def maxsize(self) -> int | None:
        """Most entries; `None`: no limit by count."""
        return self.info().maxsize

    @property
    def currsize(self) -> int:
        """The number of entries."""
        return len(self)

    @property
    def max_bytes(self) -> int | None:
        """Most bytes, keys and index included; `None`: no limit by bytes, or not known."""
        return self.info().max_bytes

    @property
    def bytes(self) -> int:
        """The bytes of all entries, keys and index included, expired ones too."""
        return self.info().bytes

    def info(self) -> CacheInfo:
        """The counts of this cache over all processes: each key that was read is a hit or a miss.

        As for a decorated function, sizes, evictions and limits are the store's where others use it too.
        """
        return self._entries().store.stats(self._namespace.id)

    def __repr__(self) -> str:
        store = self._configuration["store"]
        where = "the runtime place" if store is None else str(store) if isinstance(store, _places.PlaceSpec) else ""
        counts = f"{self.info().currsize} entries" if self._opened is not None else "not used yet"
        return f"<{type(self).__name__} {self._configuration['name']!r} in {where or repr(type(store))}: {counts}>"

    # ---- opening, closing, copying ----

    def close(self) -> None:
        """Close the files in this process; entries stay, and the next use opens the files again.

        A store that was given is left to whoever made it.
        """
        opened, self._opened = self._opened, None
        if opened is not None and self._is_alone():
            opened.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._configuration)

    def __copy__(self) -> Self:
        return type(self)(**self._configuration)

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)(**self._configuration)


class _Items(ItemsView[K, V]):
    """Reads the pairs as they are kept, where the view of `Mapping` would use each."""

    _mapping: Cache[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._entries().pairs()


class _Values(ValuesView[V]):
    _mapping: Cache[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._entries().pairs())

    def __contains__(self, value: object) -> bool:
        return any(value is found or value == found for found in self)


def _rebuild(cls: type[Cache[Any, Any]], configuration: dict[str, Any]) -> Cache[Any, Any]:
    return cls(**configuration)


def _namespace_id(name: str, codec: Codec) -> bytes:
    """The codec is in it, and not only in the keys, so that iteration meets no entry of another format."""
    named = framed_text(name) + format_name(codec)
    return blake2b(named, digest_size=NAMESPACE_BYTES, person=b"batche cache").digest()


def _pairs_of(other: Any) -> Iterable[tuple[Any, Any]]:
    """The pairs of whatever ``dict.update`` takes."""
    if isinstance(other, Mapping):
        return other.items()
    return ((key, other[key]) for key in other.keys()) if hasattr(other, "keys") else other  # noqa: SIM118  no mapping


__all__ = ["Cache"]
