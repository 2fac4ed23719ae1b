"""How summed gradients become new weights: fused where we know the optimiser's rule, else by Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import keras
import numpy as np

from service.training.blocks import Blocks
from service.training.changes import Rows
from service.training.fused import FusedUpdate, is_reordered, rule_of
from service.training.groups import Groups
from service.training.late_copy import TableWatch
from service.training.optimizer import KerasUpdate, require_decay
from service.training.summation import StepSum, Summation
from service.training.weights import Copy, Weights
from workers.layout import Layout
from workers.variables import ModelVariables


class Update(Protocol):
    """An optimiser with its state. The trainer's loop alone calls it."""

    layout: Layout
    """Of the optimiser's state."""
    changed: Sequence[Rows]
    """The rows of each table that the last update changed."""
    watches: Sequence[TableWatch]
    """Of the tables that may be copied while it updates them; once attached."""

    def attach(self, summation: Summation) -> None:
        """Gradients will come from there."""

    def prepare(self) -> None:
        """Does what can be done before the next gradients are there."""

    def apply(self, total: StepSum) -> None:
        """Updates the trained part of the weights buffer by a step's gradients."""

    def learning_rate(self) -> float:
        """Of the next step, as the optimiser has it now; with several factors, of the first."""

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies the optimiser's state to arrays as `layout` tells."""

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets the optimiser's state to a snapshot's."""


def make_update(
    make: Callable[[float], keras.optimizers.Optimizer], groups: Groups, variables: ModelVariables, weights: Weights,
    blocks: Blocks, *, is_lazy: bool = False,
) -> Update:  # fmt: skip
    """The fastest way to a Keras optimiser's bits.

    Args:
        make: a fresh optimiser, not built, whose learning rate is multiplied by a factor.
        groups: of the trained variables.
        is_lazy: whether tables are updated where they were gathered only.
    """
    optimizers = [make(factor) for factor in groups.distinct]
    require_decay(optimizers[0], groups)
    rule = rule_of(optimizers[0], variables)
    if rule is None or is_reordered(rule, optimizers, groups):
        return KerasUpdate(optimizers, variables.trainable, weights, groups)
    weights.bind()
    return FusedUpdate(optimizers, rule, weights.trained, variables, blocks, groups, is_lazy=is_lazy)
