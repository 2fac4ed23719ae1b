"""Keras's update rules for the optimisers that most jobs use, in NumPy on blocks: the same bits, one pass over memory.

Each rule repeats `update_step` of Keras 3.15 operation by operation, in float32: TensorFlow rounds every one of them,
and so does NumPy. What is computed once for all weights of a step (a learning rate, Adam's bias correction) comes from
Keras itself (`scalars.py`). tests/integration/test_update_bits.py holds both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from workers.binding import share


@dataclass(frozen=True, slots=True)
class StepScalars:
    """What a step's update takes besides arrays; float32.

    rate: the factor of the update: the learning rate, or Adam's with its bias correction. decay: learning rate times
    weight decay; None where there is none.
    """

    rate: np.float32
    decay: np.float32 | None = None


PACKET = 16
"""Elements; more than any of TensorFlow's vectors has."""


class Rule(Protocol):
    """An optimiser's step on one block of its weights."""

    slots: tuple[str, ...]
    """The arrays besides the weights, each of their shape."""
    initial: float
    """What they start with."""
    scratch: int
    """How many temporary blocks it uses."""
    rests_always: bool
    """Whether a gradient of zero changes nothing, weight decay apart; other rules rest where all slots are zero."""
    has_tails: bool
    """Whether the last elements of a variable, less than `PACKET`, are computed in another way: then an update is of
    one variable, without its padding, and begins at a multiple of `PACKET` elements of it."""

    def update(
        self,
        scalars: StepScalars,
        gradient: np.ndarray,
        weights: np.ndarray,
        slots: Sequence[np.ndarray],
        scratch: Sequence[np.ndarray],
    ) -> None:
        """Updates weights and slots in place; all arrays are float32 and of one shape."""


def _decay(scalars: StepScalars, weights: np.ndarray, scratch: np.ndarray) -> None:
    if scalars.decay is not None:
        np.multiply(weights, scalars.decay, out=scratch)
        np.subtract(weights, scratch, out=weights)


class SgdRule:
    """Keras's SGD, with momentum and Nesterov momentum (Sutskever et al. 2013)."""

    initial = 0.0
    scratch = 2
    has_tails = False

    def __init__(self, momentum: float, *, is_nesterov: bool) -> None:
        self._momentum = np.float32(momentum)
        self._is_nesterov = is_nesterov
        self.slots: tuple[str, ...] = ("momentum",) if momentum else ()
        self.rests_always = not momentum

    def update(
        self,
        scalars: StepScalars,
        gradient: np.ndarray,
        weights: np.ndarray,
        slots: Sequence[np.ndarray],
        scratch: Sequence[np.ndarray],
    ) -> None:
        step, other = scratch
        _decay(scalars, weights, step)
        np.multiply(gradient, scalars.rate, out=step)
        if not slots:
            np.subtract(weights, step, out=weights)
            return
        (momentum,) = slots
        np.multiply(momentum, self._momentum, out=momentum)
        np.subtract(momentum, step, out=momentum)
        if self._is_nesterov:
            np.multiply(momentum, self._momentum, out=other)
            np.subtract(other, step, out=other)
            np.add(weights, other, out=weights)
        else:
            np.add(weights, momentum, out=weights)


class AdamRule:
    """Keras's Adam (Kingma and Ba 2014) and AdamW (Loshchilov and Hutter 2017)."""

    slots: tuple[str, ...] = ("momentum", "velocity")
    initial = 0.0
    scratch = 2
    rests_always = False
    has_tails = False

    def __init__(self, beta_1: float, beta_2: float, epsilon: float) -> None:
        # As Keras: Python subtracts, TensorFlow rounds to float32.
        self._left_1 = np.float32(1 - beta_1)
        self._left_2 = np.float32(1 - beta_2)
        self._epsilon = np.float32(epsilon)

    def update(
        self,
        scalars: StepScalars,
        gradient: np.ndarray,
        weights: np.ndarray,
        slots: Sequence[np.ndarray],
        scratch: Sequence[np.ndarray],
    ) -> None:
        momentum, velocity = slots
        step, other = scratch
        _decay(scalars, weights, step)
        np.subtract(gradient, momentum, out=step)
        np.multiply(step, self._left_1, out=step)
        np.add(momentum, step, out=momentum)
        np.multiply(gradient, gradient, out=step)
        np.subtract(step, velocity, out=step)
        np.multiply(step, self._left_2, out=step)
        np.add(velocity, step, out=velocity)
        np.sqrt(velocity, out=other)
        np.add(other, self._epsilon, out=other)
        np.multiply(momentum, scalars.rate, out=step)
        np.divide(step, other, out=step)
        np.subtract(weights, step, out=weights)


def _times_reciprocal_root(values: np.ndarray, squares: np.ndarray) -> None:
    """values / √squares, which TensorFlow's graph optimiser makes values · rsqrt(squares), in place.

    TensorFlow's rsqrt has another last bit in vectors than in what is left behind them, and NumPy has none.
    """
    with tf.device("CPU:0"):
        found = tf.raw_ops.Rsqrt(x=share(squares))
    np.multiply(values, found.numpy(), out=values)


class AdagradRule:
    """Keras's Adagrad (Duchi et al. 2011)."""

    slots: tuple[str, ...] = ("accumulator",)
    scratch = 2
    rests_always = True
    has_tails = True

    def __init__(self, initial: float, epsilon: float) -> None:
        self.initial = initial
        self._epsilon = np.float32(epsilon)

    def update(
        self,
        scalars: StepScalars,
        gradient: np.ndarray,
        weights: np.ndarray,
        slots: Sequence[np.ndarray],
        scratch: Sequence[np.ndarray],
    ) -> None:
        (accumulator,) = slots
        step, other = scratch
        _decay(scalars, weights, step)
        np.multiply(gradient, gradient, out=step)
        np.add(accumulator, step, out=accumulator)
        np.add(accumulator, self._epsilon, out=other)
        np.multiply(gradient, scalars.rate, out=step)
        _times_reciprocal_root(step, other)
        np.subtract(weights, step, out=weights)


class RmspropRule:
    """Keras's RMSprop (Hinton 2012), with momentum; not centred."""

    initial = 0.0
    scratch = 2
    rests_always = False
    has_tails = True

    def __init__(self, rho: float, momentum: float, epsilon: float) -> None:
        self.slots: tuple[str, ...] = ("velocity", "momentum") if momentum > 0 else ("velocity",)
        self._rho = np.float32(rho)
        self._left = np.float32(1 - rho)  # as Keras: Python subtracts, TensorFlow rounds to float32
        self._momentum = np.float32(momentum)
        self._epsilon = np.float32(epsilon)

    def update(
        self,
        scalars: StepScalars,
        gradient: np.ndarray,
        weights: np.ndarray,
        slots: Sequence[np.ndarray],
        scratch: Sequence[np.ndarray],
    ) -> None:
        velocity, *momenta = slots
        step, other = scratch
        _decay(scalars, weights, step)
        np.multiply(velocity, self._rho, out=velocity)
        np.multiply(gradient, gradient, out=step)
        np.multiply(step, self._left, out=step)
        np.add(velocity, step, out=velocity)
        np.add(velocity, self._epsilon, out=other)
        np.multiply(gradient, scalars.rate, out=step)
        _times_reciprocal_root(step, other)
        for momentum in momenta:
            np.multiply(momentum, self._momentum, out=momentum)
            np.add(momentum, step, out=momentum)
            np.copyto(step, momentum)
        np.subtract(weights, step, out=weights)
