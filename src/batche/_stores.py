"""``store=`` as the decorator and `Cache` take it, and what may not be stated beside it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any, TypeAlias

from batche import _places
from batche.stores.base import Store
from batche.stores.mapping import store_of

Given: TypeAlias = str | os.PathLike[str] | MutableMapping[str, Any] | Store | None
"""What a user writes."""
Resolved: TypeAlias = _places.PlaceSpec | MutableMapping[str, Any] | Store | None
"""The same as it is kept: paths are absolute, so that it means one thing in every process."""


def resolved_store(store: Given | _places.PlaceSpec) -> Resolved:
    """Read what can be read now (a path, ``~``); ValueError for what is no store."""
    if store is None or isinstance(store, _places.PlaceSpec):
        return store
    if isinstance(store, (str, os.PathLike)):
        return _places.resolve(store, {})
    if isinstance(store, (Store, MutableMapping)) and not isinstance(store, type):
        return store
    raise ValueError(f"store= takes a path, 'shm://name', 'off', a mapping or a Store, not {type(store).__name__}")


def stated_store(store: Resolved) -> _places.PlaceSpec | Store | None:
    """The place or the store: a mapping has one store in this process."""
    return store_of(store) if isinstance(store, MutableMapping) else store


def refuse_limits_beside(store: Resolved, maxsize: object, max_bytes: object, ttl: object) -> None:
    """ValueError where ``store`` has limits of its own; its remedy."""
    if isinstance(store, MutableMapping) and not (maxsize is None and max_bytes is None and ttl is None):
        raise ValueError(
            f"a mapping has its own limits: give them to the {type(store).__name__} (as cachetools.LRUCache(maxsize) "
            "or cachetools.TTLCache(maxsize, ttl) take them), not maxsize, max_bytes or ttl beside it"
        )
    if isinstance(store, Store) and not (maxsize is None and max_bytes is None):
        raise ValueError("a Store has its own limits: give maxsize and max_bytes to it, not beside it")
