"""Entries of a host in LMDB: one environment for all its processes, claims and recency beside it."""

from batche.stores.lmdb.store import LmdbStore

__all__ = ["LmdbStore"]
