"""A shard's samples in micro-batches: the same for whoever computes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Cuts shards into neighbouring parts of one size; only the last of a shard may be smaller.

    A shard of a batch that is not full has fewer parts, of the same size.
    """

    size: int

    @classmethod
    def of(cls, accumulation: int, shard_capacity: int) -> MicroBatches:
        """So many parts in a full shard; one fewer or more where its samples are no multiple of them."""
        return cls(-(-shard_capacity // accumulation))

    def split(self, ids: np.ndarray) -> list[np.ndarray]:
        """A shard's rows, part by part; views."""
        return [ids[start : start + self.size] for start in range(0, len(ids), self.size)]

    def sizes(self, shard_sizes: Iterable[int]) -> tuple[int, ...]:
        """Every size that a part of shards of these sizes ever has, ascending."""
        rest = {samples % self.size for samples in shard_sizes} - {0}
        full = {self.size for samples in shard_sizes if samples >= self.size}
        return tuple(sorted(rest | full))
