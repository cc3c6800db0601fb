"""Cache a batch function for each item, in one cache that all threads, tasks and processes share."""

import sys

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

if sys.platform != "win32":  # where files cannot be locked there is no such store; all else works all the same
    from batche.stores.lmdb import LmdbStore

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
    __all__.remove("LmdbStore")
