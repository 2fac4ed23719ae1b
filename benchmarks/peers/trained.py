"""A model with its loss and optimiser, that can begin again from its first weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.models import Model


class Trained:
    """Built in the strategy's scope where there is one; `reset` and the rest must be called there too."""

    def __init__(self, model: Model, folder: Path) -> None:
        config = json.loads((folder / f"{model.name}.json").read_text())
        self.model = keras.saving.deserialize_keras_object(config)
        self.optimizer = keras.optimizers.get({"class_name": model.optimizer["name"], **model.optimizer})
        self.loss = keras.losses.get({"class_name": model.loss["name"], **model.loss})
        self.optimizer.build(self.model.trainable_variables)
        self._variables = [*self.model.variables, *self.optimizer.variables]
        self._first = [_kept(variable) for variable in self._variables]

    def reset(self) -> None:
        """Weights and optimiser as they were built."""
        for variable, first in zip(self._variables, self._first, strict=True):
            variable.assign(np.zeros(variable.shape, variable.dtype) if first is None else first)

    def digest(self) -> str:
        """SHA-256 over the weights as they were built."""
        found = hashlib.sha256()
        for value in self._first[: len(self.model.variables)]:
            found.update(b"" if value is None else value.tobytes())
        return found.hexdigest()

    def outputs(self, inputs: dict[str, Any]) -> Any:
        """What the model gives for inputs by name."""
        return self.model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=True)

    def gradients(self, tape: Any, loss: Any) -> list[Any]:
        """As an optimiser of Keras takes them: rows of tables stay rows."""
        found: list[Any] = tape.gradient(loss, [variable.value for variable in self.model.trainable_variables])
        return found


def _kept(variable: Any) -> np.ndarray | None:
    value = np.array(variable)
    return value if value.any() else None
