"""The store inside one process: exact LRU, claims, counts, and what a fork's copy of it is."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import OrderedDict
from multiprocessing.connection import Connection

import cachetools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batche import _calls
from batche._types import MINE, Call, Owner
from batche.stores.base import Store
from batche.stores.mapping import MappingStore

SPACE, OTHER = b"function", b"another_"


def key(name: str, namespace: bytes = SPACE) -> bytes:
    return namespace + name.encode().ljust(20, b".")


def call(namespace: bytes = SPACE) -> Call:
    return _calls.new_call(namespace)


def store_all(store: MappingStore, entries: dict[bytes, object]) -> None:
    owner = call(next(iter(entries))[:8])
    store.claim(owner, list(entries))
    store.put(owner, list(entries.items()))
    store.release(owner)


def values(store: MappingStore, keys: list[bytes], *, use: bool = False) -> list[object]:
    return [entry and entry[0] for entry in store.read(keys, use=use)]


def test_it_is_a_store_of_objects() -> None:
    store = MappingStore()
    assert isinstance(store, Store)
    assert store.encoded is False


@pytest.mark.parametrize("maxsize", [-1, -100])
def test_a_negative_limit_is_refused(maxsize: int) -> None:
    with pytest.raises(ValueError, match="maxsize must be 0 or more"):
        MappingStore(maxsize=maxsize)


def test_a_limit_beside_a_mapping_is_refused() -> None:
    with pytest.raises(ValueError, match="a mapping has its own limit"):
        MappingStore({}, maxsize=5)


def test_closing_leaves_a_users_mapping_as_it_is() -> None:
    held: dict[str, object] = {}
    store = MappingStore(held)
    store_all(store, {key("a"): 1})
    store.close()
    assert list(held.values()) == [1]


def test_what_a_mapping_has_from_before_is_there_and_as_old_as_can_be() -> None:
    held: dict[str, object] = {}
    store_all(MappingStore(held), {key("a"): 1})
    store, asking = MappingStore(held), call()
    assert values(store, [key("a")]) == [1]
    asking.newer_than = 1
    assert list(store.claim(asking, [key("a")])) == [MINE]


def test_the_times_of_entries_that_a_mapping_dropped_are_forgotten() -> None:
    held = cachetools.LRUCache[str, object](10)
    store = MappingStore(held)
    for number in range(5000):
        store_all(store, {key(str(number)): number})
    assert len(store._stored) < 2000
    assert key("4999") in store._stored


def test_a_mapping_that_drops_an_entry_between_two_looks_has_none() -> None:
    class Fickle(dict[str, object]):
        def __getitem__(self, name: str) -> object:
            raise KeyError(name)

    store = MappingStore(Fickle())
    store_all(store, {key("a"): 1})
    assert list(store.read([key("a")])) == [None]
    assert list(store.claim(call(), [key("a")])) == [MINE]


def test_an_entry_is_read_back_as_it_was_put() -> None:
    store, value = MappingStore(), object()
    store_all(store, {key("a"): value})
    assert values(store, [key("a"), key("b")]) == [value, None]


def test_claims_are_won_by_the_first_and_name_their_owner() -> None:
    store, first, second = MappingStore(), call(), call()
    assert list(store.claim(first, [key("a")])) == [MINE]
    (answer,) = store.claim(second, [key("a")])
    assert answer == Owner(first.id, os.getpid())


def test_a_claim_reads_again() -> None:
    store = MappingStore()
    store_all(store, {key("a"): 1})
    (answer,) = store.claim(call(), [key("a")])
    assert isinstance(answer, tuple)
    assert answer[0] == 1


def test_a_limit_counts_claims_won_and_passes_over_taken_keys() -> None:
    store, first, second = MappingStore(), call(), call()
    store.claim(first, [key("a"), key("c")])
    answers = store.claim(second, [key(name) for name in "abcde"], 2)
    assert [answer is MINE for answer in answers] == [False, True, False, True]


def test_a_put_stores_drops_and_claims_in_one_step() -> None:
    store, owner, other = MappingStore(), call(), call()
    store.claim(owner, [key("a"), key("b")])
    stored = store.put(owner, [(key("a"), 1)], [key("b")], [key("c"), key("d")], 1)
    assert (stored.kept, stored.claims) == (frozenset({key("a")}), [MINE])
    assert list(store.owners([key(name) for name in "abcd"])) == [None, None, Owner(owner.id, os.getpid()), None]
    assert list(store.claim(other, [key("b")])) == [MINE]


def test_a_result_is_stored_only_under_its_callers_own_claim() -> None:
    store, late, successor = MappingStore(), call(), call()
    store.claim(late, [key("a")])
    store.delete([key("a")])
    store.claim(successor, [key("a")])
    assert store.put(late, [(key("a"), "late")]).kept == frozenset()
    assert store.owners([key("a")])[0] == Owner(successor.id, os.getpid())
    assert store.put(successor, [(key("a"), "new")]).kept == {key("a")}
    assert values(store, [key("a")]) == ["new"]


def test_a_late_owner_drops_nobody_elses_claim() -> None:
    store, late, successor = MappingStore(), call(), call()
    store.claim(late, [key("a")])
    store.delete([key("a")])
    store.claim(successor, [key("a")])
    store.put(late, [], [key("a")])
    store.release(late)
    assert store.owners([key("a")])[0] == Owner(successor.id, os.getpid())


def test_release_ends_every_claim_even_if_the_call_does_not_know_that_it_won_them() -> None:
    # An interrupt may arrive after the store made a claim and before its caller learned of it.
    store, interrupted = MappingStore(), call()
    store.claim(interrupted, [key("a"), key("b")])
    assert not interrupted.holds
    store.release(interrupted)
    assert list(store.owners([key("a"), key("b")])) == [None, None]


def test_an_abandoned_claim_reads_as_a_dead_owners_and_its_takeover_is_counted_once() -> None:
    store, cancelled, heir = MappingStore(), call(), call()
    store.claim(cancelled, [key("a")])
    store.release(cancelled, abandoned=True)
    (owner,) = store.owners([key("a")])
    assert owner is not None
    assert not owner.alive
    assert list(store.claim(heir, [key("a")])) == [MINE]
    store.release(heir)
    assert list(store.owners([key("a")])) == [None]
    assert store.stats(SPACE).takeovers == 1


@pytest.mark.parametrize("how", ["delete", "clear"])
def test_what_is_removed_is_not_abandoned_any_more(how: str) -> None:
    store, cancelled = MappingStore(), call()
    store.claim(cancelled, [key("a")])
    store.release(cancelled, abandoned=True)
    store.delete([key("a")]) if how == "delete" else store.clear(SPACE)
    assert list(store.owners([key("a")])) == [None]


def test_delete_tells_how_many_entries_there_were_and_voids_claims() -> None:
    store, owner = MappingStore(), call()
    store_all(store, {key("a"): None, key("b"): 2})
    store.claim(owner, [key("c")])
    assert store.delete([key("a"), key("b"), key("c"), key("d")]) == 2
    assert list(store.owners([key("c")])) == [None]


def test_clear_touches_one_namespace_and_zeroes_its_counts() -> None:
    store = MappingStore()
    store_all(store, {key("a"): 1, key("b"): 2})
    store_all(store, {key("a", OTHER): 3})
    for namespace in (SPACE, OTHER):
        store.release(call(namespace), counts={"hits": 5})
    assert store.clear(SPACE) == 2
    assert values(store, [key("a"), key("b")]) == [None, None]
    assert values(store, [key("a", OTHER)]) == [3]
    assert (store.stats(SPACE).hits, store.stats(OTHER).hits) == (0, 5)


def test_clear_voids_claims_in_flight() -> None:
    store, owner = MappingStore(), call()
    store.claim(owner, [key("a")])
    store.clear(SPACE)
    assert store.put(owner, [(key("a"), 1)]).kept == frozenset()


def test_evictions_and_size_are_the_stores_and_the_other_counts_the_functions() -> None:
    store = MappingStore(maxsize=2)
    store_all(store, {key("a"): 1, key("b"): 2})
    store_all(store, {key("c", OTHER): 3})
    store.release(call(), counts={"misses": 2})
    for namespace, misses in ((SPACE, 2), (OTHER, 0)):
        info = store.stats(namespace)
        assert (info.misses, info.evictions, info.currsize, info.maxsize) == (misses, 1, 2, 2)


def test_counts_add_up() -> None:
    store = MappingStore()
    store.release(call(), counts={"hits": 1, "waits": 2})
    store.release(call(), counts={"hits": 3, "errors": 1, "rejected": 4})
    info = store.stats(SPACE)
    assert (info.hits, info.waits, info.errors, info.rejected) == (4, 2, 1, 4)


def test_a_store_of_no_size_keeps_nothing_and_lets_claims_go() -> None:
    store = MappingStore(maxsize=0)
    store_all(store, {key("a"): 1})
    assert values(store, [key("a")]) == [None]
    assert list(store.owners([key("a")])) == [None]


def test_looking_without_use_changes_no_recency() -> None:
    store = MappingStore(maxsize=2)
    store_all(store, {key("a"): 1})
    store_all(store, {key("b"): 2})
    store.read([key("a")], use=False)
    store_all(store, {key("c"): 3})
    assert values(store, [key(name) for name in "abc"]) == [None, 2, 3]


def test_closing_twice_drops_everything_once() -> None:
    store = MappingStore()
    store_all(store, {key("a"): 1})
    store.close()
    store.close()
    assert values(store, [key("a")]) == [None]
    assert "0 entries" in repr(store)


steps = st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)))


@given(st.integers(1, 5), steps)
def test_it_evicts_as_an_ordered_dict_would(maxsize: int, script: list[tuple[bool, list[str]]]) -> None:
    store, model = MappingStore(maxsize=maxsize), OrderedDict[str, int]()
    for moment, (writes, names) in enumerate(script):
        keys = [key(name) for name in names]
        if writes:
            store.delete(keys)
            store_all(store, dict.fromkeys(keys, moment))
        else:
            store.read(keys)
        for name in names:
            if writes or name in model:
                model[name] = moment if writes else model[name]
                model.move_to_end(name)
            while len(model) > maxsize:
                model.popitem(last=False)
        assert values(store, [key(name) for name in "abcdef"]) == [model.get(name) for name in "abcdef"]


def _look(store: MappingStore, answers: Connection) -> None:
    mine = call()
    answers.send((values(store, [key("kept")]), store.claim(mine, [key("taken")])[0] is MINE))


def _hold(store: MappingStore, held: threading.Event, leave: threading.Event) -> None:
    with store._guard.lock:
        held.set()
        leave.wait(30)


def test_a_forked_child_has_the_entries_and_none_of_its_parents_claims() -> None:
    store, owner = MappingStore(), call()
    store_all(store, {key("kept"): 1})
    store.claim(owner, [key("taken")])
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_look, args=(store, sender))
    held, leave = threading.Event(), threading.Event()
    holder = threading.Thread(target=_hold, args=(store, held, leave))
    holder.start()
    assert held.wait(30)
    child.start()  # another thread is inside of the store meanwhile
    leave.set()
    holder.join()
    answered = receiver.poll(30)
    if not answered:
        child.kill()
    child.join()
    assert answered
    assert receiver.recv() == ([1], True)
    assert list(store.owners([key("taken")])) == [Owner(owner.id, os.getpid())]
