"""Cache a batch function for each item, in one cache that all processes of a host share."""

from batche._decorator import cache_batch_variable
from batche._types import CacheInfo
from batche.codecs import Codec
from batche.errors import (
    AnnotationError,
    BatcheException,
    CodecError,
    ResultLengthError,
    SignatureError,
    StoreError,
    UnkeyableError,
)
from batche.stores.base import Store

__all__ = [
    "AnnotationError",
    "BatcheException",
    "CacheInfo",
    "Codec",
    "CodecError",
    "ResultLengthError",
    "SignatureError",
    "Store",
    "StoreError",
    "UnkeyableError",
    "cache_batch_variable",
]
