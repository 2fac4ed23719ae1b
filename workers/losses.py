"""A head's loss as numerator and denominator, so that shards add up to what Keras computes on the whole batch.

Keras returns quotients: the sum of weighted values over a number of elements, of valid elements, or of weights. Shard
quotients cannot be added; numerators and denominators can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf
from keras.src.backend import get_keras_mask
from keras.src.losses.loss import apply_mask, reduce_weighted_values, squeeze_or_expand_to_same_rank

from gradwire.errors import JobFailed

Denominator = Literal["samples", "one", "exchanged"]
"""samples: elements, as many as follow from the samples. one: a sum. exchanged: only model or data know."""

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum")


@dataclass(frozen=True, slots=True)
class Terms:
    """A head's loss on some samples; it is numerator / denominator (scalar float tensors)."""

    numerator: Any
    denominator: Any
    kind: Denominator
    elements_per_sample: float
    """For kind samples: denominator divided by the number of samples."""


@dataclass(frozen=True, slots=True)
class HeadLoss:
    """The loss of one model output and its factor in the total."""

    output: str
    loss: keras.losses.Loss
    weight: float

    def __post_init__(self) -> None:
        if type(self.loss).__call__ is not keras.losses.Loss.__call__:
            raise JobFailed(
                f"loss {type(self.loss).__name__} of output '{self.output}' overrides __call__; override call",
                code="loss_config",
            )
        if self.loss.reduction not in REDUCTIONS:
            raise JobFailed(
                f"loss of output '{self.output}' has reduction {self.loss.reduction!r}; take one of {REDUCTIONS}",
                code="loss_config",
            )

    def terms(self, y_true: Any, y_pred: Any, sample_weight: Any | None) -> Terms:
        """The loss of a shard: `Loss.__call__` of Keras up to the last division.

        y_true and y_pred have the samples in their first axis; a mask that layers left at y_pred counts as in Keras.
        """
        loss = self.loss
        samples = int(y_pred.shape[0])
        mask = get_keras_mask(y_pred)
        y_pred = keras.ops.convert_to_tensor(y_pred, dtype=loss.dtype)
        y_true = keras.ops.convert_to_tensor(y_true, dtype=loss.dtype)
        with tf.name_scope(loss.name or "loss"):
            values = loss.call(y_true, y_pred)
            mask = _both(mask, get_keras_mask(values))
            values = keras.ops.convert_to_tensor(values, dtype=loss.dtype)
            if values.shape.rank == 0:  # reduced by the loss itself: a mean over its shard, by definition
                count = tf.constant(samples, values.dtype)
                return Terms(values * count, count, "samples", 1.0)
            numerator = reduce_weighted_values(values, sample_weight, mask, reduction="sum", dtype=loss.dtype)
            return self._over_denominator(numerator, values, sample_weight, mask)

    def _over_denominator(self, numerator: Any, values: Any, sample_weight: Any, mask: Any) -> Terms:
        reduction, dtype = self.loss.reduction, values.dtype
        elements = float(values.shape.num_elements())
        samples = float(values.shape[0])
        if reduction == "sum":
            return Terms(numerator, tf.ones((), dtype), "one", 0.0)
        if reduction == "mean_with_sample_weight" and (mask is not None or sample_weight is not None):
            weights = apply_mask(sample_weight, mask, dtype=dtype, reduction=reduction)
            _, weights = squeeze_or_expand_to_same_rank(values, tf.cast(weights, dtype))
            return Terms(numerator, tf.reduce_sum(weights), "exchanged", 0.0)
        if reduction != "mean_with_sample_weight" and mask is not None:
            # Keras gives valid entries the weight total / valid and divides by all elements.
            valid = tf.reduce_sum(tf.cast(mask, dtype))
            return Terms(numerator, valid * (elements / float(mask.shape.num_elements())), "exchanged", 0.0)
        return Terms(numerator, tf.constant(elements, dtype), "samples", elements / samples)


def _both(first: Any | None, second: Any | None) -> Any | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second
