"""The names of msgpack that are used here, with their types, which msgpack does not ship."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    class ExtType(NamedTuple):
        """An extension: a number that says how the bytes are to be read."""

        code: int
        data: bytes

    class Packer:
        """Writes one value; not for two threads."""

        def __init__(
            self, *, strict_types: bool, unicode_errors: str = "strict", default: Callable[[Any], Any] | None = None
        ) -> None: ...
        def pack(self, obj: Any) -> bytes: ...

    def packb(obj: Any) -> bytes: ...
    def unpackb(
        packed: bytes | memoryview,
        *,
        strict_map_key: bool = True,
        ext_hook: Callable[[int, bytes], Any] = ...,
        list_hook: Callable[[list[Any]], Any] | None = None,
        unicode_errors: str = "strict",
    ) -> Any: ...

else:
    from msgpack import ExtType, Packer, packb, unpackb

__all__ = ["ExtType", "Packer", "packb", "unpackb"]
