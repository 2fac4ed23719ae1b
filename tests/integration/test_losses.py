"""Numerators and denominators over shards give what Keras gives on the whole batch."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwire.errors import JobFailed
from workers.losses import REDUCTIONS, HeadLoss

pytestmark = pytest.mark.integration

SAMPLES, STEPS, CLASSES = 24, 6, 5
CUTS = [0, 10, 17, 24]
"""Shards of different sizes, so that a weight by number of shards would show."""


def masked(values: np.ndarray, mask: np.ndarray | None) -> Any:
    tensor = tf.constant(values)
    if mask is not None:
        tensor._keras_mask = tf.constant(mask)
    return tensor


def arrays(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, CLASSES, (SAMPLES, STEPS)).astype(np.int32)
    y_pred = rng.standard_normal((SAMPLES, STEPS, CLASSES)).astype(np.float32)
    lengths = rng.integers(0, STEPS + 1, SAMPLES)  # some samples have nothing valid
    return y_true, y_pred, np.arange(STEPS) < lengths[:, None], rng.random((SAMPLES, STEPS), np.float32)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("weights", ["none", "by sample", "by element"])
def test_shards_add_up_to_the_batch(reduction: str, has_mask: bool, weights: str) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    y_true, y_pred, mask, elements = arrays(3)
    weight = {"none": None, "by sample": elements[:, :1], "by element": elements}[weights]
    whole = loss(tf.constant(y_true), masked(y_pred, mask if has_mask else None), weight)

    head, numerator, denominator = HeadLoss("y", loss, 1.0), 0.0, 0.0
    kinds = set()
    for start, stop in itertools.pairwise(CUTS):
        part = slice(start, stop)
        prediction = masked(y_pred[part], mask[part] if has_mask else None)
        terms = head.terms(tf.constant(y_true[part]), prediction, None if weight is None else weight[part])
        numerator += float(terms.numerator)
        denominator += float(terms.denominator)
        kinds.add(terms.kind)
        if terms.kind == "samples":
            assert float(terms.denominator) == terms.elements_per_sample * (stop - start)
    total = numerator / (1.0 if kinds == {"one"} else denominator)
    assert total == pytest.approx(float(whole), rel=2e-6)
    assert len(kinds) == 1


def test_a_batch_without_a_valid_element_has_no_loss() -> None:
    y_true, y_pred, mask, _ = arrays(4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    terms = HeadLoss("y", loss, 1.0).terms(tf.constant(y_true), masked(y_pred, np.zeros_like(mask)), None)
    assert (float(terms.numerator), float(terms.denominator), terms.kind) == (0.0, 0.0, "exchanged")


class BatchVariance(keras.losses.Loss):
    """A loss that reduces by itself, and so couples samples."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.var(y_pred - y_true)


def test_a_loss_that_reduces_itself_is_a_mean_over_its_shard() -> None:
    values = tf.constant(np.arange(8, dtype=np.float32)[:, None])
    terms = HeadLoss("y", BatchVariance(), 1.0).terms(tf.zeros_like(values), values, None)
    assert terms.kind == "samples"
    assert float(terms.numerator) == pytest.approx(8 * np.var(np.arange(8)))
    assert float(terms.denominator) == 8


class OwnCall(keras.losses.Loss):
    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return keras.ops.sum(y_pred)


def test_losses_that_cannot_be_split_are_refused_by_name() -> None:
    with pytest.raises(JobFailed, match=r"OwnCall of output 'y' overrides __call__") as caught:
        HeadLoss("y", OwnCall(), 1.0)
    assert caught.value.code == "loss_config"
    with pytest.raises(JobFailed, match="reduction 'none'"):
        HeadLoss("y", keras.losses.MeanSquaredError(reduction="none"), 1.0)
