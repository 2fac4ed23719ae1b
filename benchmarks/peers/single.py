"""A bare loop in one process: a `tf.function` with two threads.

python -m benchmarks.peers.single SOCKET
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks.models import LABEL, MODELS
from benchmarks.peers.batches import Batch, constant, dataset
from benchmarks.peers.command import Job, serve
from benchmarks.peers.trained import Trained

THREADS = 2


class SingleLoop:
    """One process trains on whole batches."""

    def __init__(self, job: Job) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        self._model = MODELS[job.model]
        self._arrays = self._model.arrays()
        self._trained = Trained(self._model, job.folder)
        self._train = tf.function(self._step, autograph=False)
        self._batches: Iterator[Batch] = iter(())
        self.weights_digest = self._trained.digest()

    def reset(self, feed: str) -> None:
        """Begins again, on "shuffled" or "constant" batches."""
        self._trained.reset()
        make = constant if feed == "constant" else dataset
        self._batches = iter(make(self._model, self._arrays, 0, 1))

    def run(self, steps: int) -> list[Any]:
        """Trains so many steps; the loss of each."""
        return [self._train(next(self._batches)) for _ in range(steps)]

    def _step(self, batch: Batch) -> Any:
        inputs = {name: value for name, value in batch.items() if name != LABEL}
        with tf.GradientTape() as tape:
            loss = self._trained.loss(batch[LABEL], self._trained.outputs(inputs))
        gradients = self._trained.gradients(tape, loss)
        self._trained.optimizer.apply(gradients, self._trained.model.trainable_variables)
        return loss


if __name__ == "__main__":
    serve(Path(sys.argv[1]), 0, SingleLoop)
