"""The import path of 0.1.1: the same names, from where they live now."""

from batche._decorator import cache_batch_variable
from batche.errors import BatcheException

__all__ = ["BatcheException", "cache_batch_variable"]
