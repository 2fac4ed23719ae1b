"""A checkpoint of every kind of tensor, for tests of what becomes of it."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from service.training.checkpoint import Checkpoint

JOB = "j1"
FOLDER = f"jobs/{JOB}/checkpoints"


def checkpoint(step: int, *, generation: int = 1, loss: float = 0.5) -> Checkpoint:
    return Checkpoint(
        step=step,
        generation=generation,
        spec_digest="ab" * 32,
        fingerprint={"tensorflow": "2.21.0", "threads": "1"},
        metrics={"loss": loss, "never": math.nan, "far": -math.inf},
        totals={"loss": np.array([1 / 3, 64]), "accuracy/total": np.array(0.1)},
        tensors={
            "weights/dense/kernel": np.full((2, 3), step, np.float32),
            "weights/block 1/dense_é:0": np.zeros((0, 4), np.float32),
            "state/bn/moving_mean": np.array([0.25], ml_dtypes.bfloat16),
            "state/mask": np.array([True, False]),
            "optimizer/iteration": np.array(step, np.int64),
            "optimizer/seed": np.array([2**32 - 1], np.uint32),
            "odd": np.array(1.5, np.float64),
        },
    )


def assert_equal(first: Checkpoint, second: Checkpoint) -> None:
    for name in ("step", "generation", "spec_digest", "fingerprint"):
        assert getattr(first, name) == getattr(second, name)
    np.testing.assert_equal(dict(first.metrics), dict(second.metrics))
    for ours, theirs in ((first.tensors, second.tensors), (first.totals, second.totals)):
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert np.asarray(tensor).dtype == theirs[name].dtype
            assert np.asarray(tensor).shape == theirs[name].shape
            assert np.asarray(tensor).tobytes() == theirs[name].tobytes()
