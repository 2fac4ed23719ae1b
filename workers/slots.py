"""A worker's slots: where its contributions to one step lie."""

from __future__ import annotations

from workers.computer import Accumulator
from workers.exchange.segment import Segment
from workers.layout import Layout


class Slots:
    """One contribution for each order of a step, in a segment that the trainer has mapped as well.

    There are as many as the job has shards, of which most are seldom used. The memory of a slot is taken when it is
    first used, and of the first one at once.

    Raises:
        JobFailed: there is not enough memory (code `shared_memory_full`); from `__getitem__` too.
    """

    def __init__(self, segment: Segment, layout: Layout, count: int) -> None:
        self._segment = segment
        self._bytes = layout.total_bytes
        self._accumulators = [Accumulator(layout, segment.buffer, slot * self._bytes) for slot in range(count)]
        self._reserved: set[int] = set()
        self._reserve(0)

    def __getitem__(self, slot: int) -> Accumulator:
        if slot not in self._reserved:
            self._reserve(slot)
        return self._accumulators[slot]

    def _reserve(self, slot: int) -> None:
        self._segment.reserve(slot * self._bytes, self._bytes)
        self._reserved.add(slot)
