"""A shard's micro-batches are all of it, in order, in sizes that are known beforehand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.data.micro_batches import MicroBatches


@given(st.integers(1, 60), st.data())
def test_parts_are_the_whole_shard_in_known_sizes(capacity: int, data: st.DataObject) -> None:
    accumulation, samples = (data.draw(st.integers(1, capacity)) for _ in range(2))
    cut = MicroBatches.of(accumulation, capacity)
    parts = cut.split(np.arange(samples))
    assert np.concatenate(parts).tolist() == list(range(samples))
    assert {len(part) for part in parts} <= set(cut.sizes([capacity, samples]))
    assert len(cut.split(np.arange(capacity))) <= accumulation
    assert len(cut.sizes([capacity, samples])) <= 3


def test_one_part_is_the_shard() -> None:
    assert MicroBatches.of(1, 32).sizes([8, 32]) == (8, 32)
