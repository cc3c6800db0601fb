"""The table of slots: ticks, generations, growth."""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batche._boot import boot_ns
from batche.stores.lmdb import reading, records, slots, words
from batche.stores.lmdb.slots import CHUNK, FREE, GENERATION, Slots
from tests.stores._driving import server


def make_slots(directory: Path) -> Slots:
    return Slots(directory)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    slots.new_table(tmp_path)
    return tmp_path


def tick(table: Slots) -> int:
    return table.tick()


def test_ticks_grow_from_one_process_to_the_other(directory: Path) -> None:
    table = Slots(directory)
    table.set_clock(1)
    with server(make_slots, directory) as other:
        ticks = [ask(table) if even else other.do(tick) for even in (True, False) * 200 for ask in (tick,)]
    assert ticks == sorted(set(ticks))


def test_after_a_boot_ticks_go_on_from_the_wall_clock(directory: Path) -> None:
    table = Slots(directory)
    before = time.time_ns()
    table.set_clock(1)
    assert before <= table.tick() <= time.time_ns() + 1_000_000


def test_after_a_boot_with_a_wall_clock_that_went_back_ticks_go_on_from_the_last(directory: Path) -> None:
    table = Slots(directory)
    table.set_clock(1)
    late = time.time_ns() + 10**15
    table.fill([table.first], late, 1, 1)
    table.set_clock(2)
    assert table.tick() > late
    settled = table.tick() - boot_ns()
    table.set_clock(2)
    assert abs(table.tick() - boot_ns() - settled) < 1_000_000_000


def test_free_slots_do_not_count_as_the_last_use(directory: Path) -> None:
    table = Slots(directory)
    table.fill([table.first], 5, 1, 1)
    table.free(table.first)
    table.set_clock(2)
    assert table.tick() < FREE


def test_removing_changes_the_generation(directory: Path) -> None:
    table = Slots(directory)
    table.fill([table.first], 5, 7, 1)
    table.outdate([table.first])
    assert table.words[table.first + GENERATION] not in (0, 7)


def test_slots_follow_one_another_through_all_chunks(directory: Path) -> None:
    table = Slots(directory)
    whole, end = table.following(table.first, 3 * CHUNK + 5)
    first, middle = table.following(table.first, CHUNK - 1)
    second, later = table.following(middle, 2 * CHUNK + 6)
    assert (first + second, later) == (whole, end)
    assert len(set(whole)) == len(whole)
    table.ensure(whole[-1])
    table.ensure(whole[-1])
    inside = {slot for chunk, _, _ in table.chunks() for slot in chunk}
    assert set(whole[: 2 * CHUNK]) <= inside


def grow(table: Slots) -> None:
    table.ensure(len(table.words))


def test_what_another_process_added_is_mapped_on_demand(directory: Path) -> None:
    table = Slots(directory)
    before = len(table.words)
    with server(make_slots, directory) as other:
        other.do(grow)
        table.words[before - 1] = 5
        assert len(table.refresh()) == 2 * before - slots.HEADER_WORDS
        assert table.words[before - 1] == 5


def test_a_map_that_another_thread_has_overtaken_does_not_replace_the_larger_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = words.Words(directory / "slots")
    size = len(table)
    really_map = mmap.mmap

    def overtaken(*arguments: Any, **options: Any) -> mmap.mmap:
        mapped = really_map(*arguments, **options)
        monkeypatch.undo()
        table.grow(len(table) + 512)
        return mapped

    monkeypatch.setattr(mmap, "mmap", overtaken)
    table._map()
    assert len(table) == size + 512


def test_every_commit_changes_the_number_of_commits(directory: Path) -> None:
    one, other = Slots(directory), Slots(directory)
    before = one.commits
    other.committed()
    assert one.commits != before


def test_what_ended_is_to_be_swept_until_it_was(directory: Path) -> None:
    table = Slots(directory)
    assert table.to_sweep() is None
    table.ended(5)
    ended = table.to_sweep()
    assert ended == 5
    table.ended(6)
    table.swept(ended)
    assert table.to_sweep() == 6
    table.swept(6)
    assert table.to_sweep() is None


def test_a_sample_is_spread_over_the_table(directory: Path) -> None:
    table = Slots(directory)
    table.ensure(len(table.words))
    inside = [slot for chunk, _, _ in table.chunks() for slot in chunk]
    assert table.sample(len(inside)) == inside
    assert table.sample(2) == [inside[0], inside[len(inside) // 2]]


class PassedOn:
    """The words of a slot that is free when a reader first looks, and another entry's from then on."""

    def __init__(self, tick: int) -> None:
        self.stored = [FREE]
        self._tick = tick

    def __len__(self) -> int:
        return 1

    def __getitem__(self, slot: int) -> int:
        found, self.stored[slot] = self.stored[slot], self._tick
        return found

    def __setitem__(self, slot: int, tick: int) -> None:
        self.stored[slot] = tick


def test_a_reader_of_an_entry_that_is_gone_does_not_free_the_slot_under_the_next_one() -> None:
    passed = PassedOn(tick=70)
    [raw] = records.pack_records([0], 1, 1, 0, [b"value"])
    table = SimpleNamespace(table=SimpleNamespace(view=passed))
    assert reading.unpack([raw], 0, table, 50) != [None]  # type: ignore[arg-type]  # the only part of it that is used
    assert passed.stored == [70]
