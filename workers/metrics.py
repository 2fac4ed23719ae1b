"""A job's metrics: counted per shard from zero, added up, and read as one.

Keras's streaming metrics are sums underneath. Their variables are float32, in which long epochs lose counts, so totals
are kept in float64 and given to the metric only to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwire.errors import JobFailed
from workers.layout import Tensor

NOT_ADDITIVE = ("PearsonCorrelation", "ConcordanceCorrelation")
"""Metrics whose variables over two shards do not add up to those over both."""


@dataclass(frozen=True, slots=True)
class HeadMetric:
    """A metric of one model output, and the name it is reported under."""

    output: str
    name: str
    metric: keras.metrics.Metric


class MetricSet:
    """All metrics of a job, in a fixed order."""

    def __init__(self, items: Sequence[HeadMetric]) -> None:
        for item in items:
            if type(item.metric).__name__ in NOT_ADDITIVE:
                raise JobFailed(
                    f"metric {type(item.metric).__name__} of output '{item.output}' cannot be added up over shards; "
                    "leave it out, or compute it from the exported model",
                    code="metric_config",
                )
        self.items = tuple(items)

    def build(self, y_true: Mapping[str, Any], y_pred: Mapping[str, Any]) -> None:
        """Makes the variables of metrics that wait for shapes; one sample of zeros for each output."""
        for item in self.items:
            item.metric.update_state(y_true[item.output], y_pred[item.output])
            item.metric.reset_state()

    @property
    def tensors(self) -> list[Tensor]:
        """The variables of all metrics, as parts of a contribution."""
        return [
            Tensor(f"metric/{index}/{number}", tuple(variable.shape), str(variable.dtype))
            for index, item in enumerate(self.items)
            for number, variable in enumerate(item.metric.variables)
        ]

    def count(self, y_true: Mapping[str, Any], y_pred: Mapping[str, Any]) -> list[Any]:
        """The variables after these samples alone; called while a program is traced."""
        counted: list[Any] = []
        for item in self.items:
            zeros = [tf.zeros(variable.shape, variable.dtype) for variable in item.metric.variables]
            counted += item.metric.stateless_update_state(zeros, y_true[item.output], y_pred[item.output])
        return counted

    def zeros(self) -> list[np.ndarray]:
        """Totals to add counts to: float64, or int64 for whole numbers."""
        return [
            np.zeros(tensor.shape, np.int64 if np.issubdtype(np.dtype(tensor.dtype), np.integer) else np.float64)
            for tensor in self.tensors
        ]

    def read(self, totals: Sequence[np.ndarray]) -> dict[str, float]:
        """The metrics' values by name; a metric that gives several numbers is reported as their mean."""
        values: dict[str, float] = {}
        remaining = list(totals)
        for item in self.items:
            variables = item.metric.variables
            for variable in variables:
                variable.assign(remaining.pop(0).astype(variable.dtype))
            values[item.name] = float(np.mean(np.asarray(item.metric.result())))
        return values
