"""What is used of a transaction of LMDB, and what is known as of one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Transaction(Protocol):
    """The part of an LMDB transaction that is used here."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def put(self, key: bytes, value: bytes, /, *, overwrite: bool = True) -> bool: ...

    def pop(self, key: bytes, /) -> bytes | None: ...

    def delete(self, key: bytes, /) -> bool: ...

    def cursor(self) -> Any: ...

    def id(self) -> int: ...


class EpochRead(NamedTuple):
    """A namespace's epoch as of a transaction's number: the same for every other that reads the same commit."""

    transaction: int
    namespace: bytes
    epoch: int
