"""Applies summed gradients by Keras's own optimiser: the reference for the bits of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from service.training.summation import GRADIENT, StepSum, Summation
from service.training.weights import Copy, Weights
from workers.binding import share
from workers.concrete import Concrete
from workers.layout import Layout, Tensor
from workers.variables import unique_names


class KerasUpdate:
    """Keras's `optimizer.apply` in a `tf.function` without XLA, tensor by tensor in model order.

    Eager mode and XLA give other bits for most optimisers. The variables are the trainer's own: Keras never updates a
    variable that shares its memory in place.
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], weights: Weights
    ) -> None:
        optimizer.build(list(variables))
        self._optimizer = optimizer
        self._weights = weights
        self._summation: Summation | None = None
        self._gradients: list[Any] = []

        def apply(*gradients: Any) -> list[Any]:
            optimizer.apply(list(gradients), list(variables))
            return [variable._value.value() for variable in variables]

        specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
        self._apply = Concrete(tf.function(apply, autograph=False, jit_compile=False).get_concrete_function(*specs))
        self._names = unique_names(f"optimizer/{variable.path}" for variable in optimizer.variables)
        self.layout = Layout.of(
            Tensor(name, tuple(int(n) for n in variable.shape), str(variable.dtype))
            for name, variable in zip(self._names, optimizer.variables, strict=True)
        )

    def attach(self, summation: Summation) -> None:
        """From now on gradients are summed up there; it reads them in place."""
        self._summation = summation
        names = [tensor.name for tensor in summation.layout.tensors if tensor.name.startswith(GRADIENT)]
        self._gradients = [share(summation.tensors[name]) for name in names]

    def prepare(self) -> None:
        """Nothing can be done before the gradients are there."""

    def apply(self, total: StepSum) -> None:
        """Updates the weights by the sum of a step's gradients."""
        assert self._summation is not None  # attach comes first
        self._summation.add_gradients(total)
        # The results share the variables' memory: let go before the next call, or that copies every variable.
        self._weights.publish(self._apply(*self._gradients))

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies the optimiser's variables, its step count among them, to arrays as `layout` tells."""
        for name, variable in zip(self._names, self._optimizer.variables, strict=True):
            copy(target[name], np.asarray(variable._value.value()))

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets the optimiser's variables to a snapshot's."""
        for name, variable in zip(self._names, self._optimizer.variables, strict=True):
            variable.assign(tensors[name])
