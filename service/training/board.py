"""What TensorBoard shows of a job: curves, its weights' histograms, hyper-parameters, the graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import structlog
from tensorflow.core.framework import summary_pb2

from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.event_file import EventFile
from service.training.hyperparameters import session_start

TRAIN, VALIDATION = "train", "validation"
BINS = 30
MAX_ELEMENTS = 16_384
"""Of a larger tensor, so many elements evenly over it are looked at."""
EVERY_S = 5.0
"""At least so long between two looks at the weights."""
MAX_SHARE = 1 / 200
"""Of the loop's time, at most so much goes into looks."""

log = structlog.get_logger()


class Board:
    """Belongs to the trainer's loop. What cannot be written costs no training: then it writes nothing more.

    Two runs, train and validation, so that TensorBoard draws their curves into one picture.
    """

    def __init__(self, storage: Storage, job_id: str, generation: int, spec: JobSpec) -> None:
        self._storage = storage
        self._folder = f"jobs/{job_id}/tensorboard"
        self._job_id = job_id
        self._generation = generation
        self._spec = spec
        self._files: dict[str, EventFile] = {}
        self._first_step = 0
        self._due_s = 0.0
        self._is_broken = False

    def begin(self, step: int) -> None:
        """The job begins, or goes on after a step."""
        self._first_step = step
        self._guarded(lambda: self._file(TRAIN).add(step, session_start(self._spec)))

    def curves(self, step: int, run: str, values: Mapping[str, float]) -> None:
        """Points of curves."""
        points = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        if points:
            self._guarded(lambda: self._file(run).add(step, summary_pb2.Summary(value=points)))

    def weights(self, step: int, tensors: Mapping[str, np.ndarray], *, is_last: bool = False) -> None:
        """Histograms of the weights by tensor, if it is time for them."""
        started = time.monotonic()
        if started >= self._due_s or is_last:
            self._guarded(lambda: self._file(TRAIN).add(step, _histograms(tensors)))
            ended = time.monotonic()
            self._due_s = ended + max(EVERY_S, (ended - started) / MAX_SHARE)

    def close(self, graph_def: bytes) -> None:
        """Adds the graph, if there is one, and ends."""

        def end() -> None:
            if graph_def:
                self._file(TRAIN).add_graph(graph_def)
            for file in self._files.values():
                file.close()

        self._guarded(end)
        self._is_broken = True  # what is closed takes nothing more

    def _file(self, run: str) -> EventFile:
        if run not in self._files:
            self._files[run] = EventFile(self._storage, f"{self._folder}/{run}", self._generation, self._first_step)
        return self._files[run]

    def _guarded(self, write: Callable[[], None]) -> None:
        if self._is_broken:
            return
        try:
            write()
        except Exception as error:  # TensorFlow's own kinds of error among them
            self._is_broken = True
            log.warning("tensorboard_not_written", job=self._job_id, why=f"{type(error).__name__}: {error}")


def _histograms(tensors: Mapping[str, np.ndarray]) -> summary_pb2.Summary:
    values = [
        summary_pb2.Summary.Value(tag=name, histo=histogram(tensor))
        for name, tensor in tensors.items()
        if tensor.size and tensor.dtype.kind in "fV"
    ]
    return summary_pb2.Summary(value=values)


def histogram(tensor: np.ndarray) -> summary_pb2.HistogramProto:
    """How a tensor's numbers are spread; those that are not finite are left out."""
    stride = -(-tensor.size // MAX_ELEMENTS)
    sample = tensor.reshape(-1)[::stride].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    counts, edges = np.histogram(sample, bins=BINS)
    return summary_pb2.HistogramProto(
        min=float(sample.min(initial=0.0)),
        max=float(sample.max(initial=0.0)),
        num=float(sample.size),
        sum=float(sample.sum()),
        sum_squares=float(np.dot(sample, sample)),
        # TensorBoard takes the first limit as the left edge of all.
        bucket_limit=edges.tolist(),
        bucket=[0.0, *counts.astype(float).tolist()],
    )
