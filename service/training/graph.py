"""A model's graph, as TensorBoard draws it."""

from __future__ import annotations

from typing import Any

import keras
import structlog
import tensorflow as tf

from service.training.evaluation import Evaluator
from workers.models.heads import input_specs, pack_inputs, unpack_outputs

log = structlog.get_logger()


def graph_def_of(model: keras.Model, evaluator: Evaluator | None) -> bytes:
    """A serialised `GraphDef`: of the evaluation, if there was one, else of the model alone; empty if that fails."""
    try:
        return (evaluator.graph() if evaluator is not None else b"") or _forward(model)
    except Exception as error:  # the job has trained: a picture is no reason to fail it
        log.warning("graph_not_drawn", why=f"{type(error).__name__}: {error}")
        return b""


def _forward(model: keras.Model) -> bytes:
    def outputs_of(inputs: Any) -> Any:
        return unpack_outputs(model, model(pack_inputs(model, inputs), training=False))

    specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in input_specs(model).items()}
    concrete = tf.function(outputs_of, autograph=False).get_concrete_function(specs)
    graph: bytes = concrete.graph.as_graph_def().SerializeToString()
    return graph
