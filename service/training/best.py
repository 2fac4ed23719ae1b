"""The weights of the best evaluation so far."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from gradwire.spec.job import TrainingSpec
from service.training.average import MovingAverage
from service.training.blocks import Blocks
from service.training.weights import Copy, Weights
from workers.layout import Layout, Tensor
from workers.variables import ModelVariables

STEP = "best/step"


class BestWeights:
    """A copy of what was evaluated when the monitored metric was best. Belongs to the trainer's loop.

    It is kept in memory and in every checkpoint: which checkpoints are written depends on how fast they are, and the
    best evaluation's need not be among them.

    Args:
        names: of the variables in model order, trained ones before other state.
        evaluated: their views: where there is a moving average, its.
    """

    def __init__(self, names: Sequence[str], evaluated: Sequence[np.ndarray], copy: Copy) -> None:
        self._evaluated = evaluated
        self._copy = copy
        tensors = [Tensor(f"best/{n}", v.shape, v.dtype.name) for n, v in zip(names, evaluated, strict=True)]
        layout = Layout.of(tensors)
        self._views = layout.views(mmap.mmap(-1, layout.total_bytes))
        self.layout = Layout.of([Tensor(STEP, (), "int64"), *tensors])
        self.step = 0
        """The evaluation's; 0 before the first."""

    @classmethod
    def of(
        cls, training: TrainingSpec, variables: ModelVariables, weights: Weights, average: MovingAverage | None,
        blocks: Blocks,
    ) -> BestWeights | None:  # fmt: skip
        """Those of a job, if early stopping shall restore them."""
        if training.early_stopping is None or not training.early_stopping.restore_best:
            return None
        trained, state = weights.values()
        return cls(variables.names, [*(average.views if average else trained), *state], blocks.copy)

    def take(self, step: int) -> None:
        """The evaluation after `step` is the best so far; nobody may write the weights meanwhile."""
        for view, source in zip(self._views, self._evaluated, strict=True):
            self._copy(view, source)
        self.step = step

    def put_in(self, variables: Sequence[keras.Variable]) -> None:
        """Sets a model's variables, in the order of the names."""
        for variable, view in zip(variables, self._views, strict=True):
            variable.assign(view)

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies everything to arrays as `layout` tells."""
        target[STEP][...] = self.step
        for tensor, view in zip(self.layout.tensors[1:], self._views, strict=True):
            copy(target[tensor.name], view)

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets everything to a snapshot's."""
        self.step = int(tensors[STEP])
        for tensor, view in zip(self.layout.tensors[1:], self._views, strict=True):
            np.copyto(view, tensors[tensor.name])
