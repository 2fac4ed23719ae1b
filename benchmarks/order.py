"""Which rows are in which step: the order that Gradwire's workers follow, for the peers."""

from __future__ import annotations

import numpy as np

from benchmarks.models import SEED, Model
from workers.data.schedule import Schedule

SHARDS = 2
MAX_STEPS = 4096
"""Peers begin again with the first rows after this; no loss is compared so late."""


def shuffled_rows(model: Model, part: int, parts: int) -> np.ndarray:
    """The rows of one of `parts` workers: int64, shape (steps, batch / parts); the parts of a step are its shards."""
    epochs = max(2, MAX_STEPS // model.epoch_steps) if model.epoch_steps < MAX_STEPS else 1
    steps = epochs * model.epoch_steps
    schedule = Schedule(
        rows=model.batch * model.epoch_steps, global_batch=model.batch, shards=parts, seed=SEED, steps=steps
    )
    return np.stack([schedule.ids(step, part) for step in range(steps)])


def constant_rows(model: Model, part: int, parts: int) -> np.ndarray:
    """The rows of one of `parts` workers when every step has the first batch of the data set."""
    share = model.batch // parts
    return np.arange(part * share, (part + 1) * share, dtype=np.int64)
