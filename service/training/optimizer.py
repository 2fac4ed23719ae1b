"""Applies summed gradients by Keras's own optimiser: the reference for the bits of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from service.training.weights import Copy
from workers.binding import share
from workers.layout import Layout, Tensor
from workers.variables import unique_names


class OptimizerStep:
    """Keras's `optimizer.apply` in a `tf.function` without XLA, tensor by tensor in model order.

    Eager mode and XLA give other bits for most optimisers. The variables are the trainer's own: Keras never updates a
    variable that shares its memory in place.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
        optimizer.build(list(variables))
        self._optimizer = optimizer
        self._gradients: list[Any] = []

        def apply(*gradients: Any) -> list[Any]:
            optimizer.apply(list(gradients), list(variables))
            return [variable._value.value() for variable in variables]

        specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
        self._apply = tf.function(apply, autograph=False, jit_compile=False).get_concrete_function(*specs)
        self._names = unique_names(f"optimizer/{variable.path}" for variable in optimizer.variables)
        self.layout = Layout.of(
            Tensor(name, tuple(int(n) for n in variable.shape), str(variable.dtype))
            for name, variable in zip(self._names, optimizer.variables, strict=True)
        )

    def bind(self, gradients: Sequence[np.ndarray]) -> None:
        """From now on `apply` reads the gradients from these arrays, each 64-byte aligned; it copies nothing."""
        self._gradients = [share(gradient) for gradient in gradients]

    def apply(self) -> list[np.ndarray]:
        """Updates the variables by what the bound arrays hold now; returns their new values.

        The arrays share the variables' memory: let them go before the next call, or that copies every variable.
        """
        return [np.asarray(value) for value in self._apply(*self._gradients)]

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies the optimiser's variables, its step count among them, to arrays as `layout` tells."""
        for name, variable in zip(self._names, self._optimizer.variables, strict=True):
            copy(target[name], np.asarray(variable._value.value()))

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets the optimiser's variables to a snapshot's."""
        for name, variable in zip(self._names, self._optimizer.variables, strict=True):
            variable.assign(tensors[name])
