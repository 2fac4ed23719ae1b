"""The rows of shards, worked out for many steps at once.

Permuting a hundred row numbers takes NumPy as long as permuting thousands, and longer than a small model's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workers.data.schedule import Schedule, Span

AHEAD = 8192
"""Positions that are worked out together, where a shard has fewer; 64 KiB."""


@dataclass(frozen=True, slots=True)
class _Window:
    epoch: int
    first: int
    ids: np.ndarray

    def holds(self, span: Span) -> bool:
        return (
            span.epoch == self.epoch
            and self.first <= span.first
            and span.first + span.samples <= self.first + self.ids.size
        )


class RowOrder:
    """Same rows as the schedule's. Several threads may ask: the window is replaced as a whole."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._window: _Window | None = None

    def ids(self, step: int, shard: int) -> np.ndarray:
        """The rows of a shard, in order: int64, not to be written to."""
        return self._at(self._schedule.span(step, shard))

    def batch(self, step: int) -> np.ndarray:
        """The rows of all shards of a step, likewise."""
        return self._at(self._schedule.batch_span(step))

    def _at(self, span: Span) -> np.ndarray:
        if not self._schedule.shuffle or span.samples >= AHEAD:
            return self._schedule.at(span)
        window = self._window
        if window is None or not window.holds(span):
            window = self._window = self._look_ahead(span)
        start = span.first - window.first
        return window.ids[start : start + span.samples]

    def _look_ahead(self, span: Span) -> _Window:
        end = min(max(span.first + span.samples, span.first + AHEAD), self._schedule.rows)
        positions = np.arange(span.first, end, dtype=np.int64)
        return _Window(span.epoch, span.first, self._schedule.order(span.epoch).at(positions))
