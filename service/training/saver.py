"""Takes snapshots of a job and has them written in the background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradwire.errors import JobFailed
from service.training.checkpoint import Checkpoint
from service.training.reporter import Reporter
from service.training.update import Update
from service.training.weights import Weights
from service.training.writer import CheckpointWriter
from workers.layout import Layout, numpy_dtype


@dataclass(slots=True, kw_only=True)
class Saver:
    """Belongs to the trainer's loop; the writer has a thread of its own."""

    writer: CheckpointWriter
    weights: Weights
    update: Update
    reporter: Reporter
    spec_digest: str
    generation: int
    fingerprint: Mapping[str, str]
    every_steps: int
    _told: int = 0
    _last_trouble: str = ""

    def save(self, step: int, metrics: Mapping[str, float], totals: Mapping[str, np.ndarray]) -> None:
        """Copies the state after `step` and hands it to the writer.

        Raises:
            JobFailed: the state is not finite, and the checkpoints before it stay (code `nonfinite`); a newer start of
                the trainer has taken over (code `superseded`).
        """
        self.tell()
        tensors = {**_places(self.weights.layout), **_places(self.update.layout)}
        self.weights.copy_into(tensors)
        self.update.copy_into(tensors)
        bad = [name for name, value in tensors.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
        if bad:
            raise JobFailed(
                f"after step {step} {bad[0]} is not finite; the checkpoint before it stays. Lower the learning rate, "
                "or clip gradients (training.gradientClip)",
                code="nonfinite",
                details="\n".join(bad),
            )
        checkpoint = Checkpoint(
            step=step,
            generation=self.generation,
            spec_digest=self.spec_digest,
            fingerprint=self.fingerprint,
            metrics=dict(metrics),
            totals=dict(totals),
            tensors=tensors,
        )
        self.writer.submit(checkpoint)

    def tell(self) -> None:
        """Reports what the writer has done since."""
        status = self.writer.status()
        if status.count > self._told and status.step is not None:
            self._told = status.count
            self.reporter.update(checkpoint_step=status.step)
            size = f"{status.size_bytes / 1e6:.1f} MB in {status.duration_s:.2f} s"
            self.reporter.emit("checkpoint", f"checkpoint of step {status.step} written ({size})")
        if status.error is not None and status.error.code == "superseded":
            raise status.error
        trouble = status.error.message if status.error is not None else status.warning
        if trouble and trouble != self._last_trouble:
            self.reporter.emit("warning", trouble)
        self._last_trouble = trouble

    def finish(self) -> None:
        """Waits until everything is written; an error is reported, and lost are only later checkpoints."""
        try:
            self.writer.flush()
        except JobFailed as error:
            if error.code == "superseded":
                raise
        self.tell()


def _places(layout: Layout) -> dict[str, np.ndarray]:
    return {tensor.name: np.empty(tensor.shape, numpy_dtype(tensor.dtype)) for tensor in layout.tensors}
