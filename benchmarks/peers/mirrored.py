"""TensorFlow's MultiWorkerMirroredStrategy in a loop of one's own: Keras 3's `fit` does not take this strategy.

TF_CONFIG says who the workers are. Each has one thread for an operation, as Gradwire's workers have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from benchmarks.models import LABEL, MODELS
from benchmarks.order import SHARDS
from benchmarks.peers.batches import Batch, constant, dataset
from benchmarks.peers.command import Job
from benchmarks.peers.trained import Trained

THREADS = 1


class MirroredLoop:
    """One of two workers; both get the same commands at the same time."""

    def __init__(self, job: Job) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self._model = MODELS[job.model]
        self._arrays = self._model.arrays()
        with self._strategy.scope():
            self._trained = Trained(self._model, job.folder)
        self._train = tf.function(self._global_step, autograph=False)
        self._batches: Iterator[Batch] = iter(())
        self.weights_digest = self._trained.digest()

    def reset(self, feed: str) -> None:
        """Begins again, on "shuffled" or "constant" batches."""
        with self._strategy.scope():
            self._trained.reset()
        rank = self._strategy.cluster_resolver.task_id
        if feed == "constant":
            self._batches = constant(self._model, self._arrays, rank, SHARDS)
        else:
            self._batches = iter(self._strategy.distribute_datasets_from_function(self._dataset))

    def run(self, steps: int) -> list[Any]:
        """Trains so many steps; this worker's part of the loss of each."""
        return [self._train(next(self._batches)) for _ in range(steps)]

    def _dataset(self, context: Any) -> Any:
        return dataset(self._model, self._arrays, context.input_pipeline_id, context.num_input_pipelines)

    def _global_step(self, batch: Batch) -> Any:
        return self._strategy.run(self._step, args=(batch,))

    def _step(self, batch: Batch) -> Any:
        inputs = {name: value for name, value in batch.items() if name != LABEL}
        with tf.GradientTape() as tape:
            # Keras divides a mean by the number of workers, so that gradients and losses of all workers add up.
            loss = self._trained.loss(batch[LABEL], self._trained.outputs(inputs))
        gradients = self._trained.gradients(tape, loss)
        self._trained.optimizer.apply(gradients, self._trained.model.trainable_variables)
        return loss
