"""Keras's own `model.fit` in one process, two threads, as its documentation has it.

python -m benchmarks.peers.keras_fit SOCKET
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from benchmarks.models import LABEL, MODELS
from benchmarks.peers.batches import Batch, constant, dataset
from benchmarks.peers.command import Job, serve
from benchmarks.peers.trained import Trained

THREADS = 2


class BatchLosses(keras.callbacks.Callback):
    """Keeps the loss of each batch; Keras tells the mean so far."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []
        self._sum = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        total = logs["loss"] * (batch + 1)
        self.values.append(tf.constant(total - self._sum))
        self._sum = total


class FitLoop:
    """`fit` is called once for each command, with as many steps."""

    def __init__(self, job: Job) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        self._model = MODELS[job.model]
        self._arrays = self._model.arrays()
        self._trained = Trained(self._model, job.folder)
        self._trained.model.compile(optimizer=self._trained.optimizer, loss=self._trained.loss)
        self._batches: Iterator[Batch] = iter(())
        self.weights_digest = self._trained.digest()

    def reset(self, feed: str) -> None:
        """Begins again, on "shuffled" or "constant" batches."""
        self._trained.reset()
        make = constant if feed == "constant" else dataset
        self._batches = iter(make(self._model, self._arrays, 0, 1))

    def run(self, steps: int) -> list[Any]:
        """Trains so many steps; the loss of each."""
        losses = BatchLosses()
        self._trained.model.fit(self._pairs(steps), steps_per_epoch=steps, verbose=0, callbacks=[losses])
        return losses.values

    def _pairs(self, steps: int) -> Iterator[tuple[Any, Any]]:
        for _ in range(steps):
            batch = next(self._batches)
            yield {name: value for name, value in batch.items() if name != LABEL}, batch[LABEL]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), 0, FitLoop)
