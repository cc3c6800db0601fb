"""What the engine asks its driver to do, one class for each kind of step."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

from batche._types import Key, Owner


class Read(NamedTuple):
    """Look keys up; answered by their entries. ``use``: it makes them recent."""

    keys: Sequence[Key]
    use: bool = True


class Claim(NamedTuple):
    """Claim keys; answered by what came of each. ``force``: also those that somebody else owns."""

    keys: Sequence[Key]
    force: bool = False


class Compute(NamedTuple):
    """Call the function on items; answered by what it returned."""

    items: list[Any]


class Put(NamedTuple):
    """Store entries, drop claims, claim the next keys; answered by `Stored`. ``force``: whoever has claims on them."""

    entries: list[tuple[Key, Any]]
    drop: Sequence[Key] = ()
    claim: Sequence[Key] = ()
    force: bool = False


class Delete(NamedTuple):
    """Remove entries and void claims; answered by the number of entries."""

    keys: Sequence[Key]


class Owners(NamedTuple):
    """Ask who owns keys; answered by an owner or `None` for each."""

    keys: Sequence[Key]
    before: Sequence[Owner | None] | None


class Listen(NamedTuple):
    """Have a bell that rings for keys; answered by a context manager that gives the bell."""

    keys: Sequence[Key]


class Wait(NamedTuple):
    """Sleep until the bell rings, at most ``seconds``. The bell is the driver's own."""

    bell: Any
    seconds: float


StoreStep: TypeAlias = Read | Claim | Put | Delete | Owners
Step: TypeAlias = StoreStep | Compute | Listen | Wait
Steps: TypeAlias = Generator[Step, Any, Any]
