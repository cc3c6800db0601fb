"""Processes that stay inside a write transaction for as long as a test wants."""

from __future__ import annotations

from batche.stores.lmdb.writing import claimed_keys
from tests.processes._tools import Scene
from tests.processes.programs.scenes import Behaviour, call, function, invalidate


def stay_inside(scene: Scene, behaviour: Behaviour) -> None:
    """Be the store's writer until the test says ``leave``; what was written is then committed."""
    environment = function(scene, behaviour).store._opened.lmdb

    def body(transaction: object) -> None:
        transaction.put(b"z-unfinished", b"x" * 100_000)  # type: ignore[attr-defined]  # a transaction of LMDB
        scene.flag("writing").set()
        scene.flag("leave").wait()
        transaction.delete(b"z-unfinished")  # type: ignore[attr-defined]  # the same

    environment.write(body, after=lambda _: None)


def is_unfinished(scene: Scene, behaviour: Behaviour) -> bool:
    """Whether something of a transaction that was not committed can be read."""
    environment = function(scene, behaviour).store._opened.lmdb
    return environment.read(lambda transaction: transaction.get(b"z-unfinished")) is not None


def claims(scene: Scene, behaviour: Behaviour) -> int:
    """The number of claims that are written down, whatever they are worth."""
    environment = function(scene, behaviour).store._opened.lmdb
    number: int = environment.read(lambda transaction: len(claimed_keys(transaction, b"", 1_000_000)))
    return number


def store_another(scene: Scene, behaviour: Behaviour) -> int:
    """Be a writer once more; the number of claims that are written down after that."""
    number = claims(scene, behaviour)
    call(scene, behaviour, [number])
    invalidate(scene, behaviour, [number])
    return claims(scene, behaviour)
