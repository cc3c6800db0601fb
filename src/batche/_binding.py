"""Where a decorated function's entries are, decided at its first use in a process.

At decoration a module does not have the function yet, and the environment may not be what it will be; so what is
stated is checked then, and what it comes to is settled here.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from batche import _places, _runtime
from batche._keys import Keyer
from batche._namespace import Namespace
from batche._numbers import ENDLESS
from batche._ownership import IMMUTABLE, read_only
from batche._private import Private
from batche._reports import Reports
from batche._settings import Settings
from batche._wakeups import Wakeups
from batche.codecs import Codec, format_name, held
from batche.errors import CodecError, SignatureError, StoreError
from batche.stores.base import Store
from batche.stores.mapping import MappingStore
from batche.stores.null import NullStore

if sys.platform != "win32":
    # Now and not at the first use: a child that is forked while another thread imports waits for that import for ever.
    from batche.stores.lmdb.store import LmdbStore
    from batche.stores.lmdb.upkeep import Limits

PRIVATE: Final = "private"
"""The environment of a runtime place that all private namespaces share."""
FOREVER: Final = float("inf")
_RETRY: Final = 1.0
"""Seconds after which a store that could not be opened is tried again."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a decoration states of its store."""

    store: Store | _places.PlaceSpec | None  # None: the environment's, else the runtime place
    maxsize: int | None
    max_bytes: int | None
    codec: Codec
    key: Callable[[Any], object] | None
    strict: bool
    calls: Mapping[str, Any]
    """The other fields of `Settings`: what is stated of calls."""
    when: int = field(default_factory=time.time_ns)


@dataclass(slots=True)
class Binding:
    """A function that has found its store: all that a call of it needs."""

    keyer: Keyer
    settings: Settings
    until: float = FOREVER  # monotonic time from which on a better store is looked for


class Copies:
    """The codec of a store that keeps the results themselves: nobody can change what it keeps."""

    name = "copy"

    def encode(self, value: Any, /) -> Any:
        return value if type(value) in IMMUTABLE else self._copy(value)

    decode = encode

    def _copy(self, value: Any) -> Any:
        try:
            return deepcopy(value)
        except Exception as error:
            problem = f"a {type(value).__name__} cannot be copied ({error}); return plain data to cache it"
            raise CodecError(self.name, problem) from error


class Uncopied(Copies):
    """The codec of a store that keeps nothing: only what is handed out twice is copied."""

    name = "kept"

    def encode(self, value: Any, /) -> Any:
        return value


class Shared:
    """The codec of a store that keeps the results themselves and hands them out, arrays read-only."""

    name = "shared"

    def encode(self, value: Any, /) -> Any:
        return read_only(value)

    decode = encode


class ReadOnly:
    """A codec whose arrays are read-only when they come back."""

    def __init__(self, codec: Codec) -> None:
        self.name = codec.name
        self.encode = codec.encode
        self._decode = codec.decode

    def decode(self, data: bytes, /) -> Any:
        return read_only(self._decode(data))


def bind(
    function: str, namespace: Namespace, stated: Stated, reports: Reports, before: Binding | None = None
) -> Binding:
    """Open the store of a function. Trouble is raised only where that is wanted (``strict``), or the platform has none.

    ``before`` is what an earlier attempt came to: a store that still cannot be opened goes on with its counts.
    """
    until = FOREVER
    try:
        store = _open_or_begin_anew(function, namespace, stated, reports)
    except StoreError as error:
        if stated.strict or isinstance(error, _places.NoLocksError):
            raise
        reports.once(f"store: {error.problem}", f"computing without a store: {error}")
        store, until = _stand_in(error, before), time.monotonic() + _RETRY
    return _bound_to(store, function, namespace, stated, reports, until)


def unbound(function: str, namespace: Namespace, stated: Stated, reports: Reports) -> Binding:
    """A function that keeps nothing, whatever store it states."""
    return _bound_to(NullStore(), function, namespace, stated, reports)


def _bound_to(
    store: Store, function: str, namespace: Namespace, stated: Stated, reports: Reports, until: float = FOREVER
) -> Binding:
    codec = _codec(store, stated)
    settings = Settings(
        function, namespace.id, store, codec, wakeups_of(store), reports, strict=stated.strict, **stated.calls
    )
    version = namespace.version + (format_name(stated.codec) if store.encoded else b"")
    return Binding(Keyer(namespace.id, version, stated.key), settings, until)


def _open_or_begin_anew(function: str, namespace: Namespace, stated: Stated, reports: Reports) -> Store:
    """Open the store; once more where it was damaged and is set aside by now."""
    try:
        return open_store(function, namespace, stated, reports)
    except _places.BegunAnewError as error:
        if stated.strict:
            raise
        reports.once(f"store: {error.problem}", str(error))
        return open_store(function, namespace, stated, reports)


def _stand_in(error: StoreError, before: Binding | None) -> NullStore:
    trouble = StoreError(error.store, error.problem)  # without the traceback, which keeps what was half open
    if before is None or not isinstance(before.settings.store, NullStore):
        return NullStore(trouble)
    before.settings.store.trouble = trouble
    return before.settings.store


def _codec(store: Store, stated: Stated) -> Codec:
    copies = stated.calls["copy"]
    if store.encoded:
        codec = held(stated.codec)
        return codec if copies else ReadOnly(codec)
    if isinstance(store, NullStore):
        return Uncopied()
    return Copies() if copies else Shared()


def open_store(function: str, namespace: Namespace, stated: Stated, reports: Reports) -> Store:
    """The store that is stated, or the environment's, or the runtime place's."""
    where = stated.store if stated.store is not None else _places.resolve(None, os.environ)
    if not isinstance(where, _places.PlaceSpec):
        require_name(function, namespace, outlives=bool(getattr(where, "outlives", False)))
        return where
    if where.kind == "off":
        return NullStore()
    if not where.from_environment:
        require_name(function, namespace, outlives=where.outlives)
    if sys.platform == "win32":
        return _in_process(where, stated, reports)
    return _in_place(where, namespace, stated)


def require_name(function: str, namespace: Namespace, *, outlives: bool) -> None:
    """Refuse to keep the entries of a function that no later process can find again."""
    if namespace.private and outlives:
        raise SignatureError(
            function,
            "is not found at its module and name (a lambda, a local function, a partial or another object), so a "
            "store that outlives this program could not tell whose entries they are; pass name= to say it",
        )


def _in_place(where: _places.PlaceSpec, namespace: Namespace, stated: Stated) -> Store:
    limits = Limits(stated.maxsize, stated.max_bytes, stated.when)
    if namespace.private:
        private.use(namespace.id, namespace.maker)
        private.discard()
        return LmdbStore.of_function(_runtime_path, PRIVATE, limits)
    find, persists = partial(_runtime.open_place, where), where.kind == "path"
    return LmdbStore.of_function(find, namespace.id.hex(), limits, persists=persists, name=namespace.name)


def _open_private() -> LmdbStore | None:
    place = _runtime.membership()
    if place is None or not (place.path / PRIVATE).exists():
        return None
    return LmdbStore.of_function(_runtime_path, PRIVATE, Limits())


def _runtime_path() -> Path:
    return _runtime.join().path


private: Final = Private(_open_private)
"""The private functions of this process."""


def _in_process(where: _places.PlaceSpec, stated: Stated, reports: Reports) -> Store:
    if where.kind != "runtime":
        _places.require_locks(str(where))
    reports.once("platform", "this platform cannot share a cache between processes; each keeps its own")
    return MappingStore(maxsize=None if stated.maxsize == ENDLESS else stated.maxsize)


# By identity, because a third party's store may be neither hashable nor weakly referable.
_wakeups: weakref.WeakValueDictionary[int, Wakeups] = weakref.WeakValueDictionary()


def wakeups_of(store: Store) -> Wakeups:
    """Who in this process waits for keys of ``store``: one for all functions that share it."""
    own = getattr(store, "wakeups", None)
    if isinstance(own, Wakeups):
        return own
    return _wakeups.setdefault(id(store), Wakeups(store))  # it holds the store, whose id so stays its own
