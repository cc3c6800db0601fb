"""Calls inside batch functions: whatever calls whatever with whatever items, no circle of waits closes.

Each process makes one call, whose function may make another while it computes, and so on down to a depth: functions
that call each other, and themselves. Every batch is explored. What a claim is worth is another model's subject: here
claims end with their call, and those of a killed process at once. Nobody loses patience: all that can be waited for
is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from tests.model._checker import FAULT, State, stands_for

NOBODY, GONE = -1, -2
"""Owners: none, and a call that has ended since."""


class Phase(IntEnum):
    """Where a process is."""

    NEW = 0
    CALLING = 1
    DONE = 2


class Frame(NamedTuple):
    """A call: ``born`` is its id, and says how many of the calls under way are older. Sets of items are bit masks."""

    born: int
    unclaimed: int
    mine: int
    alone: int
    taken: tuple[int, ...]
    has_called: bool


class World(NamedTuple):
    processes: tuple[tuple[Phase, tuple[Frame, ...]], ...]
    claims: tuple[int, ...]  # the id of the call that owns each item
    entries: int
    crashes: int


class Nesting:
    """The model. ``flaws`` names what is left out of the rule, to see that its absence is noticed."""

    def __init__(
        self,
        *,
        processes: int,
        items: int,
        depth: int = 2,
        crashes: int = 0,
        batch_size: int | None = None,
        may_raise: bool = False,
        largest: int | None = None,
        flaws: frozenset[str] = frozenset(),
    ) -> None:
        parts = [f"nesting: {processes} processes x {items} items", f"{depth} deep"]
        parts += [f"parts of {batch_size}"] if batch_size else []
        parts += [f"crashes {crashes}"] if crashes else []
        parts += [f"inner batches of {largest}"] if largest else []
        self.name = ", ".join([*parts, "raise"] if may_raise else parts)
        self._processes, self._items, self._depth, self._crashes = processes, items, depth, crashes
        self._size, self._may_raise, self._largest, self._flaws = batch_size, may_raise, largest or items, flaws
        self._members = [[item for item in range(items) if mask >> item & 1] for mask in range(1 << items)]

    # ---- what the checker asks for ----

    def begin(self) -> Iterator[World]:
        yield World(((Phase.NEW, ()),) * self._processes, (NOBODY,) * self._items, 0, self._crashes)

    def is_over(self, world: World) -> bool:
        return all(phase is Phase.DONE for phase, _ in world.processes)

    def wrong(self, world: World) -> str | None:
        running = {frame.born: frame for _, frames in world.processes for frame in frames}
        for item, owner in enumerate(world.claims):
            owners = [frame for frame in running.values() if frame.mine >> item & 1]
            if len(owners) > 1:
                return f"item {item} has two owners"
            if (owner == NOBODY) == bool(owners) or (owners and owners[0].born != owner):
                return f"the claim of item {item} is leaked or lost"
        return None

    def canonical(self, world: World) -> State:
        """Processes are alike; of ids only the order counts, and of calls that have ended nothing."""
        ids = sorted(frame.born for _, frames in world.processes for frame in frames)
        names = {NOBODY: NOBODY} | {born: number for number, born in enumerate(ids)}
        processes = tuple(
            (phase, tuple(self._renamed(frame, names) for frame in frames)) for phase, frames in world.processes
        )
        claims = tuple(names[owner] for owner in world.claims)
        return world._replace(processes=tuple(sorted(processes)), claims=claims)

    def _renamed(self, frame: Frame, names: dict[int, int]) -> Frame:
        return frame._replace(born=names[frame.born], taken=tuple(names.get(owner, GONE) for owner in frame.taken))

    # ---- steps ----

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        for number, (phase, frames) in enumerate(world.processes):
            if phase is Phase.NEW:
                yield from self._call(world, number, frames)
            elif phase is Phase.CALLING:
                yield from self._top(world, number, frames)
                if world.crashes:
                    yield f"{FAULT}process {number} is killed", self._killed(world, number)

    def _top(self, world: World, number: int, frames: tuple[Frame, ...]) -> Iterator[tuple[str, World]]:
        """The innermost call of a process goes on, as `Run._fill` decides."""
        frame = frames[-1]
        if frame.unclaimed and (not frame.mine or self._size is None):
            yield f"{number} claims, {len(frames)} deep", self._claim(world, number, frames)
        elif frame.mine or frame.alone:
            yield from self._compute(world, number, frames)
        elif any(owner != NOBODY for owner in frame.taken):
            yield f"{number} looks, {len(frames)} deep", self._look(world, number, frames)
        else:
            yield f"{number} returns from {len(frames)} deep", self._return(world, number, frames)

    @stands_for("_calls:new_call", "_calls:inside", "_engine:Run._look_up")
    def _call(self, world: World, number: int, frames: tuple[Frame, ...]) -> Iterator[tuple[str, World]]:
        """A new call, the youngest of all, reads its items."""
        born = 1 + max((frame.born for _, stack in world.processes for frame in stack), default=-1)
        batches = range(1, 1 << self._items)
        for batch in batches if not frames else (each for each in batches if each.bit_count() <= self._largest):
            frame = Frame(born, batch & ~world.entries, 0, 0, (NOBODY,) * self._items, False)
            label = f"{number} calls with {self._members[batch]}, {len(frames) + 1} deep"
            yield label, self._with(world, number, Phase.CALLING, (*frames, frame))

    @stands_for("_engine:Run._claim", "_engine:Run._sort", "stores.lmdb.claims:Claims.win")
    def _claim(self, world: World, number: int, frames: tuple[Frame, ...]) -> World:
        frame, claims, won = frames[-1], list(world.claims), 0
        unclaimed, alone, taken = frame.unclaimed, frame.alone, list(frame.taken)
        for item in self._members[frame.unclaimed & ~world.entries]:
            if self._size is not None and won:
                break
            bit = 1 << item
            unclaimed &= ~bit
            if claims[item] == NOBODY:
                claims[item] = frame.born
                won |= bit
            elif self._may_wait_for(claims[item], frames):
                taken[item] = claims[item]
            else:
                alone |= bit
        frame = frame._replace(
            unclaimed=unclaimed & ~world.entries, mine=frame.mine | won, alone=alone, taken=tuple(taken)
        )
        return self._with(world._replace(claims=tuple(claims)), number, Phase.CALLING, (*frames[:-1], frame))

    @stands_for("_calls:may_wait_for", "_calls:youngest_holder", "_engine:Run._leave_to")
    def _may_wait_for(self, owner: int, frames: tuple[Frame, ...]) -> bool:
        """Wait only for a call younger than every enclosing one that holds claims."""
        holders = [frame.born for frame in frames[:-1] if frame.mine]
        if "no rule" in self._flaws:
            return owner not in holders  # re-entry alone is looked at
        if "the oldest counts" in self._flaws:
            return not holders or owner > min(holders)
        return not holders or owner > max(holders)

    @stands_for("_engine:Run._compute_part", "_engine:Run._store", "stores.lmdb.putting:Putting.store")
    def _compute(self, world: World, number: int, frames: tuple[Frame, ...]) -> Iterator[tuple[str, World]]:
        frame = frames[-1]
        if len(frames) < self._depth and not frame.has_called:
            yield from self._call(world, number, (*frames[:-1], frame._replace(has_called=True)))
        if self._may_raise:
            yield f"{number}'s function raises, {len(frames)} deep", self._return(world, number, frames)
        claims = tuple(NOBODY if owner == frame.born else owner for owner in world.claims)
        stored = world._replace(claims=claims, entries=world.entries | frame.mine)
        done = frame._replace(mine=0, alone=0, has_called=False)
        yield f"{number} stores, {len(frames)} deep", self._with(stored, number, Phase.CALLING, (*frames[:-1], done))

    @stands_for("_engine:Run._watch", "_engine:Run._judge", "_engine:Run._wait", "stores.lmdb.store:LmdbStore.owners")
    def _look(self, world: World, number: int, frames: tuple[Frame, ...]) -> World:
        frame = frames[-1]
        unclaimed, alone, taken = 0, 0, list(frame.taken)
        for item, owner in enumerate(frame.taken):
            now = world.claims[item]
            if NOBODY in (owner, now):
                taken[item] = NOBODY
                unclaimed |= (owner != NOBODY) << item
            elif owner != now:
                taken[item] = now if self._may_wait_for(now, frames) else NOBODY
                alone |= (taken[item] == NOBODY) << item
        frame = frame._replace(unclaimed=unclaimed & ~world.entries, alone=alone, taken=tuple(taken))
        return self._with(world, number, Phase.CALLING, (*frames[:-1], frame))

    @stands_for("_engine:Run.end", "stores.lmdb.workers:Workers.end")
    def _return(self, world: World, number: int, frames: tuple[Frame, ...]) -> World:
        """A call ends, and so do its claims; its caller computes on."""
        claims = tuple(NOBODY if owner == frames[-1].born else owner for owner in world.claims)
        phase = Phase.CALLING if len(frames) > 1 else Phase.DONE
        return self._with(world._replace(claims=claims), number, phase, frames[:-1])

    def _killed(self, world: World, number: int) -> World:
        mine = [frame.born for frame in world.processes[number][1]]
        claims = tuple(NOBODY if owner in mine else owner for owner in world.claims)
        return self._with(world._replace(claims=claims, crashes=world.crashes - 1), number, Phase.DONE, ())

    def _with(self, world: World, number: int, phase: Phase, frames: tuple[Frame, ...]) -> World:
        before = world.processes
        return world._replace(processes=(*before[:number], (phase, frames), *before[number + 1 :]))
