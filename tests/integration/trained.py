"""Trained variables without a model, and what a checkpoint takes of them, for tests of updates."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from service.training.saver import Saved
from workers.layout import Layout
from workers.variables import ModelVariables


def variables_of(shapes: Mapping[str, tuple[int, ...]]) -> ModelVariables:
    """One for each path, scope/name, with the same numbers in every call."""
    rng = np.random.default_rng(5)
    made = []
    for path, shape in shapes.items():
        scope, name = path.split("/")
        with keras.name_scope(scope):
            made.append(keras.Variable(np.asarray(rng.standard_normal(shape), np.float32), name=name))
    return ModelVariables(tuple(made), (), (), tuple(f"weights/{path}" for path in shapes))


def snapshot_of(*parts: Saved) -> dict[str, np.ndarray]:
    """Copies of their tensors by name."""
    layout = Layout.of(tensor for part in parts for tensor in part.layout.tensors)
    names = [tensor.name for tensor in layout.tensors]
    made = dict(zip(names, layout.views(bytearray(layout.total_bytes)), strict=True))
    for part in parts:
        part.copy_into(made, np.copyto)
    return made
