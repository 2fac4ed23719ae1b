"""What an epoch has added up so far: losses weighted by samples, and metric counts, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workers.metrics import MetricSet
from workers.program import LOSS


class EpochTotals:
    """As `keras.Model.fit` reports an epoch: the mean of batch losses weighted by samples, and streaming metrics."""

    def __init__(self, outputs: Sequence[str], metrics: MetricSet) -> None:
        self._names = ["loss"] if len(outputs) == 1 else ["loss", *(f"{output}_loss" for output in outputs)]
        self._metrics = metrics
        self.clear()

    @property
    def names(self) -> list[str]:
        """All names that `values` reports."""
        return [*self._names, *(item.name for item in self._metrics.items)]

    def clear(self) -> None:
        self._samples = 0.0
        self._losses = np.zeros(len(self._names))
        self._counts = [np.zeros(tensor.shape) for tensor in self._metrics.tensors]

    def add(self, batch: Mapping[str, np.ndarray], samples: int) -> None:
        """Adds one batch: its losses and metric counts, by the names of a contribution's tensors."""
        self._samples += samples
        self._losses += batch[LOSS][: len(self._names)] * samples
        for total, tensor in zip(self._counts, self._metrics.tensors, strict=True):
            np.add(total, batch[tensor.name], out=total)

    def values(self) -> dict[str, float]:
        """Loss and metrics so far, empty before the first batch."""
        if not self._samples:
            return {}
        losses = dict(zip(self._names, (self._losses / self._samples).tolist(), strict=True))
        return {**losses, **self._metrics.read(self._counts)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be put in a checkpoint."""
        counts = {f"metric/{index}": total.copy() for index, total in enumerate(self._counts)}
        return {"samples": np.array(self._samples), "losses": self._losses.copy(), **counts}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._samples = float(arrays["samples"])
        self._losses = arrays["losses"].copy()
        self._counts = [arrays[f"metric/{index}"].copy() for index in range(len(self._counts))]
