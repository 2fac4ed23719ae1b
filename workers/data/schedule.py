"""Which samples a shard of a step holds: arithmetic on the specification, not a log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from gradwire.spec.job import TrainingSpec
from workers.data.permutation import Permutation


class Span(NamedTuple):
    """Neighbouring positions of an epoch's order."""

    epoch: int
    first: int
    samples: int


class Place(NamedTuple):
    """Where a sample is used."""

    step: int
    shard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The batches of a job; a step's number is how many were committed before it, from 0.

    An epoch is a permutation of all rows by (seed, epoch), or without `shuffle` all rows in their order. It is cut into
    global batches, of which the last may be smaller. A batch is cut into `shards` contiguous parts of
    `global_batch / shards` samples; one that is not full fills the first of them, then one in part, and leaves the rest
    empty.

    Raises:
        ValueError: numbers below 1, a batch that is no multiple of shards, not exactly one of `epochs` and `steps`.
    """

    rows: int
    global_batch: int
    shards: int
    seed: int
    shuffle: bool = True
    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs, steps")
        if min(self.rows, self.global_batch, self.shards, self.epochs or self.steps or 0) < 1:
            raise ValueError(f"{self}: every number is at least 1")
        if self.global_batch % self.shards:
            raise ValueError(f"global_batch {self.global_batch} is no multiple of shards {self.shards}")

    @classmethod
    def of(cls, training: TrainingSpec, rows: int, *, shuffle: bool = True) -> Self:
        """The schedule of a job over so many training rows."""
        return cls(
            rows=rows,
            global_batch=training.global_batch,
            shards=training.shards,
            seed=training.seed,
            shuffle=shuffle,
            epochs=training.epochs,
            steps=training.steps,
        )

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.global_batch)

    @property
    def total_steps(self) -> int:
        return self.steps if self.steps is not None else (self.epochs or 0) * self.steps_per_epoch

    @property
    def is_constant(self) -> bool:
        """Whether a shard holds the same rows in every step."""
        return not self.shuffle and self.rows <= self.global_batch

    @property
    def shard_capacity(self) -> int:
        """The samples of a shard of a full batch."""
        return self.global_batch // self.shards

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def is_last_of_epoch(self, step: int) -> bool:
        return (step + 1) % self.steps_per_epoch == 0

    def batch_samples(self, step: int) -> int:
        """The samples of a step over all its shards; at least 1."""
        return min(self.global_batch, self.rows - self._batch_start(step))

    def shard_samples(self, step: int, shard: int) -> int:
        """The samples of one shard; 0 for shards that a batch which is not full leaves empty."""
        left = self.batch_samples(step) - self._shard_start(shard)
        return min(max(left, 0), self.shard_capacity)

    def shard_sizes(self) -> tuple[int, ...]:
        """Every size above 0 that a shard ever has, ascending; a program is traced for each before the first step."""
        last = min(self.total_steps, self.steps_per_epoch) - 1
        batches = ((step, shard) for step in {0, last} for shard in range(self.shards))
        return tuple(sorted({self.shard_samples(step, shard) for step, shard in batches} - {0}))

    def ids(self, step: int, shard: int) -> np.ndarray:
        """The rows of a shard, in order: int64, shape (`shard_samples(step, shard)`,)."""
        return self.at(self.span(step, shard))

    def at(self, span: Span) -> np.ndarray:
        """The rows at a span, in order: int64."""
        positions = np.arange(span.first, span.first + span.samples, dtype=np.int64)
        return self.order(span.epoch).at(positions) if self.shuffle else positions

    def batch_span(self, step: int) -> Span:
        """Where in its epoch's order the rows of all shards stand."""
        return Span(self.epoch_of(step), self._batch_start(step), self.batch_samples(step))

    def span(self, step: int, shard: int) -> Span:
        """Where in its epoch's order the rows of a shard stand."""
        first = self._batch_start(step) + self._shard_start(shard)
        return Span(self.epoch_of(step), first, self.shard_samples(step, shard))

    def order(self, epoch: int) -> Permutation:
        """The order of an epoch that is shuffled."""
        return Permutation(self.rows, key=(self.seed, epoch))

    def place_of(self, sample: int, epoch: int) -> Place:
        """The one place of an epoch that uses a row; it may lie after the last step if `steps` ends in mid-epoch.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= sample < self.rows:
            raise IndexError(f"there are rows 0 to {self.rows - 1}, not {sample}")
        position = sample
        if self.shuffle:
            position = int(self.order(epoch).inverse(np.array([sample], np.int64))[0])
        batch, within = divmod(position, self.global_batch)
        return Place(epoch * self.steps_per_epoch + batch, within // self.shard_capacity)

    def places_of(self, sample: int) -> Iterator[Place]:
        """Every place that uses a row, in order of steps: one per epoch."""
        for epoch in range(self.epoch_of(self.total_steps - 1) + 1):
            place = self.place_of(sample, epoch)
            if place.step < self.total_steps:
                yield place

    def _batch_start(self, step: int) -> int:
        if not 0 <= step < self.total_steps:
            raise IndexError(f"there are steps 0 to {self.total_steps - 1}, not {step}")
        return step % self.steps_per_epoch * self.global_batch

    def _shard_start(self, shard: int) -> int:
        if not 0 <= shard < self.shards:
            raise IndexError(f"there are shards 0 to {self.shards - 1}, not {shard}")
        return shard * self.shard_capacity
