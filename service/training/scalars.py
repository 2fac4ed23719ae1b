"""The numbers of a step that Keras computes once for all weights, as Keras itself computes them.

TensorFlow's graph optimiser multiplies constants of a learning-rate schedule and of an optimiser together, in an order
of its own; a formula written again would differ in the last bit. So Keras's optimiser runs on *twins*, weights of one
element, with gradients and slots such that what it takes from them is the number that is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from service.training.rules import StepScalars
from workers.concrete import Concrete

TWINS = 2
"""With a single weight TensorFlow may merge more constants than with several."""

LARGE = 2.0**20
"""A power of two: multiplying and dividing by it is exact, and an epsilon beside it is rounded away."""


class Scalars:
    """`iterations` counts the steps that were asked for; `next` is called once for each, in order.

    Args:
        optimizer: fresh, unbuilt; SGD, Adam, AdamW, Adagrad or RMSprop, none of them with clipping.
        weights: how many it is for.
        is_clipped: whether gradients are multiplied by a factor before the update; only with SGD.
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, *, weights: int = TWINS, is_clipped: bool = False
    ) -> None:
        self._optimizer = optimizer
        self._is_adam = is_adam = isinstance(optimizer, keras.optimizers.Adam)
        self._twins = [
            keras.Variable(np.ones(1, np.float32), name=f"twin_{number}") for number in range(min(weights, TWINS))
        ]
        optimizer.build(self._twins)
        self._gradients = [tf.fill([1], np.float32(LARGE if is_adam else 1.0))] * len(self._twins)
        given = [*self._gradients, *[tf.ones(())] * is_clipped]
        self._is_clipped = is_clipped
        self._run = Concrete(tf.function(self._trace, autograph=False).get_concrete_function(*given))
        # With a fixed learning rate, SGD's scalars are the same in every step; Adam's bias correction changes.
        has_fixed_rate = isinstance(optimizer._learning_rate, keras.Variable)
        self._is_fixed = has_fixed_rate and not is_adam and not is_clipped
        # Asking TensorFlow for it takes longer than the rest of a report, of which short epochs have many.
        self._rate = self._read_rate() if has_fixed_rate else None
        self._fixed: StepScalars | None = None
        self.iterations = 0
        self._decay: Concrete | None = None
        if optimizer.weight_decay is not None:
            # A function of its own: as a result of the other, it would keep TensorFlow from merging constants.
            self._decay = Concrete(tf.function(self._trace_decay, autograph=False).get_concrete_function())

    @property
    def decays(self) -> bool:
        """Whether there is weight decay."""
        return self._decay is not None

    def restore(self, iterations: int) -> None:
        """The next step is the one after so many."""
        self.iterations = iterations
        self._optimizer.iterations.assign(iterations)

    def learning_rate(self) -> float:
        """As the optimiser has it now."""
        return self._read_rate() if self._rate is None else self._rate

    def _read_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))

    def next(self, factor: np.float32 | None = None) -> StepScalars:
        """The scalars of the step after those asked for before; counts it. With a factor of the gradient, of which the
        rate is then a multiple."""
        self.iterations += 1
        if self._fixed is not None:
            return self._fixed
        decay = np.float32(self._decay()[0]) if self._decay is not None else None  # before the step is counted
        given = self._gradients if factor is None else [*self._gradients, tf.constant(factor)]
        scalars = StepScalars(np.float32(self._run(*given)[0][0]), decay)
        self._fixed = scalars if self._is_fixed else None
        return scalars

    def _trace(self, *given: Any) -> list[Any]:
        """What an update takes from a weight."""
        gradients = [gradient * given[-1] for gradient in given[:-1]] if self._is_clipped else list(given)
        momenta = [variable for variable in self._optimizer.variables if variable.path.endswith("momentum")]
        for momentum in momenta:
            momentum.assign(tf.fill([1], np.float32(LARGE if self._is_adam else 0.0)))
        for variable in self._optimizer.variables:
            if variable.path.endswith("velocity"):
                variable.assign(tf.fill([1], np.float32(LARGE**2)))
        self._optimizer.apply(gradients, self._twins)
        operations = tf.compat.v1.get_default_graph().get_operations()
        if not isinstance(self._optimizer, keras.optimizers.SGD | keras.optimizers.Adam):
            return [_last(operations, "RealDiv").inputs[0]]  # the gradient, which is 1, times the rate
        if momenta and not self._is_adam:
            return [-momenta[0]._value.value()]  # from momentum 0 by gradient 1
        return [_last(operations, "AssignSubVariableOp").inputs[1]]

    def _trace_decay(self) -> list[Any]:
        """What is taken of a weight before the update, as a factor."""
        optimizer = self._optimizer
        return [tf.cast(optimizer.weight_decay, tf.float32) * tf.cast(optimizer.learning_rate, tf.float32)]


def _last(operations: Sequence[Any], kind: str) -> Any:
    return [operation for operation in operations if operation.type == kind][-1]
