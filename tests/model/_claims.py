"""The claim protocol: who computes an item, who waits for whom, and what becomes of the claims of the dead.

Each caller has a row of the table of workers and wants some of the items: every choice is explored. One step stands
for what nobody else can come in between of: one transaction, one store to a word, one look. Whatever a caller does
between two of them is its own, so dying there is the same as dying at the next one. Steps that begin with ``!`` are
faults: nobody may count on them.

Some callers may refresh: they compute all their items, whatever is there and whoever computes them. A caller that has
waited for long enough computes too, and may store under the claim of the owner that it waited for. Entries may grow too
old to count, and may be put by somebody who has results.

Ghosts, which no step of the library knows: the version of each item (how often it was invalidated), when a caller
came, what was voided, what is stored and was not removed, and how many owners that did not die a caller has waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from itertools import combinations, combinations_with_replacement, pairwise, permutations
from typing import Any, NamedTuple

from tests.model._checker import FAULT, State, stands_for

MOST_STRIKES = 2
RUNNING, ENDED, ABANDONED = 1, 0, 2
"""What the word of a caller's call says."""
FAULTS = ("crashes", "newcomers", "invalidations", "clears", "further calls", "timeouts", "expirations")
CRASH, NEWCOMER, INVALIDATION, CLEAR, AGAIN, TIMEOUT, EXPIRATION = range(len(FAULTS))
"""Places in `World.left`."""


class At(IntEnum):
    """Where a caller is: what its next step will be."""

    READ = 0
    CLAIM = 1
    COMPUTE = 2
    LOOK = 3
    READ_AGAIN = 4
    TELL = 5
    """It has committed, and not told so yet."""
    OUTDATE = 6
    """It has refreshed what cannot be stored: the old entries are to go."""
    DONE = 7
    DEAD = 8


class Claim(NamedTuple):
    row: int
    token: int
    serial: int
    took_over: bool
    epoch: int


class Caller(NamedTuple):
    """One caller; sets of items are bit masks. ``unclaimed`` is also what is to be read."""

    at: At
    token: int
    serial: int
    word: int
    unclaimed: int
    mine: int
    alone: int
    taken: tuple[tuple[int, ...], ...]
    strikes: tuple[int, ...]
    got: int
    storing: bool  # some of its results, and not all
    fresh: bool  # what it saw at its last look stands, as far as the count of commits tells
    came: tuple[int, ...]
    since: tuple[int, ...]
    voided: int
    waits: tuple[int, ...]
    refreshes: bool = False
    overdue: int = 0  # what it has waited for as long as it may
    heir_of: tuple[tuple[int, ...], ...] = ()  # the owner that it waited for in vain, for each item
    under: int = 0  # what it stores under the claims of such owners
    outdates: int = 0


class World(NamedTuple):
    """Everything. ``left`` is how often each kind of fault may still happen."""

    callers: tuple[Caller, ...]
    claims: tuple[Any, ...]  # each a `Claim`, or ()
    entries: tuple[int, ...]  # the version of what is stored, or -1
    versions: tuple[int, ...]
    epoch: int
    left: tuple[int, ...]
    telling: bool  # an invalidation was committed and not told yet
    wrong: str
    too_old: int  # entries that do not count any more
    kept: int  # what was stored, or there from the beginning, and not removed


class Claims:
    """The model. ``flaws`` names what is left out of the protocol, to see that its absence is noticed."""

    def __init__(
        self,
        *,
        callers: int,
        items: int,
        crashes: int = 0,
        newcomers: int = 0,
        invalidations: int = 0,
        clears: int = 0,
        again: int = 0,
        timeouts: int = 0,
        expirations: int = 0,
        refreshers: int = 0,
        filled: bool = False,
        failing: str = "",
        batch_size: int | None = None,
        most_keys: int | None = None,
        flaws: frozenset[str] = frozenset(),
    ) -> None:
        self._left = (crashes, newcomers, invalidations, clears, again, timeouts, expirations)
        self._refreshers, self._filled = refreshers, filled
        self.name = f"claims: {callers} callers x {items} items{self._told_faults(failing, batch_size, most_keys)}"
        self._number, self._items = callers, items
        self._failing = frozenset(failing.split())
        self._size, self._most = batch_size, most_keys
        self._flaws = flaws
        self._members = [[item for item in range(items) if mask >> item & 1] for mask in range(1 << items)]
        self._all = (1 << items) - 1
        self._none: tuple[tuple[int, ...], ...] = ((),) * items
        self._zero = (0,) * items

    def _told_faults(self, failing: str, batch_size: int | None, most_keys: int | None) -> str:
        parts = [f"{self._refreshers} of them refresh"] if self._refreshers else []
        parts += ["some stored before"] if self._filled else []
        parts += [f"parts of {batch_size}"] if batch_size else []
        parts += [f"transactions of {most_keys}"] if most_keys else []
        parts += [f"{kind} {number}" for kind, number in zip(FAULTS, self._left, strict=True) if number]
        return "".join(f", {part}" for part in [*parts, failing.replace(" ", " or ")] if part)

    # ---- what the checker asks for ----

    def begin(self) -> Iterator[World]:
        """Every choice of batches, those that differ by the names of callers or items only once."""
        nothing: tuple[tuple[()], ...] = ((),) * self._items
        for batches in sorted({self._alike(batches) for batches in self._batches()}):
            for refreshers in combinations(range(self._number), self._refreshers):
                callers = tuple(
                    self._newcomer(0, 0, self._zero, wants, refreshes=row in refreshers)
                    for row, wants in enumerate(batches)
                )
                for there in range(self._all + 1) if self._filled else [0]:
                    entries = tuple(0 if there >> item & 1 else -1 for item in range(self._items))
                    yield World(callers, nothing, entries, self._zero, 0, self._left, False, "", 0, there)

    def _batches(self) -> Iterator[tuple[int, ...]]:
        return combinations_with_replacement(range(1, self._all + 1), self._number)

    def _alike(self, batches: tuple[int, ...]) -> tuple[int, ...]:
        return min(
            tuple(sorted(sum(1 << order[item] for item in self._members[batch]) for batch in batches))
            for order in permutations(range(self._items))
        )

    def is_over(self, world: World) -> bool:
        return all(caller.at >= At.DONE for caller in world.callers) and not world.telling

    def wrong(self, world: World) -> str | None:
        return world.wrong or self._wrongly_owned(world) or self._wrongly_stored(world) or self._wrongly_waits(world)

    def canonical(self, world: World) -> State:
        """Rows are alike: sorted, with the references to them."""
        callers = world.callers
        keys = [
            (caller._replace(taken=(), heir_of=()), [bool(claim) and claim[0] == row for claim in world.claims])
            for row, caller in enumerate(callers)
        ]
        order = sorted(range(len(callers)), key=keys.__getitem__)
        best = self._renamed(world, order)
        if any(keys[one] == keys[other] for one, other in pairwise(order)):
            ordered = [keys[row] for row in order]
            for other in permutations(range(len(callers))):
                if [keys[row] for row in other] == ordered:
                    best = min(best, self._renamed(world, other))
        return best

    def _renamed(self, world: World, order: tuple[int, ...] | list[int]) -> World:
        if list(order) == sorted(order):
            return world
        names = {row: number for number, row in enumerate(order)}
        rename = lambda owner: (names[owner[0]], *owner[1:]) if owner else owner  # noqa: E731  one expression
        callers = tuple(
            caller._replace(taken=tuple(map(rename, caller.taken)), heir_of=tuple(map(rename, caller.heir_of)))
            for caller in (world.callers[row] for row in order)
        )
        claims = tuple(Claim(names[claim.row], *claim[1:]) if claim else claim for claim in world.claims)
        return world._replace(callers=callers, claims=claims)

    # ---- properties ----

    def _wrongly_owned(self, world: World) -> str | None:
        for item in range(self._items):
            bit = 1 << item
            owners = [
                row
                for row, one in enumerate(world.callers)
                if one.mine & bit and one.at != At.DEAD and not one.voided & bit
            ]
            if len(owners) > 1:
                return f"item {item} has two owners: {owners}"
            claim = world.claims[item]
            if owners and (not claim or claim.row != owners[0]):
                return f"the claim of item {item} is not its owner's"
            if owners and self._counts(world, world.callers[owners[0]], item):
                return f"item {item} is computed again though it is stored"
            if claim and self._state(world, claim) == RUNNING and not world.callers[claim.row].mine & bit:
                return f"the claim of item {item} is leaked: its call goes on and does not compute it"
        return None

    def _wrongly_stored(self, world: World) -> str | None:
        for item, (entry, version) in enumerate(zip(world.entries, world.versions, strict=True)):
            if entry >= 0 and entry != version:
                return f"a stale result of item {item} is stored"
            if entry < 0 and world.kept >> item & 1:
                return f"the entry of item {item} has gone though nobody removed it"
        for row, caller in enumerate(world.callers):
            if max(caller.waits) > MOST_STRIKES + self._left[CRASH] - world.left[CRASH]:
                return f"caller {row} waited for more than {MOST_STRIKES} owners that ended without an entry"
        return None

    def _wrongly_waits(self, world: World) -> str | None:
        """Once every commit is told, nobody goes on waiting for an owner who has lost its claim."""
        if world.telling or world.left[CRASH] < self._left[CRASH] or any(one.at == At.TELL for one in world.callers):
            return None
        for row, caller in enumerate(world.callers):
            if caller.at == At.LOOK and caller.fresh and self._all_run(world, caller):
                pairs = zip(caller.taken, world.claims, strict=True)
                if any(owner and claim[:3] != owner for owner, claim in pairs):
                    return f"caller {row} waits on for an owner whose claim has gone"
        return None

    # ---- steps ----

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        has_turn = not world.telling and all(caller.at != At.TELL for caller in world.callers)
        for row, caller in enumerate(world.callers):
            yield from self._own_steps(world, row, caller, has_turn)
            yield from self._faults(world, row, caller)
        if has_turn:
            yield from self._remove(world)
        if world.left[EXPIRATION] and world.kept & ~world.too_old:
            aged = world._replace(too_old=world.kept, left=self._spent(world, EXPIRATION))
            yield f"{FAULT}what is stored grows too old", aged
        if world.telling:
            yield "the invalidation tells of its commit", self._told(world._replace(telling=False))
            if world.left[CRASH]:
                yield f"{FAULT}who invalidated is killed", world._replace(telling=False, left=self._spent(world, CRASH))

    def _own_steps(self, world: World, row: int, caller: Caller, has_turn: bool) -> Iterator[tuple[str, World]]:
        match caller.at:
            case At.READ:
                yield f"{row} reads", self._read(world, row)
            case At.CLAIM if has_turn:
                yield from self._claim(world, row)
            case At.COMPUTE if caller.storing and has_turn:
                yield from self._put(world, row, caller, keep=True)
            case At.COMPUTE if not caller.storing:
                yield from self._compute(world, row, has_turn)
            case At.LOOK:
                yield f"{row} looks", self._look(world, row)
            case At.READ_AGAIN:
                yield f"{row} reads what is over", self._read_again(world, row)
            case At.OUTDATE if has_turn:
                yield f"{row} removes what it has refreshed and not stored", self._outdate(world, row)
            case At.TELL:
                yield f"{row} tells of its commit", self._tell(world, row)

    def _faults(self, world: World, row: int, caller: Caller) -> Iterator[tuple[str, World]]:
        if caller.at < At.DONE and world.left[CRASH]:
            yield f"{FAULT}{row} is killed", self._crash(world, row)
        if caller.at == At.DEAD and world.left[NEWCOMER]:
            yield f"{FAULT}a newcomer takes row {row}", self._replace(world, row)
        if caller.at == At.DONE and world.left[AGAIN]:
            yield f"{FAULT}{row} calls again", self._call_again(world, row)
        if caller.at == At.LOOK and world.left[TIMEOUT]:
            yield from self._time_out(world, row, caller)

    @stands_for("_function:CachedFunction.cache_refresh", "_cached:Cached._refreshing")
    def _newcomer(
        self, token: int, serial: int, versions: tuple[int, ...], wants: int, *, refreshes: bool = False
    ) -> Caller:
        """A call begins. One that refreshes does not read first."""
        at, none, zero = At.CLAIM if refreshes else At.READ, self._none, self._zero
        return Caller(
            at, token, serial, RUNNING, wants, 0, 0, none, zero, 0, False, False, versions, zero, 0, zero, refreshes
        )._replace(heir_of=none)

    @stands_for(
        "stores.lmdb.workers:Workers.state", "stores.lmdb.workers:Workers.alive", "stores.lmdb.claims:Claims.judge"
    )
    def _state(self, world: World, claim: Claim) -> int:
        """What a claim is worth: its call runs, has ended, or died."""
        owner = world.callers[claim.row]
        if claim.epoch != world.epoch:
            return ENDED
        if claim.token != owner.token and "token not looked at" not in self._flaws:
            return ABANDONED
        if claim.serial != owner.serial and "serial not looked at" not in self._flaws:
            return ENDED
        if owner.word != RUNNING:
            return owner.word
        return ABANDONED if owner.at == At.DEAD and "the dead hold on" not in self._flaws else RUNNING

    @stands_for("_engine:Run._look_up", "stores.lmdb.store:LmdbStore.read", "stores.lmdb.reading:read_raw")
    def _read(self, world: World, row: int) -> World:
        caller = world.callers[row]
        there = self._there(world, caller) & caller.unclaimed
        world = self._accepted(world, row, there)
        return self._go_on(world, row, caller._replace(unclaimed=caller.unclaimed & ~there, got=there))

    def _there(self, world: World, caller: Caller) -> int:
        return sum(1 << item for item in range(self._items) if self._counts(world, caller, item))

    @stands_for("_engine:Run._newer_than", "_engine:Run._fresh")
    def _counts(self, world: World, caller: Caller, item: int) -> bool:
        """Whether an entry is there for a caller: not one that is too old, nor any for one that refreshes."""
        return world.entries[item] >= 0 and not world.too_old >> item & 1 and not caller.refreshes

    def _accepted(self, world: World, row: int, mask: int) -> World:
        """A caller takes entries: none of them may be older than the caller, or too old."""
        if mask & world.too_old or (mask and world.callers[row].refreshes):
            return world._replace(wrong="a caller got an entry that is too old for it")
        stale = [item for item in self._members[mask] if world.entries[item] < world.callers[row].came[item]]
        return world._replace(wrong=f"a caller got a stale result of item {stale[0]}") if stale else world

    @stands_for("_engine:Run._fill", "_engine:Run._next_part", "_engine:Run.end", "_drive:drive")
    def _go_on(self, world: World, row: int, caller: Caller) -> World:
        """A caller's own decision what to do next."""
        waits_first = "waits while it holds claims" in self._flaws and caller.mine and any(caller.taken)
        if caller.unclaimed and (not caller.mine or self._size is None):
            caller = caller._replace(at=At.CLAIM)
        elif (caller.mine or caller.alone) and not waits_first:
            caller = caller._replace(at=At.COMPUTE, since=world.versions)
        elif any(caller.taken):
            caller = caller._replace(at=At.LOOK, fresh=False)
        else:
            return self._ended(world, row, caller, ENDED)
        return self._with(world, row, caller)

    @stands_for("_engine:Run.end", "stores.lmdb.claims:Claims.end", "stores.lmdb.workers:Workers.end")
    def _ended(self, world: World, row: int, caller: Caller, word: int) -> World:
        """One store to the call's word ends all its claims."""
        if "word not cleared" in self._flaws:
            word = RUNNING
        return self._with(world, row, self._gone(caller, At.DONE)._replace(word=word))

    def _gone(self, caller: Caller, at: At) -> Caller:
        """Nothing but what others can see of a caller that is done or dead."""
        nothing = self._newcomer(caller.token, caller.serial, self._zero, 0)
        return nothing._replace(at=at, word=caller.word)

    # ---- transactions ----

    @stands_for("_engine:Run._claim", "stores.lmdb.store:LmdbStore.claim", "stores.lmdb.environment:Environment.write")
    def _claim(self, world: World, row: int) -> Iterator[tuple[str, World]]:
        for swept in self._swept(world):
            yield from self._win(swept, row, world.callers[row], f"{row} claims")

    @stands_for("stores.lmdb.sweeping:Sweep.go_on", "stores.lmdb.upkeep:Upkeep.commit")
    def _swept(self, world: World) -> Iterator[World]:
        """A writer may sweep first: what has ended, or also what the dead have left once they were mourned."""
        states = [self._state(world, claim) if claim else RUNNING for claim in world.claims]
        yield world
        if ENDED in states:
            yield self._without(world, states, {ENDED})
        if ABANDONED in states:
            yield self._without(world, states, {ENDED, ABANDONED})

    def _without(self, world: World, states: list[int], gone: set[int]) -> World:
        claims = tuple(() if state in gone else claim for state, claim in zip(states, world.claims, strict=True))
        return world._replace(claims=claims)

    @stands_for(
        "stores.lmdb.store:LmdbStore._claim",
        "stores.lmdb.store:LmdbStore._read_again",
        "stores.lmdb.claims:Claims.win",
        "_engine:Run._sort",
    )
    def _win(self, world: World, row: int, caller: Caller, label: str) -> Iterator[tuple[str, World]]:
        """Claim what is unclaimed in some order; each item read again. The caller then sorts the answers."""
        items = self._members[caller.unclaimed]
        orders = [tuple(items)] if self._size is None and self._most is None else list(permutations(items))
        for order in orders:
            yield label, self._win_in_order(world, row, caller, order[: self._most])

    def _win_in_order(self, world: World, row: int, caller: Caller, order: tuple[int, ...]) -> World:
        claims, taken, won = list(world.claims), list(caller.taken), 0
        for item in order:
            if self._size is not None and won.bit_count() >= self._size:
                break
            bit = 1 << item
            caller = caller._replace(unclaimed=caller.unclaimed & ~bit)
            if self._is_read_again(world, caller, item):
                world = self._accepted(world, row, bit)
                caller = caller._replace(got=caller.got | bit)
                continue
            claim = claims[item]
            state = self._state(world, claim) if claim else ENDED
            held = claim and state == RUNNING
            if held and not caller.refreshes and "claims not looked at" not in self._flaws:
                caller = self._leave_to(caller, taken, item, claim)
                continue
            won |= bit
            if not (held and caller.refreshes and "force leaves the claim" in self._flaws):
                claims[item] = Claim(row, caller.token, caller.serial, state == ABANDONED, world.epoch)
        world = self._forced(world, row, won) if caller.refreshes else world
        caller = caller._replace(mine=caller.mine | won, voided=caller.voided & ~won, taken=tuple(taken))
        return self._committed(world._replace(claims=tuple(claims)), row, caller)

    def _is_read_again(self, world: World, caller: Caller, item: int) -> bool:
        if "newer_than not looked at" in self._flaws:
            return world.entries[item] >= 0
        return self._counts(world, caller, item) and "no re-read" not in self._flaws

    @stands_for("stores.lmdb.claims:Claims._win_one")
    def _forced(self, world: World, row: int, won: int) -> World:
        """Claims are taken from living owners; the old entries are served on."""
        if "refresh removes first" in self._flaws:
            world = world._replace(entries=tuple(-1 if won >> i & 1 else e for i, e in enumerate(world.entries)))
        return self._void(world, won, but=row)

    def _void(self, world: World, mask: int, *, but: int = -1) -> World:
        callers = tuple(
            one._replace(voided=one.voided | one.mine & mask) if one.mine & mask and other != but else one
            for other, one in enumerate(world.callers)
        )
        return world._replace(callers=callers)

    @stands_for("_engine:Run._leave_to")
    def _leave_to(self, caller: Caller, taken: list[tuple[int, ...]], item: int, claim: Claim) -> Caller:
        if caller.strikes[item] < MOST_STRIKES or "endless patience" in self._flaws:
            taken[item] = claim[:3]
            return caller
        return caller._replace(alone=caller.alone | 1 << item)

    @stands_for("_engine:Run._compute_part", "_engine:Run._store", "_engine:Run.end")
    def _compute(self, world: World, row: int, has_turn: bool) -> Iterator[tuple[str, World]]:
        """The function ends, in one of the ways that the model allows; then its results are stored, or all is over."""
        caller = world.callers[row]
        if "raise" in self._failing:
            yield f"{row}'s function raises", self._ended(world, row, caller, ENDED)
        if "interrupt" in self._failing:
            yield f"{row}'s function is interrupted", self._ended(world, row, caller, ABANDONED)
        room = self._items if self._size is None else max(0, self._size - caller.mine.bit_count())
        extra = sum(1 << item for item in self._members[caller.alone][:room])
        done = caller._replace(got=caller.got | caller.mine | extra, alone=caller.alone & ~extra, storing=True)
        heirs = sum(1 << item for item in self._members[extra] if caller.heir_of[item])
        done = done._replace(under=heirs)
        if not caller.mine and not heirs and not caller.unclaimed:
            yield f"{row} computes alone", self._go_on(world, row, done._replace(storing=False))
        elif has_turn:
            yield from self._put(world, row, done, keep=True)
            if "refuse" in self._failing:
                yield from self._put(world, row, done, keep=False)

    @stands_for(
        "stores.lmdb.store:LmdbStore.put", "stores.lmdb.putting:Putting.store", "stores.lmdb.store:LmdbStore._put"
    )
    def _put(self, world: World, row: int, caller: Caller, *, keep: bool) -> Iterator[tuple[str, World]]:
        """Store under its own claims, which end, and claim the next part in the same transaction."""
        label = f"{row} computes and stores" if keep else f"{row} computes what cannot be stored"
        results = caller.mine | caller.under
        for part in combinations(self._members[results], min(self._most or self._items, results.bit_count())):
            stored = sum(1 << item for item in part) if keep else results
            left = caller._replace(
                mine=caller.mine & ~stored, under=caller.under & ~stored, voided=caller.voided & ~stored
            )
            if caller.refreshes and not keep:
                left = left._replace(outdates=stored)
            following = left._replace(storing=bool(left.mine | left.under))
            for swept in self._swept(world):
                taken = self._take_claims(swept, row, caller, stored, keep=keep)
                if following.storing or not following.unclaimed or caller.refreshes:
                    yield label, self._committed(taken, row, following)
                else:
                    yield from self._win(taken, row, following, label)

    @stands_for("stores.lmdb.putting:take_claims", "stores.lmdb.putting:take_claim", "stores.lmdb.claims:Right.covers")
    def _take_claims(self, world: World, row: int, caller: Caller, part: int, *, keep: bool) -> World:
        claims, entries = list(world.claims), list(world.entries)
        for item in self._members[part]:
            claim, bit = claims[item], 1 << item
            own = claim[:3] == (row, caller.token, caller.serial)
            inherits = bool(claim) and claim[:3] == caller.heir_of[item] and claim.epoch == world.epoch
            inherits |= "an heir needs no claim" in self._flaws and bool(caller.heir_of[item])
            held = inherits or (bool(claim) and own and claim.epoch == world.epoch)
            if inherits and keep and "an heir leaves the claim" not in self._flaws:
                claims[item] = ()
                world = self._void(world, bit, but=row)
            if (own and (keep or "drop nothing" not in self._flaws)) or "release by key" in self._flaws:
                claims[item] = ()
            if keep and (held or "store without a claim" in self._flaws):
                entries[item] = caller.since[item]
                world = world._replace(too_old=world.too_old & ~bit, kept=world.kept | bit)
                if caller.voided & bit and not inherits:
                    world = world._replace(wrong=f"a stale result of item {item} is stored: its claim was voided")
        return world._replace(claims=tuple(claims), entries=tuple(entries))

    def _committed(self, world: World, row: int, caller: Caller) -> World:
        return self._with(world, row, caller._replace(at=At.TELL))

    @stands_for("stores.lmdb.slots:Slots.committed")
    def _tell(self, world: World, row: int) -> World:
        world = self._told(world)
        caller = world.callers[row]
        if caller.storing:
            return self._with(world, row, caller._replace(at=At.COMPUTE))
        if caller.outdates:
            return self._with(world, row, caller._replace(at=At.OUTDATE))
        return self._go_on(world, row, caller)

    @stands_for("_engine:Run._outdate", "stores.lmdb.store:LmdbStore.delete")
    def _outdate(self, world: World, row: int) -> World:
        """In a transaction of its own: who has claimed since, or stored, has to do without too."""
        gone = world.callers[row].outdates
        world = self._void(self._without_entries(world, gone), gone, but=row)
        claims = tuple(() if gone >> item & 1 else claim for item, claim in enumerate(world.claims))
        return self._committed(world._replace(claims=claims), row, world.callers[row]._replace(outdates=0))

    def _without_entries(self, world: World, mask: int) -> World:
        entries = tuple(-1 if mask >> item & 1 else entry for item, entry in enumerate(world.entries))
        return world._replace(entries=entries, too_old=world.too_old & ~mask, kept=world.kept & ~mask)

    def _told(self, world: World) -> World:
        if "commits not told" in self._flaws:
            return world
        callers = tuple(one._replace(fresh=False) if one.fresh else one for one in world.callers)
        return world._replace(callers=callers)

    # ---- waiting ----

    @stands_for("_engine:Run._watch", "_engine:Run._judge", "stores.lmdb.store:LmdbStore.owners")
    def _look(self, world: World, row: int) -> World:
        """Look at the owners of what is taken; an answer that still stands is not looked at again."""
        caller = world.callers[row]
        if caller.fresh and self._all_run(world, caller):
            return self._lose_patience(world, row, caller) or world
        taken, over = list(caller.taken), 0
        strikes, waits = list(caller.strikes), list(caller.waits)
        caller = caller._replace(fresh=True)
        for item in range(self._items):
            owner, claim = caller.taken[item], world.claims[item]
            if not owner:
                continue
            state = self._state(world, claim) if claim else ENDED
            if state != RUNNING:
                taken[item] = ()
                strikes[item] += state == ENDED
                waits[item] += not self._died(world, owner)
                over |= 1 << item
            elif claim[:3] != owner:
                taken[item] = ()
                strikes[item] += not claim.took_over and "a new owner is no strike" not in self._flaws
                waits[item] += not self._died(world, owner)
                caller = self._leave_to(caller._replace(strikes=tuple(strikes)), taken, item, claim)
        strikes = [min(MOST_STRIKES, number) for number in strikes]
        caller = caller._replace(taken=tuple(taken), strikes=tuple(strikes), waits=tuple(waits), unclaimed=over)
        if over:
            return self._with(world, row, caller._replace(at=At.READ_AGAIN))
        impatient = self._lose_patience(world, row, caller)
        return impatient or (self._go_on if caller.alone else self._with)(world, row, caller)

    @stands_for("_engine:Run._lose_patience", "_engine:Run._patience_left")
    def _lose_patience(self, world: World, row: int, caller: Caller) -> World | None:
        """What it has waited for as long as it may it computes too; `None` where there is nothing such."""
        overdue = sum(1 << item for item in self._members[caller.overdue] if caller.taken[item])
        if not overdue:
            return None
        taken = tuple(() if overdue >> item & 1 else owner for item, owner in enumerate(caller.taken))
        if "the impatient wait on" in self._flaws:
            return self._go_on(world, row, caller._replace(taken=taken, unclaimed=overdue))
        heir_of = tuple(
            owner if overdue >> item & 1 else before
            for item, (owner, before) in enumerate(zip(caller.taken, caller.heir_of, strict=True))
        )
        patient = caller._replace(taken=taken, heir_of=heir_of, alone=caller.alone | overdue)
        return self._go_on(world, row, patient)

    @stands_for("stores.lmdb.store:LmdbStore._all_run")
    def _all_run(self, world: World, caller: Caller) -> bool:
        owners = (Claim(owner[0], owner[1], owner[2], False, world.epoch) for owner in caller.taken if owner)
        return "only commits wake" in self._flaws or all(self._state(world, owner) == RUNNING for owner in owners)

    def _died(self, world: World, owner: tuple[int, ...]) -> bool:
        now = world.callers[owner[0]]
        return now.token != owner[1] or now.at == At.DEAD or (now.serial == owner[2] and now.word == ABANDONED)

    @stands_for("_engine:Run._wait")
    def _read_again(self, world: World, row: int) -> World:
        caller = world.callers[row]
        there = self._there(world, caller) & caller.unclaimed
        world = self._accepted(world, row, there)
        waits = tuple(0 if there >> item & 1 else number for item, number in enumerate(caller.waits))
        return self._go_on(
            world, row, caller._replace(unclaimed=caller.unclaimed & ~there, got=caller.got | there, waits=waits)
        )

    # ---- faults ----

    def _crash(self, world: World, row: int) -> World:
        """Killed where it is: its word stays, its lock is gone, a transaction that it was in never was."""
        caller = world.callers[row]
        return self._with(world, row, self._gone(caller, At.DEAD))._replace(left=self._spent(world, CRASH))

    def _time_out(self, world: World, row: int, caller: Caller) -> Iterator[tuple[str, World]]:
        left = self._spent(world, TIMEOUT)
        waited_for = sum(1 << item for item, owner in enumerate(caller.taken) if owner) & ~caller.overdue
        for some in range(1, self._all + 1):
            if some & waited_for == some:
                overdue = caller._replace(overdue=caller.overdue | some)
                yield f"{FAULT}{row} has waited for {some:b}", self._with(world, row, overdue)._replace(left=left)

    @stands_for("stores.lmdb.workers:Workers._take_row", "stores.lmdb.workers:Workers._write_row")
    def _replace(self, world: World, row: int) -> World:
        newcomer = self._newcomer(world.callers[row].token + 1, 0, world.versions, self._all)
        return self._with(world, row, newcomer)._replace(left=self._spent(world, NEWCOMER))

    @stands_for("_calls:new_call", "stores.lmdb.workers:Workers.begin")
    def _call_again(self, world: World, row: int) -> World:
        caller = world.callers[row]
        following = self._newcomer(caller.token, caller.serial + 1, world.versions, self._all)
        return self._with(world, row, following)._replace(left=self._spent(world, AGAIN))

    @stands_for(
        "stores.lmdb.removing:delete",
        "stores.lmdb.removing:raise_epoch",
        "stores.lmdb.store:LmdbStore.clear",
        "_putting:PutRun.steps",
    )
    def _remove(self, world: World) -> Iterator[tuple[str, World]]:
        """An invalidation of one item, or a clear, by somebody else; or a new result of one item is put."""
        if world.left[INVALIDATION]:
            for item in range(self._items):
                voids = "invalidation leaves claims" not in self._flaws
                outdated = self._outdated(world, 1 << item, INVALIDATION, drop=voids)
                yield f"{FAULT}item {item} is invalidated", outdated
                yield f"{FAULT}item {item} is put", self._put_in(outdated, item)
        if world.left[CLEAR]:
            cleared = self._outdated(world, self._all, CLEAR, drop=False)
            epoch = world.epoch + ("epoch not raised" not in self._flaws)
            yield f"{FAULT}all is cleared", cleared._replace(epoch=epoch)

    def _put_in(self, world: World, item: int) -> World:
        entries = (*world.entries[:item], world.versions[item], *world.entries[item + 1 :])
        return world._replace(entries=entries, kept=world.kept | 1 << item)

    def _outdated(self, world: World, mask: int, kind: int, *, drop: bool) -> World:
        inside = [mask >> item & 1 for item in range(self._items)]
        world = self._void(self._without_entries(world, mask), mask)
        return world._replace(
            claims=tuple(() if drop and hit else claim for hit, claim in zip(inside, world.claims, strict=True)),
            versions=tuple(version + hit for hit, version in zip(inside, world.versions, strict=True)),
            left=self._spent(world, kind),
            telling=True,
        )

    def _spent(self, world: World, kind: int) -> tuple[int, ...]:
        return (*world.left[:kind], world.left[kind] - 1, *world.left[kind + 1 :])

    def _with(self, world: World, row: int, caller: Caller) -> World:
        return world._replace(callers=(*world.callers[:row], caller, *world.callers[row + 1 :]))
