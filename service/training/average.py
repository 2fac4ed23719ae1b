"""The moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradwire.spec.job import TrainingSpec
from service.training.blocks import Blocks, Scratch
from service.training.weights import Copy, Weights
from workers.layout import Layout, Tensor
from workers.pages import pages
from workers.variables import ModelVariables

AVERAGE = "average"
UPDATES = f"{AVERAGE}/updates"


def averaged(path: str) -> str:
    """The name of a trained variable's average in checkpoints."""
    return f"{AVERAGE}/{path}"


class MovingAverage:
    """Follows the trained weights, update by update, with the bits of Keras's `use_ema`; begins with the first update.

    Belongs to the trainer's loop.

    Args:
        momentum: the average's own share.
        trained: the trained variables' names and their views of the weights buffer.
    """

    def __init__(self, momentum: float, names: Sequence[str], trained: Sequence[np.ndarray], blocks: Blocks) -> None:
        self._momentum = momentum
        self._blocks = blocks
        tensors = [Tensor(averaged(n), v.shape, v.dtype.name) for n, v in zip(names, trained, strict=True)]
        layout = Layout.of(tensors)
        self._buffer = pages(layout.total_bytes)
        self.views = layout.views(self._buffer)
        """The averages, in model order: all zero before the first update."""
        self._pairs = [
            (average.reshape(-1), weights.reshape(-1)) for average, weights in zip(self.views, trained, strict=True)
        ]
        self.layout = Layout.of([Tensor(UPDATES, (), "int64"), *tensors])
        self._updates = 0

    @classmethod
    def of(
        cls, training: TrainingSpec, variables: ModelVariables, weights: Weights, blocks: Blocks
    ) -> MovingAverage | None:
        """That of a job, if it asks for one; evaluation and export take it from now on."""
        if training.moving_average is None:
            return None
        made = cls(training.moving_average.momentum, variables.trained_paths, weights.values()[0], blocks)
        weights.show(made.views)
        return made

    def update(self) -> None:
        """Takes the weights as they are now, after an update."""
        for average, weights in self._pairs:
            self._follow(average, weights)
        self._updates += 1

    def _follow(self, average: np.ndarray, weights: np.ndarray) -> None:
        # Keras subtracts in the weights' dtype.
        momentum = weights.dtype.type(self._momentum if self._updates else 0.0)
        rest = weights.dtype.type(1) - momentum

        def follow(start: int, end: int, scratch: Scratch) -> None:
            part = average[start:end]
            new = scratch.like(0, part)
            np.multiply(weights[start:end], rest, out=new)
            np.multiply(part, momentum, out=part)
            np.add(part, new, out=part)

        self._blocks.run(average.size, follow)

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies everything to arrays as `layout` tells."""
        target[UPDATES][...] = self._updates
        for tensor, view in zip(self.layout.tensors[1:], self.views, strict=True):
            copy(target[tensor.name], view)

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets everything to a snapshot's."""
        self._updates = int(tensors[UPDATES])
        for tensor, view in zip(self.layout.tensors[1:], self.views, strict=True):
            np.copyto(view, tensors[tensor.name])
