"""Cache a batch function for each item, in one cache that all threads, tasks and processes share."""

import sys
from typing import TYPE_CHECKING, Any

from batche._decorator import cache_batch_variable
from batche._types import CacheInfo
from batche.cache import Cache
from batche.codecs import Codec
from batche.errors import (
    AnnotationError,
    BatcheException,
    BatchError,
    CodecError,
    Failed,
    ResultLengthError,
    SignatureError,
    StoreError,
    UnkeyableError,
)
from batche.stores.base import Store

if TYPE_CHECKING:
    from batche.stores.lmdb import LmdbStore as LmdbStore

__all__ = [
    "AnnotationError",
    "BatchError",
    "BatcheException",
    "Cache",
    "CacheInfo",
    "Codec",
    "CodecError",
    "Failed",
    "LmdbStore",
    "ResultLengthError",
    "SignatureError",
    "Store",
    "StoreError",
    "UnkeyableError",
    "cache_batch_variable",
]


if sys.platform == "win32":
    __all__.remove("LmdbStore")  # where files cannot be locked there is no such store; all else works all the same


def __getattr__(name: str) -> Any:
    if name == "LmdbStore" and sys.platform != "win32":
        from batche.stores.lmdb import LmdbStore

        return LmdbStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
