"""The whole store: limits by bytes, several functions in one, and books that balance."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batche._types import MINE, Owner
from batche.stores.lmdb import LmdbStore, growth, records, removing
from batche.stores.lmdb.following import MOST_BYTES
from batche.stores.lmdb.reading import PIECE
from batche.stores.lmdb.upkeep import Limits
from tests.stores._driving import (
    NAMESPACE,
    OTHER,
    claim,
    claims_of,
    contents,
    key,
    keys,
    new_call,
    new_place,
    random_steps,
    recount,
    server,
    take_step,
    use,
    value,
    wait_until,
)

KIB = 1 << 10
MIB = 1 << 20


def make_store(path: Path) -> LmdbStore:
    return LmdbStore(path)


# ---- limits by bytes ----


@pytest.mark.parametrize("size", [8, 900, 2500, 10_000])
def test_bytes_never_pass_their_limit_and_the_least_recent_goes(tmp_path: Path, size: int) -> None:
    most = 10 * records.size_of(size)
    store = LmdbStore(tmp_path / "s", max_bytes=most)
    for number in range(30):
        use(store, [number], size=size)
        assert store.stats(NAMESPACE).bytes <= most
        assert contents(store, range(30)) == set(range(max(0, number - 9), number + 1))
        store.read([key(max(0, number - 9))], use=False)
    store.read([key(20)])
    use(store, [100], size=size)
    assert contents(store, range(101)) == {20, *range(22, 30), 100}
    recount(store)


def test_a_large_entry_evicts_several_small_ones_and_never_itself(tmp_path: Path) -> None:
    small, large = records.size_of(8), records.size_of(3000)
    store = LmdbStore(tmp_path / "s", max_bytes=large + 2 * small)
    use(store, range(20))
    use(store, [100], size=3000)
    assert contents(store, range(101)) == {18, 19, 100}
    assert store.stats(NAMESPACE).bytes == large + 2 * small
    recount(store)


def test_a_value_over_the_limit_is_told_and_not_stored(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", max_bytes=20 * KIB)
    use(store, range(5))
    call = new_call()
    claim(store, call, [10, 11, 12])
    stored = store.put(call, [(key(10), value(10)), (key(11), bytes(30 * KIB)), (key(12), value(12))])
    assert (set(stored.kept), set(stored.too_large)) == ({key(10), key(12)}, {key(11)})
    assert contents(store, range(20)) == {0, 1, 2, 3, 4, 10, 12}
    assert store.owners([key(11)]) == [None]
    store.release(call)
    recount(store)


def test_an_entry_as_large_as_the_store_is_kept_alone(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", max_bytes=records.size_of(20 * KIB))
    use(store, range(5))
    use(store, [9], size=20 * KIB)
    assert contents(store, range(10)) == {9}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("smallest", "largest", "most"),
    [(8, 9, 2 * MIB), (100, 101, 4 * MIB), (1000, 3000, 8 * MIB), (1300, 1500, 8 * MIB), (10_000, 10_001, 8 * MIB)],
)
@pytest.mark.parametrize("batch", [100, 1000])
def test_the_file_stays_within_its_bound_in_a_long_evicting_run(
    tmp_path: Path, smallest: int, largest: int, most: int, batch: int
) -> None:
    store, random = LmdbStore(tmp_path / "s", max_bytes=most), Random(1)
    written = 0
    while written < 4 * most:
        call = new_call()
        wanted = [key(random.getrandbits(120)) for _ in range(batch)]
        assert store.claim(call, wanted) == [MINE] * batch
        entries = [(name, bytes(random.randrange(smallest, largest))) for name in wanted]
        store.put(call, entries)
        store.release(call)
        written += sum(records.size_of(len(result)) for _, result in entries)
        assert store.stats(NAMESPACE).bytes <= most
    assert (store._opened.path / "data.mdb").stat().st_size <= 2.1 * most


def test_a_file_may_be_as_large_as_the_limits_of_all_that_is_in_it_allow(tmp_path: Path) -> None:
    store = LmdbStore.of_function(new_place(tmp_path), "e", Limits(max_bytes=MIB))
    for namespace in (NAMESPACE, OTHER, NAMESPACE[::-1]):
        use(store, [1], namespace=namespace)
    of_one, of_all = growth.most_bytes(MIB), growth.most_bytes(3 * MIB)
    need = of_one // 4096
    assert store._opened.lmdb.in_turn(lambda: store._upkeep._growth.pages_for(need, MIB)) is None
    pages = store._opened.lmdb.in_turn(lambda: store._upkeep._growth.pages_for(of_all // 4096, MIB))
    assert pages is not None
    assert need < pages < of_all // 4096


def test_the_default_limit_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [0])
    upkeep = store._upkeep
    limit = records.size_of(8) * 10

    def lower(writing: object) -> None:
        writing.limits = writing.limits._replace(max_bytes=limit)  # type: ignore[attr-defined]  # of `Writing`

    upkeep.commit(NAMESPACE, lower)
    with caplog.at_level("WARNING", logger="batche"):
        for number in range(30):
            use(store, [number])
    (record,) = caplog.records
    assert "max_bytes=" in record.getMessage()
    assert str(limit) in record.getMessage()
    assert len(contents(store, range(30))) == 10


# ---- several functions in one store ----


def test_the_limit_of_a_shared_store_is_that_of_all_its_functions(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=5)
    use(store, [1, 2, 3])
    use(store, [1, 2, 3], namespace=OTHER)
    store.read([key(2)])
    use(store, [4], namespace=OTHER)
    assert contents(store, range(5)) == {2}
    assert contents(store, range(5), OTHER) == {1, 2, 3, 4}
    one, other = store.stats(NAMESPACE), store.stats(OTHER)
    assert (one.currsize, one.maxsize, one.evictions, one.bytes) == (5, 5, 2, 5 * records.size_of(8))
    assert one[2:4] == other[2:4]
    assert (one.evictions, one.bytes) == (other.evictions, other.bytes)
    assert (one.misses, other.misses) == (3, 4)
    recount(store)


def test_clearing_one_function_of_a_shared_store_leaves_the_other(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=5)
    use(store, [1, 2, 3])
    use(store, [1, 2, 3], namespace=OTHER)
    assert store.clear(NAMESPACE) == 2
    assert contents(store, range(5)) == set()
    assert contents(store, range(5), OTHER) == {1, 2, 3}
    one, other = store.stats(NAMESPACE), store.stats(OTHER)
    assert (one.misses, other.misses) == (0, 3)
    assert (one.currsize, one.evictions) == (3, 1)
    recount(store)


def test_an_epoch_is_looked_up_again_once_somebody_has_raised_it(tmp_path: Path) -> None:
    """Half of a clear: the epoch is raised, and the entries are still there."""
    store = LmdbStore(tmp_path / "s")
    use(store, [1, 2])
    assert contents(store, [1, 2]) == {1, 2}
    store._upkeep.commit(NAMESPACE, partial(removing.raise_epoch, store._opened, NAMESPACE))
    assert contents(store, [1, 2]) == set()


def test_an_epoch_is_looked_up_again_for_another_namespace_and_once_files_are_opened_again(tmp_path: Path) -> None:
    store, other = LmdbStore(tmp_path / "s"), b"another!"
    use(store, [1])
    use(store, [1], namespace=other)
    store._upkeep.commit(NAMESPACE, partial(removing.raise_epoch, store._opened, NAMESPACE))
    assert [contents(store, [1]), contents(store, [1], other), contents(store, [1])] == [set(), {1}, set()]
    store.close()
    store._opened.lmdb._open_again()
    assert store._opened.lmdb.epoch_read.transaction == -1


def test_a_clear_in_pieces_leaves_nothing_and_frees_all(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, range(3000))
    use(store, range(10), namespace=OTHER)
    assert store.clear(NAMESPACE) == 3000
    assert recount(store) == {bytes(8): 10}


# ---- voided claims ----


def test_what_was_claimed_before_a_clear_or_a_delete_is_not_stored(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    cleared, deleted = new_call(), new_call()
    claim(store, cleared, [1])
    store.clear(NAMESPACE)
    claim(store, deleted, [2, 3])
    store.delete([key(2)])
    assert store.put(cleared, [(key(1), value(1))]).kept == set()
    assert store.put(deleted, [(key(2), value(2)), (key(3), value(3))]).kept == {key(3)}
    assert contents(store, range(5)) == {3}
    recount(store)


def test_a_late_owner_neither_stores_nor_ends_its_successors_claim(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    late, successor = new_call(), new_call()
    claim(store, late, [1])
    handle = late.handle
    store._opened.workers.end(handle, abandoned=True)
    assert claim(store, successor, [1]) == [1]
    assert store.put(late, [(key(1), value(1))]).kept == set()
    store.put(late, [], drop=[key(1)])
    (owner,) = store.owners([key(1)])
    assert isinstance(owner, Owner)
    assert (owner.call, owner.alive, owner.took_over) == (successor.id, True, True)
    store.put(successor, [(key(1), value(2))])
    assert [entry[0] for entry in store.read([key(1)]) if entry] == [value(2)]
    assert store.stats(NAMESPACE).takeovers == 1


def test_claims_that_a_call_left_are_swept_by_later_writers(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    call = new_call()
    assert len(claim(store, call, range(3000))) == 3000
    assert len(claims_of(store)) == 3000
    store.release(call)
    for number in range(4):
        use(store, [10_000 + number])
    assert claims_of(store) == []


def test_the_claims_of_a_killed_process_are_swept_and_taken_over(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [0])
    with server(make_store, tmp_path / "s") as other:
        other.do(claim_there, list(range(1, 11)))
        assert claim(store, new_call(), [1]) == []
        other.kill()
        (owner,) = store.owners([key(1)])
        assert owner is not None
        assert not owner.alive
        assert use(store, [1]) == [1]
        store._upkeep.commit(NAMESPACE, lambda _: None, dead=store._upkeep._find_dead())
        numbers = itertools.count(100)
        wait_until(lambda: use(store, [next(numbers)]) and not claims_of(store), "the sweep of what the dead left")
    assert store.stats(NAMESPACE).takeovers == 1


def write(store: LmdbStore) -> bool:
    """Be a writer, without a claim that could end."""
    return store.delete([key(999)]) == 0


def mourn(store: LmdbStore) -> None:
    """Be the writer that finds out who died, and no writer after that."""
    wait_until(lambda: write(store) and store._opened.slots.mourning, "the sweep that mourns")


def test_the_claims_of_the_dead_are_swept_by_whoever_writes_after_they_were_mourned(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with server(make_store, tmp_path / "s") as owner, server(make_store, tmp_path / "s") as mourner:
        owner.do(claim, new_call(), [1, 2, 3])
        owner.kill()
        mourner.do(mourn)
        assert len(claims_of(store)) == 3
        wait_until(lambda: write(store) and not claims_of(store), "the sweep of what was mourned", seconds=10)
        assert store._opened.slots.to_sweep() is None


def claim_there(store: LmdbStore, numbers: Sequence[int]) -> None:
    call = new_call()
    assert claim(store, call, numbers) == numbers


# ---- books ----


@pytest.mark.parametrize("seed", [1, 2])
def test_no_slot_is_leaked_or_shared_after_many_random_steps(tmp_path: Path, seed: int) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=60)
    for number, (kind, batch) in enumerate(random_steps(Random(seed), 60, 5000)):
        take_step(store, kind, batch)
        if number % 500 == 0:
            recount(store)
    assert set(recount(store)) <= {bytes(8)}


def test_freed_slots_are_used_before_new_ones(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, range(1000))
    table = len(store._opened.slots.words)
    for round_ in range(5):
        store.delete(keys(range(1000 * round_, 1000 * round_ + 1000)))
        use(store, range(1000 * round_ + 1000, 1000 * round_ + 2000))
    assert len(store._opened.slots.words) == table
    recount(store)


def test_a_reader_that_meets_a_slot_beyond_its_mapping_maps_again(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [0])
    with server(make_store, tmp_path / "s") as reader:
        assert reader.do(contents, [0]) == {0}
        mapped = reader.do(words_mapped)
        use(store, range(1, 5000))
        assert reader.do(words_mapped) == mapped
        assert reader.do(use, [4999]) == []
        assert reader.do(words_mapped) > mapped
        lowered = LmdbStore(tmp_path / "s", maxsize=2)
        use(lowered, [9999])
        assert contents(store, range(10_000)) == {4999, 9999}


def words_mapped(store: LmdbStore) -> int:
    return len(store._opened.slots.words)


def test_a_damaged_entry_is_no_hit_and_is_stored_anew(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    use(store, [1, 2])
    name = records.ENTRY + key(1)

    def damage(transaction: object) -> None:
        raw = bytearray(transaction.get(name))  # type: ignore[attr-defined]  # of LMDB, which has no types
        raw[-1] ^= 1
        transaction.put(name, bytes(raw))  # type: ignore[attr-defined]  # the same

    store._opened.lmdb.write(damage, after=lambda _: None)
    assert use(store, [1, 2]) == [1]
    assert use(store, [1, 2]) == []
    assert store.stats(NAMESPACE).currsize == 2


def test_a_store_pickles_as_its_configuration(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", maxsize=5)
    use(store, [1])
    copy = pickle.loads(pickle.dumps(store))
    assert copy._opened is store._opened
    assert contents(copy, [1]) == {1}
    assert os.fspath(tmp_path) in repr(copy)


# ---- what one transaction may do ----


class Metered:
    """A transaction that keeps how many bytes were read under each key."""

    def __init__(self, transaction: Any) -> None:
        self.transaction = transaction
        self.read: dict[bytes, int] = {}

    def get(self, name: bytes) -> bytes | None:
        raw: bytes | None = self.transaction.get(name)
        self.read[name] = len(raw or b"")
        return raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transaction, name)


def most_read_at_once(store: LmdbStore, action: Callable[[], object]) -> int:
    """The most bytes that one write transaction of ``action`` reads."""
    lmdb, reads = store._opened.lmdb, [0]
    write = lmdb.write

    def metered(body: Callable[[Any], Any], **options: Any) -> Any:
        def read_and_noted(transaction: Any) -> Any:
            meter = Metered(transaction)
            result = body(meter)
            reads.append(sum(meter.read.values()))
            return result

        return write(read_and_noted, **options)

    lmdb.write = metered  # type: ignore[method-assign]  # looks at each transaction
    try:
        action()
    finally:
        del lmdb.write  # the class's own again
    return max(reads)


def test_a_claim_of_what_has_been_stored_meanwhile_reads_a_piece_at_a_time(tmp_path: Path) -> None:
    numbers, size = range(300), 100 * KIB
    use(store := LmdbStore(tmp_path / "s"), numbers, size=size)
    late, call, won = LmdbStore(tmp_path / "s"), new_call(), list[int]()
    most = most_read_at_once(late, lambda: won.extend(claim(late, call, numbers)))
    late.release(call)
    assert won == []
    assert size < most <= MOST_BYTES + PIECE * (size + KIB)
    assert contents(store, numbers) == set(numbers)


def test_a_clear_reads_a_piece_at_a_time(tmp_path: Path) -> None:
    numbers, size = range(300), 100 * KIB
    use(store := LmdbStore(tmp_path / "s"), numbers, size=size)
    assert size < most_read_at_once(store, lambda: store.clear(NAMESPACE)) <= MOST_BYTES + 2 * size
    assert contents(store, numbers) == set()
    recount(store)


# ---- opened again ----


def test_a_namespace_is_forgotten_though_its_environment_was_closed_in_between(tmp_path: Path) -> None:
    """Its lane is this process's still, and no other process counts."""
    place = new_place(tmp_path)
    kept = LmdbStore.of_function(place, "other", Limits())  # so that this process stays a worker of the place
    use(kept, [1], namespace=OTHER)
    use(LmdbStore.of_function(place, "private", Limits()), range(3))
    gc.collect()
    again = LmdbStore.of_function(place, "private", Limits())
    assert again.forget(NAMESPACE)
    assert [lane for lane in again._opened.lanes.all() if lane.namespace == NAMESPACE] == []
    assert contents(again, range(3)) == set()


def private(place: Path) -> LmdbStore:
    return LmdbStore.of_function(place, "private", Limits(maxsize=3))


def test_a_process_that_joins_while_another_forgets_the_namespace_keeps_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place(tmp_path)
    store = private(place)
    use(store, [1])
    clear = store._clear

    def clear_and_let_join(namespace: bytes) -> int:
        removed = clear(namespace)
        child.do(use, [5])
        return removed

    monkeypatch.setattr(store, "_clear", clear_and_let_join)
    with server(private, place) as child:
        assert not store.forget(NAMESPACE)
        monkeypatch.undo()
        child.do(use, [6, 7, 8, 9])
        assert child.do(contents, range(10)) == {7, 8, 9}
        child.kill()
        wait_until(lambda: store.forget(NAMESPACE), "it is forgotten once the child is gone")
    assert recount(store) == {}
