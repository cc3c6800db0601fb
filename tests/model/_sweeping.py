"""What is left written down when claims are over, and who sweeps it away: it never stays for good, nor goes too soon.

Processes end their calls in good order or die. Writers look at all claims, some in each transaction, whoever comes:
what has ended goes, and what the dead have left is marked, and goes once it was marked for a while, so that its waiters
can see that its owner died. Any process may be killed between any two stores, and any commit may fail.

The clock goes in halves of that while. Ghost: the age of a mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from itertools import permutations
from typing import Any, NamedTuple

from tests.model._checker import FAULT, State, stands_for

WHILE = 2
"""Halves of a while that marked claims stay."""
UNMARKED = -1


class Life(IntEnum):
    """What a process does. ``ENDING`` has ended its call and not noted that it has."""

    IDLE = 0
    OWNING = 1
    ENDING = 2
    DEAD = 3


class Claim(NamedTuple):
    process: int
    call: int
    age: int  # halves of a while since it was marked, or `UNMARKED`


class Pass(NamedTuple):
    """One look at all claims, as far as a process has come. Of words it only counts which are the same."""

    ended: int
    until: int
    buries: bool
    after: int = -1
    marked: bool = False
    over: bool = False


class Process(NamedTuple):
    """``calls`` are those it has begun; ``dead`` whose lanes it has found, as a bit mask, and not folded yet."""

    life: Life
    calls: int
    has_lane: bool
    dead: int
    passing: Any  # a `Pass`, or ()


class Turn(NamedTuple):
    """A process has committed, and has still to free the lanes that it folded and to note the end of a pass."""

    process: int
    lanes: int
    sweeps: bool
    mourns: bool
    done: Any  # a `Pass`, or ()


class World(NamedTuple):
    processes: tuple[Process, ...]
    claims: tuple[Any, ...]  # by key: a `Claim`, or ()
    ended: int  # a word that every end of a call changes
    swept: int  # what it was when all that was over was gone
    until: int  # the word of the time until which marked claims stay; 0 where there are none
    left: int  # halves of a while until then
    turn: Any  # a `Turn`, or ()
    wrong: str


class Sweeping:
    """The model: a sweep looks at ``most`` claims in a transaction. ``flaws`` names what is left out on purpose."""

    def __init__(
        self,
        *,
        processes: int,
        calls: int = 1,
        keys: int = 1,
        most: int = 2,
        flaws: frozenset[str] = frozenset(),
    ) -> None:
        self.name = f"sweeping: {processes} processes x {calls} calls, {keys} keys in pieces of {most}, a crash of each"
        self._processes, self._calls, self._keys, self._most = processes, calls, keys, most
        self._flaws = flaws

    # ---- what the checker asks for ----

    def begin(self) -> Iterator[World]:
        processes = (Process(Life.IDLE, 0, True, 0, ()),) * self._processes
        yield World(processes, ((),) * self._keys, 0, 0, 0, 0, (), "")

    def is_over(self, world: World) -> bool:
        return not world.turn and all(one.life in (Life.IDLE, Life.DEAD) for one in world.processes)

    def wrong(self, world: World) -> str | None:
        """What a step found wrong, or a claim that stays though somebody lives and writes now and then."""
        if world.wrong:
            return world.wrong
        if world.turn or any(one.life is Life.ENDING for one in world.processes) or not self._over_claims(world):
            return None  # a step is under way, whose end is looked at too
        for number, one in enumerate(world.processes):
            if one.life is not Life.DEAD and self._stays(world, number):
                return f"process {number} writes on and the claims {self._over_claims(world)} stay for good"
        return None

    def _over_claims(self, world: World) -> list[Claim]:
        return [claim for claim in world.claims if claim and self._state(world, claim) is not Life.OWNING]

    def _stays(self, world: World, number: int) -> bool:
        for _ in range(4 * self._keys + 4):
            world = self._finished(world)
            world = self._written(self._look(self._half_a_while(world), number), number)
            if not self._over_claims(world):
                return False
        return True

    def _finished(self, world: World) -> World:
        while world.turn:
            world = self._note_done(world)
        return world

    def canonical(self, world: World) -> State:
        """Processes are alike, and of words only counts which are the same."""
        best = None
        for order in permutations(range(self._processes)):
            key = [(one.life, one.calls, one.has_lane) for one in world.processes]
            if any(key[order[place]] > key[order[place + 1]] for place in range(self._processes - 1)):
                continue
            renamed = self._renamed(world, order)
            best = renamed if best is None or renamed < best else best
        return best or world

    def _renamed(self, world: World, order: tuple[int, ...]) -> World:
        ended, until = {world.swept: 0}, {0: 0}
        ended.setdefault(world.ended, len(ended))
        until.setdefault(world.until, len(until))
        place = {number: place for place, number in enumerate(order)}

        def rename(going: Any) -> Any:
            if not going:
                return ()
            number = ended.setdefault(going.ended, len(ended))
            return going._replace(ended=number, until=until.setdefault(going.until, len(until)))

        def placed(mask: int) -> int:
            return sum(1 << place[number] for number in range(self._processes) if mask >> number & 1)

        processes = tuple(
            one._replace(passing=rename(one.passing), dead=placed(one.dead))
            for one in (world.processes[number] for number in order)
        )
        claims = tuple(claim._replace(process=place[claim.process]) if claim else () for claim in world.claims)
        turn: Turn = world.turn
        if turn:
            turn = turn._replace(process=place[turn.process], lanes=placed(turn.lanes), done=rename(turn.done))
        return World(processes, claims, ended[world.ended], 0, until[world.until], world.left, turn, world.wrong)

    # ---- steps ----

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        turn: Turn = world.turn
        if turn:
            yield f"{turn.process} notes what it has committed", self._note_done(world)
        for number, one in enumerate(world.processes):
            if one.life is Life.DEAD:
                continue
            yield f"{FAULT}{number} is killed", self._killed(world, number)
            if not turn or turn.process != number:
                yield from self._own_steps(world, number, one, has_turn=not turn)
        if world.left or any(claim and claim.age in range(WHILE) for claim in world.claims):
            yield f"{FAULT}half a while goes by", self._half_a_while(world)

    def _own_steps(self, world: World, number: int, one: Process, *, has_turn: bool) -> Iterator[tuple[str, World]]:
        if one.life is Life.OWNING:
            yield f"{number} ends its call", self._with(world, number, life=Life.ENDING)
        elif one.life is Life.ENDING:
            yield f"{number} notes that it has", self._note_end(world, number)
        else:
            if not one.dead:
                yield f"{FAULT}{number} looks for the dead", self._look(world, number)
            if has_turn:
                yield from self._writes(world, number, one)

    def _writes(self, world: World, number: int, one: Process) -> Iterator[tuple[str, World]]:
        yield f"{FAULT}{number} writes", self._written(world, number)
        if one.calls < self._calls:
            for key, claim in enumerate(world.claims):
                if not claim or self._state(world, claim) is not Life.OWNING:
                    yield f"{FAULT}{number} claims {key}", self._claim(world, number, key)
        yield f"{FAULT}{number}'s commit fails", self._failed(world, number)

    @stands_for("stores.lmdb.store:LmdbStore.claim", "stores.lmdb.claims:Claims.win")
    def _claim(self, world: World, number: int, key: int) -> World:
        world = self._written(world, number)
        calls = world.processes[number].calls + 1
        claims = (*world.claims[:key], Claim(number, calls, UNMARKED), *world.claims[key + 1 :])
        return self._with(world._replace(claims=claims), number, life=Life.OWNING, calls=calls)

    @stands_for("stores.lmdb.claims:Claims.end", "stores.lmdb.slots:Slots.ended")
    def _note_end(self, world: World, number: int) -> World:
        noted = world if "ends not noted" in self._flaws else world._replace(ended=self._new_word(world))
        return self._with(noted, number, life=Life.IDLE)

    @stands_for("stores.lmdb.upkeep:Upkeep._find_dead", "stores.lmdb.claims:Claims.suspect")
    def _look(self, world: World, number: int) -> World:
        """Find the lanes of the dead, and have their claims swept."""
        processes = enumerate(world.processes)
        dead = sum(1 << other for other, one in processes if one.life is Life.DEAD and one.has_lane)
        if not dead or "nobody looks for the dead" in self._flaws:
            return world
        return self._with(world._replace(ended=self._new_word(world)), number, dead=dead)

    @stands_for("stores.lmdb.upkeep:Upkeep.write", "stores.lmdb.upkeep:Upkeep._commit")
    def _written(self, world: World, number: int) -> World:
        """A transaction is committed; what is to be noted after it is still to come."""
        world, done = self._go_on(world, number)
        lanes = world.processes[number].dead
        world = self._with(world, number, dead=0)
        if done is not None and not (done.over or "a piece counts as a pass" in self._flaws):
            world, done = self._with(world, number, passing=done), None
        elif done is None:
            world = self._with(world, number, passing=())
        if not (lanes or done):
            return world
        mourns = done is not None and (done.buries or "every pass ends the mourning" in self._flaws)
        return world._replace(turn=Turn(number, lanes, done is not None, mourns, done or ()))

    @stands_for("stores.lmdb.sweeping:Sweep.go_on", "stores.lmdb.writing:claimed_keys")
    def _go_on(self, world: World, number: int) -> tuple[World, Pass | None]:
        """Do a piece, where something is to be swept."""
        going = self._going(world, number)
        if going is None:
            return world, None
        again = "the last of a piece is looked at again" in self._flaws
        found = [key for key, claim in enumerate(world.claims) if claim and key > going.after - again][: self._most]
        world, marked = self._remove_what_is_over(world, found, buries=going.buries)
        if marked:
            world = self._mourn_early(world)
            going = going._replace(marked=True, until=world.until)
        over = len(found) < self._most
        return world, going._replace(after=-1 if over else found[-1], over=over)

    def _going(self, world: World, number: int) -> Pass | None:
        going: Pass = world.processes[number].passing
        if going and (going.until == world.until or "marks of others not noticed" in self._flaws):
            return going
        return self._begun(world)

    @stands_for("stores.lmdb.sweeping:Sweep._begun", "stores.lmdb.slots:Slots.to_sweep")
    def _begun(self, world: World) -> Pass | None:
        under_way = world.left > 0
        if world.ended == world.swept and (world.until == 0 or under_way):
            return None
        return Pass(world.ended, world.until, not under_way)

    @stands_for("stores.lmdb.sweeping:Sweep._remove_what_is_over")
    def _remove_what_is_over(self, world: World, found: list[int], *, buries: bool) -> tuple[World, bool]:
        claims: list[Any] = list(world.claims)
        marked, wrong = False, world.wrong
        for key in found:
            claim = claims[key]
            state = self._state(world, claim)
            if state is Life.IDLE or (state is Life.DEAD and buries and claim.age != UNMARKED):
                claims[key] = ()
                if state is Life.DEAD and claim.age < WHILE:
                    wrong = f"the claim of key {key} goes before its waiters could see that its owner died"
            elif state is Life.DEAD and buries:
                claims[key] = claim._replace(age=0)
                marked = True
        return world._replace(claims=tuple(claims), wrong=wrong), marked

    @stands_for("stores.lmdb.slots:Slots.mourn")
    def _mourn_early(self, world: World) -> World:
        """Before the commit of what is marked now: whoever dies after it has noted until when that stays."""
        if self._flaws & {"mourning noted after the pass", "mourning not noted"}:
            return world
        return world._replace(until=self._new_word(world), left=WHILE)

    def _failed(self, world: World, number: int) -> World:
        """There is no room for it, say. What it has stored beside the transaction stays."""
        after, done = self._go_on(world, number)
        world = world._replace(until=after.until, left=after.left)
        if done is not None and done.over and "swept noted before the commit" in self._flaws:
            world = world._replace(swept=done.ended)
        return self._with(world, number, dead=0)

    @stands_for(
        "stores.lmdb.sweeping:Sweep.committed", "stores.lmdb.slots:Slots.swept", "stores.lmdb.counts:Lanes.free"
    )
    def _note_done(self, world: World) -> World:
        """The next of the stores that follow a commit, before anybody else has a turn to write."""
        turn: Turn = world.turn
        if turn.lanes:
            processes = tuple(
                one._replace(has_lane=one.has_lane and not turn.lanes >> number & 1)
                for number, one in enumerate(world.processes)
            )
            return self._went_on(world._replace(processes=processes), turn._replace(lanes=0))
        done: Pass = turn.done
        if turn.sweeps:
            return self._went_on(world._replace(swept=done.ended), turn._replace(sweeps=False))
        return self._went_on(self._mourning_noted(world, done), turn._replace(mourns=False))

    def _mourning_noted(self, world: World, done: Pass) -> World:
        if not done.marked:
            return world._replace(until=0, left=0)
        if "mourning noted after the pass" in self._flaws:
            return world._replace(until=self._new_word(world), left=WHILE)
        return world

    def _went_on(self, world: World, turn: Turn) -> World:
        if turn.lanes or turn.sweeps or turn.mourns:
            return world._replace(turn=turn)
        over = self._with(world, turn.process, passing=()) if turn.done else world
        return over._replace(turn=())

    # ---- the rest of the world ----

    def _half_a_while(self, world: World) -> World:
        claims = tuple(
            claim._replace(age=claim.age + 1) if claim and claim.age in range(WHILE) else claim
            for claim in world.claims
        )
        return world._replace(left=max(0, world.left - 1), claims=claims)

    def _killed(self, world: World, number: int) -> World:
        turn: Turn = world.turn
        if turn and turn.process == number:
            world = world._replace(turn=())
        return self._with(world, number, life=Life.DEAD, passing=(), dead=0)

    @stands_for("stores.lmdb.claims:Claims.judge", "stores.lmdb.workers:Workers.state")
    def _state(self, world: World, claim: Claim) -> Life:
        """Owning, ended (idle) or dead. A call that has ended stays so, whatever becomes of its process."""
        one = world.processes[claim.process]
        if one.calls != claim.call or one.life in (Life.ENDING, Life.IDLE):
            return Life.IDLE
        return one.life

    def _new_word(self, world: World) -> int:
        turn: Turn = world.turn
        passes = [*(one.passing for one in world.processes), turn.done if turn else ()]
        words: list[int] = [word for going in passes if going for word in (going.ended, going.until)]
        return 1 + max(world.ended, world.swept, world.until, *words)

    def _with(self, world: World, number: int, **changes: object) -> World:
        one = world.processes[number]._replace(**changes)  # type: ignore[arg-type]  # fields by their names
        return world._replace(processes=(*world.processes[:number], one, *world.processes[number + 1 :]))
