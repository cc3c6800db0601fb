"""What is left written down when claims are over, and who sweeps it away: it never stays for good.

Processes end their calls in good order or die; a writer sweeps what is over, but what the dead have left only once it
mourned them for a while, so that their waiters can see that they died. Ghost: none; the clock is "a while went by".
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from tests.model._checker import FAULT, State, stands_for


class Life(IntEnum):
    """What a process does. ``ENDING`` has ended its call and not noted that it has."""

    IDLE = 0
    OWNING = 1
    ENDING = 2
    DEAD = 3


class Process(NamedTuple):
    """``calls`` are those it has begun; ``mourns`` whom it found dead and not a while ago yet, or already."""

    life: Life
    calls: int
    has_lane: bool
    mourned_at: int  # the value of "something ended" that its last sweep left mourning behind at, or 0
    mourns: tuple[int, ...]
    is_over: bool  # a while went by since


class World(NamedTuple):
    processes: tuple[Process, ...]
    claims: tuple[tuple[int, int], ...]  # process and call of each that is written down
    ended: int  # a word that every end of a call changes
    swept: int  # what it was when all that was over was gone


class Sweeping:
    """The model. ``flaws`` names what is left out, to see that its absence is noticed."""

    def __init__(self, *, processes: int, calls: int = 1, flaws: frozenset[str] = frozenset()) -> None:
        self.name = f"sweeping: {processes} processes x {calls} calls, a crash of each"
        self._processes, self._calls, self._flaws = processes, calls, flaws

    # ---- what the checker asks for ----

    def begin(self) -> Iterator[World]:
        yield World((Process(Life.IDLE, 0, True, 0, (), False),) * self._processes, (), 0, 0)

    def is_over(self, world: World) -> bool:
        return all(one.life in (Life.IDLE, Life.DEAD) for one in world.processes)

    def wrong(self, world: World) -> str | None:
        """Whoever lives and writes now and then is enough: what is over is gone after three of its writes."""
        for number, one in enumerate(world.processes):
            if one.life is Life.DEAD:
                continue
            later = world
            for _ in range(3):
                later = self._time_goes_by(self._write(later, number), number)
            left = [claim for claim in later.claims if self._state(later, claim) != Life.OWNING]
            if left and not any(other.life is Life.ENDING for other in world.processes):
                return f"process {number} writes on and the claims {left} stay for good"
        return None

    def canonical(self, world: World) -> State:
        """Of the words that tell of ends only their order counts."""
        words = sorted({0, world.ended, world.swept, *(one.mourned_at for one in world.processes)})
        names = {word: number for number, word in enumerate(words)}
        processes = tuple(one._replace(mourned_at=names[one.mourned_at]) for one in world.processes)
        return World(processes, world.claims, names[world.ended], names[world.swept])

    # ---- steps ----

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        for number, one in enumerate(world.processes):
            if one.life is Life.IDLE:
                if one.calls < self._calls:
                    yield f"{FAULT}{number} claims", self._claim(world, number)
                yield f"{FAULT}{number} writes", self._write(world, number)
                yield f"{FAULT}a while goes by for {number}", self._time_goes_by(world, number)
            elif one.life is Life.OWNING:
                yield f"{number} ends its call", self._lives(world, number, Life.ENDING)
            elif one.life is Life.ENDING:
                yield f"{number} notes that it has", self._note(world, number)
            if one.life is not Life.DEAD:
                yield f"{FAULT}{number} is killed", self._lives(world, number, Life.DEAD)

    @stands_for("stores.lmdb.store:LmdbStore.claim", "stores.lmdb.upkeep:Upkeep.write")
    def _claim(self, world: World, number: int) -> World:
        world = self._write(world, number)
        calls = world.processes[number].calls + 1
        claims = tuple(sorted({*world.claims, (number, calls)}))
        return self._with(world._replace(claims=claims), number, life=Life.OWNING, calls=calls)

    @stands_for("stores.lmdb.claims:Claims.end", "stores.lmdb.slots:Slots.ended")
    def _note(self, world: World, number: int) -> World:
        noted = world if "ends not noted" in self._flaws else world._replace(ended=self._new_word(world))
        return self._lives(noted, number, Life.IDLE)

    @stands_for("stores.lmdb.upkeep:Upkeep.write", "stores.lmdb.upkeep:Upkeep.commit")
    def _write(self, world: World, number: int) -> World:
        return self._sweep(self._find_dead(world), number)

    @stands_for("stores.lmdb.upkeep:Upkeep._find_dead", "stores.lmdb.claims:Claims.suspect")
    def _find_dead(self, world: World) -> World:
        """Fold the lanes of the dead, once, and have their claims swept."""
        if "nobody looks for the dead" in self._flaws or all(
            one.life is not Life.DEAD or not one.has_lane for one in world.processes
        ):
            return world
        processes = tuple(one._replace(has_lane=one.life is not Life.DEAD) for one in world.processes)
        return world._replace(processes=processes, ended=self._new_word(world))

    @stands_for(
        "stores.lmdb.sweeping:Sweep.go_on",
        "stores.lmdb.sweeping:Sweep._remove_what_is_over",
        "stores.lmdb.slots:Slots.swept",
    )
    def _sweep(self, world: World, number: int) -> World:
        """Remove what is over; what was left by the dead only once this process has known it for a while."""
        me = world.processes[number]
        comes_back = me.is_over and "only who mourned comes back" in self._flaws
        if (world.ended == world.swept and not comes_back) or (world.ended == me.mourned_at and not me.is_over):
            return world
        known = me.mourns if me.is_over else ()
        kept, seen = [], []
        for claim in world.claims:
            state = self._state(world, claim)
            if state is Life.DEAD and claim[0] not in known and "nobody is mourned" not in self._flaws:
                kept.append(claim)
                seen.append(claim[0])
            elif state is Life.OWNING:
                kept.append(claim)
        world = world._replace(claims=tuple(kept))
        if not seen or self._flaws & {"mourning counts as swept", "only who mourned comes back"}:
            world = world._replace(swept=world.ended)
        mourned_at = world.ended if seen else 0
        return self._with(world, number, mourned_at=mourned_at, mourns=tuple(sorted(set(seen))), is_over=False)

    def _time_goes_by(self, world: World, number: int) -> World:
        return self._with(world, number, is_over=bool(world.processes[number].mourns))

    def _state(self, world: World, claim: tuple[int, int]) -> Life:
        """Owning, ended (idle) or dead. A call that has ended stays so, whatever becomes of its process."""
        one = world.processes[claim[0]]
        if one.calls != claim[1] or one.life in (Life.ENDING, Life.IDLE):
            return Life.IDLE
        return one.life

    def _new_word(self, world: World) -> int:
        return 1 + max(world.ended, world.swept, *(one.mourned_at for one in world.processes))

    def _lives(self, world: World, number: int, life: Life) -> World:
        return self._with(world, number, life=life)

    def _with(self, world: World, number: int, **changes: object) -> World:
        one = world.processes[number]._replace(**changes)  # type: ignore[arg-type]  # fields by their names
        return world._replace(processes=(*world.processes[:number], one, *world.processes[number + 1 :]))
