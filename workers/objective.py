"""From a specification to what is differentiated: the model with its losses and metrics."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from gradwire.assignment import Assignment
from gradwire.spec.job import JobSpec, LossSpec
from gradwire.spec.part import ONLY
from gradwire.storage import Storage
from workers.data.source import ArrayInfo
from workers.losses import HeadLoss
from workers.metrics import HeadMetric, MetricSet
from workers.models.build import build_model
from workers.models.fit_check import check_fit
from workers.models.heads import Heads, input_specs, pack_inputs, unpack_outputs
from workers.models.objects import make_loss, make_metric
from workers.program import Objective

Arrays = Mapping[str, ArrayInfo]
Outputs = Mapping[str, keras.KerasTensor]


def make_objective(spec: JobSpec, assignment: Assignment, storage: Storage, arrays: Arrays) -> Objective:
    """Builds the model and checks that it fits the data.

    Args:
        arrays: what the training source holds, by array name.

    Raises:
        JobFailed: the model, a loss, a metric or the data is at fault, each named.
    """
    model = build_model(spec, assignment, storage)
    heads = Heads.of(model)
    check_fit(model, heads, spec, arrays)
    losses = {_resolved(output, heads): loss for output, loss in spec.loss.items()}
    outputs = _symbolic_outputs(model)
    return Objective(
        model=model,
        heads=heads,
        losses=tuple(_head_loss(name, losses[name]) for name in heads.output_names if name in losses),
        metrics=_metrics(spec, heads, outputs, arrays),
    )


def input_dtypes(objective: Objective) -> dict[str, str]:
    """The dtype of each model input, by name."""
    return {name: spec.dtype for name, spec in input_specs(objective.model).items()}


def _resolved(output: str, heads: Heads) -> str:
    return heads.output_names[0] if output == ONLY else output


def _head_loss(output: str, spec: LossSpec) -> HeadLoss:
    return HeadLoss(output, make_loss(spec), spec.weight)


def _symbolic_outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    tensors = {name: keras.KerasTensor(spec.shape, spec.dtype) for name, spec in input_specs(model).items()}
    return unpack_outputs(model, model.compute_output_spec(pack_inputs(model, tensors)))


def _metrics(spec: JobSpec, heads: Heads, outputs: Outputs, arrays: Arrays) -> MetricSet:
    """All metrics, in the order of outputs; with several outputs their names begin with the output's."""
    labels = {_resolved(output, heads): arrays[name] for output, name in spec.data.labels.items()}
    wanted = {_resolved(output, heads): metrics for output, metrics in spec.metrics.items()}
    items = []
    for output in heads.output_names:
        for item in wanted.get(output, []):
            label_shape = (None, *labels[output].shape)
            metric = make_metric(item, output_shape=tuple(outputs[output].shape), label_shape=label_shape)
            name = metric.name if len(heads.output_names) == 1 else f"{output}_{metric.name}"
            items.append(HeadMetric(output, name, metric))
    metrics = MetricSet(items)
    metrics.build(
        {name: _one_sample(info.shape, str(info.dtype)) for name, info in labels.items()},
        {name: _one_sample(outputs[name].shape[1:], "float32") for name in labels},
    )
    return metrics


def _one_sample(shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    return np.zeros((1, *(size or 1 for size in shape)), dtype)
