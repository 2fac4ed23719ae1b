"""The shapes that shards come in, which a program is traced for."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from workers.data.batch import BatchMaker
from workers.data.micro_batches import MicroBatches
from workers.data.padding import Lengths
from workers.data.row_order import RowOrder
from workers.data.schedule import Schedule

AHEAD_STEPS = 32
"""Steps that are looked at for the lengths of their batches, where that takes no reading."""

MAX_AHEAD = 16
"""Shapes that are traced before a worker is ready, the most frequent ones; others are traced when they come."""


class ShardShape(NamedTuple):
    """The samples of a micro-batch, and what its ragged arrays are padded to."""

    samples: int
    lengths: Lengths


def first_shapes(
    schedule: Schedule, parts: MicroBatches, batches: BatchMaker, order: RowOrder
) -> tuple[ShardShape, ...]:
    """The shapes of a job's first steps, at most `MAX_AHEAD`, the most frequent last.

    Without ragged arrays: every shape that there is, the largest last.
    """
    if not batches.padding:
        return tuple(ShardShape(samples, ()) for samples in parts.sizes(schedule.shard_sizes()))
    ahead = AHEAD_STEPS if batches.knows_lengths else 1
    last = schedule.steps_per_epoch - 1
    found: Counter[ShardShape] = Counter()
    for step in {*range(min(schedule.total_steps, ahead)), *([last] if last < schedule.total_steps else [])}:
        lengths = batches.lengths(order.batch(step))
        sizes = {schedule.shard_samples(step, shard) for shard in range(schedule.shards)} - {0}
        found.update(ShardShape(samples, lengths) for samples in parts.sizes(sizes))
    by_frequency = sorted(found, key=lambda shape: (found[shape], shape))
    return tuple(by_frequency[-MAX_AHEAD:])
