"""Every epoch uses every row exactly once, whatever the sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.spec.job import TrainingSpec
from workers.data.row_order import RowOrder
from workers.data.schedule import Place, Schedule


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    shards = draw(st.integers(1, 9))
    length = {draw(st.sampled_from(["epochs", "steps"])): draw(st.integers(1, 7))}
    return Schedule(
        rows=draw(st.integers(1, 200)),
        shards=shards,
        global_batch=shards * draw(st.integers(1, 12)),
        seed=draw(st.integers(0, 2**31 - 1)),
        shuffle=draw(st.booleans()),
        **length,
    )


def epoch_ids(schedule: Schedule, epoch: int) -> np.ndarray:
    first = epoch * schedule.steps_per_epoch
    steps = range(first, first + schedule.steps_per_epoch)
    return np.concatenate([schedule.ids(step, shard) for step in steps for shard in range(schedule.shards)])


@given(schedule=schedules())
@settings(max_examples=100, deadline=None)
def test_an_epoch_uses_every_row_exactly_once(schedule: Schedule) -> None:
    for epoch in range(schedule.total_steps // schedule.steps_per_epoch):
        assert np.array_equal(np.sort(epoch_ids(schedule, epoch)), np.arange(schedule.rows))


@given(schedule=schedules())
@settings(max_examples=100, deadline=None)
def test_sizes_are_those_of_the_ids(schedule: Schedule) -> None:
    sizes = set()
    for step in range(schedule.total_steps):
        parts = [schedule.ids(step, shard) for shard in range(schedule.shards)]
        counts = [schedule.shard_samples(step, shard) for shard in range(schedule.shards)]
        assert counts == [len(part) for part in parts]
        assert sum(counts) == schedule.batch_samples(step) >= 1
        assert counts == sorted(counts, reverse=True)
        assert sum(0 < count < schedule.shard_capacity for count in counts) <= 1
        sizes.update(counts)
    assert schedule.shard_sizes() == tuple(sorted(sizes - {0}))


@given(schedule=schedules(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_places_are_where_the_row_is(schedule: Schedule, data: st.DataObject) -> None:
    sample = data.draw(st.integers(0, schedule.rows - 1))
    places = [
        Place(step, shard)
        for step in range(schedule.total_steps)
        for shard in range(schedule.shards)
        if sample in schedule.ids(step, shard)
    ]
    assert list(schedule.places_of(sample)) == places


def test_a_last_batch_fills_the_first_shards() -> None:
    schedule = Schedule(rows=22, global_batch=16, shards=4, seed=0, epochs=2)
    assert schedule.steps_per_epoch == 2
    assert schedule.total_steps == 4
    assert [schedule.shard_samples(1, shard) for shard in range(4)] == [4, 2, 0, 0]
    assert schedule.ids(3, 2).shape == (0,)
    assert schedule.shard_sizes() == (2, 4)
    assert [schedule.epoch_of(step) for step in range(4)] == [0, 0, 1, 1]
    assert [schedule.is_last_of_epoch(step) for step in range(4)] == [False, True, False, True]


def test_steps_that_end_before_the_last_batch_never_have_its_size() -> None:
    assert Schedule(rows=22, global_batch=16, shards=4, seed=0, steps=1).shard_sizes() == (4,)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        schedule = Schedule(rows=64, global_batch=16, shards=4, seed=seed, epochs=2)
        return [int(sample) for sample in epoch_ids(schedule, epoch)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_the_number_of_shards_does_not_change_a_batch() -> None:
    four = Schedule(rows=100, global_batch=16, shards=4, seed=3, epochs=1)
    two = Schedule(rows=100, global_batch=16, shards=2, seed=3, epochs=1)
    for step in range(four.total_steps):
        assert np.array_equal(
            np.concatenate([four.ids(step, shard) for shard in range(4)]),
            np.concatenate([two.ids(step, shard) for shard in range(2)]),
        )


def test_it_follows_the_specification() -> None:
    training = TrainingSpec(global_batch=32, steps=7, seed=5, shards=8)
    assert Schedule.of(training, 50) == Schedule(rows=50, global_batch=32, shards=8, seed=5, steps=7)


@pytest.mark.parametrize(
    "changes",
    [{"rows": 0}, {"shards": 0}, {"epochs": 0}, {"global_batch": 10}, {"steps": 3}, {"epochs": None}],
    ids=str,
)
def test_impossible_numbers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"least 1|multiple|exactly one"):
        Schedule(**({"rows": 10, "global_batch": 8, "shards": 4, "seed": 0, "epochs": 1} | changes))


def test_places_outside_the_job_are_refused() -> None:
    schedule = Schedule(rows=10, global_batch=4, shards=2, seed=0, epochs=1)
    for step, shard in [(-1, 0), (3, 0), (0, 2), (0, -1)]:
        with pytest.raises(IndexError):
            schedule.ids(step, shard)
    with pytest.raises(IndexError):
        schedule.place_of(10, 0)


def test_without_shuffle_the_rows_keep_their_order() -> None:
    schedule = Schedule(rows=10, global_batch=8, shards=2, seed=3, shuffle=False, epochs=2)
    assert epoch_ids(schedule, 0).tolist() == epoch_ids(schedule, 1).tolist() == list(range(10))
    assert not schedule.is_constant
    one = Schedule(rows=8, global_batch=8, shards=2, seed=3, shuffle=False, steps=5)
    assert one.is_constant and one.ids(0, 1).tolist() == one.ids(4, 1).tolist() == [4, 5, 6, 7]


@given(schedule=schedules(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_worked_out_ahead_are_those_of_the_schedule(schedule: Schedule, data: st.DataObject) -> None:
    order = RowOrder(schedule)
    places = st.tuples(st.integers(0, schedule.total_steps - 1), st.integers(0, schedule.shards - 1))
    for step, shard in data.draw(st.lists(places, max_size=12)):
        assert order.ids(step, shard).tolist() == schedule.ids(step, shard).tolist()
