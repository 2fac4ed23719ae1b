"""Applies summed gradients by Keras's own optimiser: the reference for the bits of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.optimizers.base_optimizer import clip_by_global_norm

from gradwire.errors import JobFailed
from service.training.changes import Rows
from service.training.densified import Densified
from service.training.groups import Groups
from service.training.late_copy import TableWatch
from service.training.summation import GRADIENT, StepSum, Summation
from service.training.weights import Copy, Weights
from workers.binding import share
from workers.concrete import Concrete
from workers.layout import Layout, Tensor
from workers.variables import unique_names

UNNAMED = re.compile(r"^variable_\d+$")


class KerasUpdate:
    """Keras's `optimizer.apply` in a `tf.function` without XLA, tensor by tensor in model order.

    Variables with different factors of the learning rate have an optimiser each, and each counts every step. Eager mode
    and XLA give other bits for most optimisers. The variables are the trainer's own: Keras never updates a
    variable that shares its memory in place.
    """

    def __init__(
        self,
        optimizers: Sequence[keras.optimizers.Optimizer],
        variables: Sequence[keras.Variable],
        weights: Weights,
        groups: Groups,
    ) -> None:
        self._weights = weights
        self._leader = optimizers[0]
        self._summation: Summation | None = None
        self._gradients: list[Any] = []
        self._dense: Densified | None = None
        self.changed: Sequence[Rows] = ()
        self.watches: Sequence[TableWatch] = ()
        paths = unique_names(variable.path for variable in variables)
        self._shapes = [(path, tuple(v.shape)) for path, v in zip(paths, variables, strict=True)]
        members = [groups.members(factor) for factor in groups.distinct]
        limit = _take_over_global_clip(optimizers) if len(optimizers) > 1 else None
        for optimizer, own in zip(optimizers, members, strict=True):
            excluded = [variables[index] for index in groups.excluded if index in own]
            if excluded:
                optimizer.exclude_from_weight_decay(var_list=excluded)
            optimizer.build([variables[index] for index in own])

        def apply(*gradients: Any) -> list[Any]:
            clipped = list(gradients) if limit is None else clip_by_global_norm(list(gradients), limit)
            for optimizer, own in zip(optimizers, members, strict=True):
                optimizer.apply([clipped[index] for index in own], [variables[index] for index in own])
            return [variable._value.value() for variable in variables]

        specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
        self._apply = Concrete(tf.function(apply, autograph=False, jit_compile=False).get_concrete_function(*specs))
        self._state = [variable for optimizer in optimizers for variable in optimizer.variables]
        self._names = _names(optimizers)
        self.layout = Layout.of(
            Tensor(name, tuple(int(n) for n in variable.shape), str(variable.dtype))
            for name, variable in zip(self._names, self._state, strict=True)
        )

    def attach(self, summation: Summation) -> None:
        """From now on gradients are summed up there; it reads them in place."""
        self._summation = summation
        self._dense = Densified(summation.layout.tables)
        self.changed = [None] * len(summation.layout.tables)
        found = summation.tensors | self._dense.gradients
        self._gradients = [share(found[f"{GRADIENT}{path}"].reshape(shape)) for path, shape in self._shapes]

    def prepare(self) -> None:
        """Nothing can be done before the gradients are there."""

    def apply(self, total: StepSum) -> None:
        """Updates the weights by the sum of a step's gradients."""
        assert self._summation is not None and self._dense is not None  # attach comes first
        self._summation.add_gradients(total)
        with self._dense.set(total):
            # The results share the variables' memory: let go before the next call, or that copies every variable.
            self._weights.publish(self._apply(*self._gradients))

    def learning_rate(self) -> float:
        """Of the next step, as the optimiser has it now; with several factors, of the first."""
        return float(keras.ops.convert_to_numpy(self._leader.learning_rate))

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies the optimiser's variables, its step count among them, to arrays as `layout` tells."""
        for name, variable in zip(self._names, self._state, strict=True):
            copy(target[name], np.asarray(variable._value.value()))

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets the optimiser's variables to a snapshot's."""
        for name, variable in zip(self._names, self._state, strict=True):
            variable.assign(tensors[name])


def _names(optimizers: Sequence[keras.optimizers.Optimizer]) -> list[str]:
    """The names of the state of all optimisers, without what Keras counts through in a process: optimisers, variables
    without a name (as Nadam has one)."""
    return unique_names(
        f"optimizer/{f'group_{number}/' if number else ''}{UNNAMED.sub('variable', variable.path.rpartition('/')[2])}"
        for number, optimizer in enumerate(optimizers)
        for variable in optimizer.variables
    )


def require_decay(optimizer: keras.optimizers.Optimizer, groups: Groups) -> None:
    """Raises `JobFailed` if weight decay shall leave variables alone that it does not reach in the first place."""
    decays = (getattr(optimizer, name, None) for name in ("weight_decay", "adam_weight_decay"))
    if groups.excluded and not any(decays):
        raise JobFailed(
            f"training.weightDecayExclude: {type(optimizer).__name__} has no weight decay here; set "
            "optimizer.config.weight_decay, or leave the patterns out",
            code="optimizer_config",
        )


def _take_over_global_clip(optimizers: Sequence[keras.optimizers.Optimizer]) -> float | None:
    """The limit of the norm over all gradients, which no optimiser of a group sees; they clip no more."""
    limit: float | None = optimizers[0].global_clipnorm
    for optimizer in optimizers:
        optimizer.global_clipnorm = None
    return limit
