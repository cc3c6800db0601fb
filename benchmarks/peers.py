"""The caches that are compared, each behind the same few methods.

A peer is a context manager that begins empty. What its `get_many` and `set_many` do is what is timed: each takes
items, makes keys of them as its users would, and packs, unpacks and merges where its library does not.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

from benchmarks.workload import Kind

OLD_VERSION: Final = "0.1.1"
PREFIX: Final = "embed:"
STARTING: Final = 20.0
"""Seconds that a server may take to answer for the first time."""
_CUTOFF: Final = 6000
"""Bytes in one piece of a command, as redis-py packs it by default."""


class Peer(Protocol):
    """A cache with room for ``capacity`` entries."""

    version: str
    exact: bool
    """Whether it evicts exactly the least recently used entry."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def get_many(self, items: list[str]) -> Sequence[Any]:
        """The results of items, `None` for one that is not there (where that can be, it has to be looked for)."""
        ...

    def set_many(self, items: list[str], values: list[Any]) -> object:
        """Store the results of items of which none is there."""
        ...

    def limit(self, batch: int) -> None:
        """From now on evict the least recently used entries: the cache is full, and ``batch`` come at once."""
        ...

    def entries(self) -> int | None:
        """How many entries there are, where the peer can tell."""
        ...


class Decorated:
    """A batch function under `cache_batch_variable`: this version of batche, or the one that is on the path."""

    exact = True

    def __init__(self, directory: Path, kind: Kind, capacity: int) -> None:
        from batche import cache_batch_variable

        self.version = _version_of_batche()
        self._prepared: list[Any] | None = None
        options = self._options(directory.name)
        self._function: Any = cache_batch_variable("texts", maxsize=capacity, **options)(self._embed())

    def _options(self, name: str) -> dict[str, Any]:
        return {}

    def _embed(self) -> Callable[[list[str]], list[Any]]:
        def embed(texts):  # type: ignore[no-untyped-def]  # batche 0.1.1 refuses annotations that are text
            prepared, self._prepared = self._prepared, None
            if prepared is None or len(prepared) != len(texts):
                raise RuntimeError(f"{len(texts)} items were computed that should not have been")
            return prepared

        return embed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        del self._function

    def get_many(self, items: list[str]) -> Sequence[Any]:
        results: list[Any] = self._function(items)
        return results

    def set_many(self, items: list[str], values: list[Any]) -> object:
        self._prepared = values
        return self._function(items)

    def limit(self, batch: int) -> None:
        """It evicts by count from the beginning."""

    def entries(self) -> int | None:
        return None


def _version_of_batche() -> str:
    try:
        return importlib.metadata.version("batche")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # imported from its source


class Batche(Decorated):
    """This version, in the default store: the runtime place, in shared memory."""

    def _options(self, name: str) -> dict[str, Any]:
        return {"name": f"benchmarks.{name}", "strict": True}

    def entries(self) -> int | None:
        return int(self._function.cache_info().currsize)


class DiskCache:
    """diskcache as it comes: a directory on the disk, one `get` or `set` for each item; bytes packed as for Redis."""

    exact = True

    def __init__(self, directory: Path, kind: Kind, capacity: int) -> None:
        import diskcache

        self.version = diskcache.__version__
        self._kind = kind
        self._cache: Any = diskcache.Cache(
            self._directory(directory), eviction_policy="least-recently-used", size_limit=1 << 40
        )

    def _directory(self, directory: Path) -> str | None:
        return None  # its default: a new one where temporary files are

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._cache.close()
        shutil.rmtree(self._cache.directory)

    def get_many(self, items: list[str]) -> Sequence[Any]:
        get, unpack = self._cache.get, self._kind.unpack
        return [None if (data := get(item)) is None else unpack(data) for item in items]

    def set_many(self, items: list[str], values: list[Any]) -> object:
        put, pack = self._cache.set, self._kind.pack
        for item, value in zip(items, values, strict=True):
            put(item, pack(value))
        return None

    def limit(self, batch: int) -> None:
        # It counts bytes, and they shrink at a commit only: so one entry goes for each that comes.
        self._cache.reset("size_limit", 1)
        self._cache.reset("cull_limit", 1)

    def entries(self) -> int | None:
        return len(self._cache)


class DiskCacheInTransactions(DiskCache):
    """The same loop in one transaction for a batch, and in shared memory: what its users can do by hand."""

    def _directory(self, directory: Path) -> str:
        return str(directory / "diskcache")

    def get_many(self, items: list[str]) -> Sequence[Any]:
        with self._transaction(items):
            return super().get_many(items)

    def set_many(self, items: list[str], values: list[Any]) -> object:
        with self._transaction(items):
            return super().set_many(items, values)

    def _transaction(self, items: list[str]) -> contextlib.AbstractContextManager[Any]:
        # Each get and set is a transaction already: one more around a single one would only slow it down.
        return self._cache.transact() if len(items) > 1 else contextlib.nullcontext()


class Redis:
    """A server of its own on a Unix socket, with nothing written to disk; one command for a batch."""

    exact = False  # the oldest of five that are drawn, by a clock of seconds

    def __init__(self, directory: Path, kind: Kind, capacity: int) -> None:
        import redis

        socket = directory / "redis.sock"
        self._server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._kind = kind
        self._client: Any = redis.Redis(
            connection_pool=redis.ConnectionPool(
                redis.UnixDomainSocketConnection,
                path=str(socket),
                protocol=2,
                **self._speaking(),
            )
        )
        try:
            server = self._first_answer()
        except BaseException:
            self._stop()
            raise
        self.version = f"{redis.__version__}, server {server}"

    def _speaking(self) -> dict[str, Any]:
        """What reads answers and packs commands: redis-py's own, also where hiredis is installed."""
        from redis._parsers import Encoder, _RESP2Parser
        from redis.connection import PythonRespSerializer

        encode = Encoder("utf-8", "strict", decode_responses=False).encode
        return {"parser_class": _RESP2Parser, "command_packer": PythonRespSerializer(_CUTOFF, encode)}

    def _first_answer(self) -> str:
        import redis

        until = time.monotonic() + STARTING
        while True:
            try:
                return str(self._client.info("server")["redis_version"])
            except redis.ConnectionError:
                if time.monotonic() > until or self._server.poll() is not None:
                    raise
                time.sleep(0.01)

    def _stop(self) -> None:
        self._server.terminate()
        self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._stop()

    def get_many(self, items: list[str]) -> Sequence[Any]:
        unpack = self._kind.unpack
        found = self._client.mget([PREFIX + item for item in items])
        return [None if data is None else unpack(data) for data in found]

    def set_many(self, items: list[str], values: list[Any]) -> object:
        pack = self._kind.pack
        return self._client.mset({PREFIX + item: pack(value) for item, value in zip(items, values, strict=True)})

    def limit(self, batch: int) -> None:
        # A command takes memory while it is read and carried out: about what its entries take, twice.
        used = self._client.info("memory")["used_memory"]
        self._client.config_set("maxmemory-policy", "allkeys-lru")
        self._client.config_set("maxmemory", used + 2 * batch * used // self._client.dbsize())

    def entries(self) -> int | None:
        return int(self._client.dbsize())


class RedisWithHiredis(Redis):
    """The same with the reader of answers and the packer of commands that are written in C."""

    def _speaking(self) -> dict[str, Any]:
        from redis._parsers import _HiredisParser
        from redis.connection import HiredisRespSerializer

        return {"parser_class": _HiredisParser, "command_packer": HiredisRespSerializer()}


PEERS: Final[dict[str, Callable[[Path, Kind, int], Peer]]] = {
    "batche": Batche,
    "batche 0.1.1": Decorated,
    "diskcache": DiskCache,
    "diskcache+transact": DiskCacheInTransactions,
    "redis": Redis,
    "redis+hiredis": RedisWithHiredis,
}
_NEEDS: Final = {
    "diskcache": ["diskcache"],
    "diskcache+transact": ["diskcache"],
    "redis": ["redis", "redis-server"],
    "redis+hiredis": ["redis", "redis-server", "hiredis"],
}


def wanting(name: str) -> list[str]:
    """What a peer needs that is not here."""
    return [need for need in _NEEDS.get(name, []) if not _is_here(need)]


def _is_here(need: str) -> bool:
    if need == "redis-server":
        return shutil.which(need) is not None
    return importlib.util.find_spec(need) is not None


def in_memory() -> Path | None:
    """Where temporary directories are in memory; `None` where there is no such place."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None
