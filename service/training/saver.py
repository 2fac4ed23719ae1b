"""Takes snapshots of a job and has them written in the background."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gradwire.byte_size import byte_size
from gradwire.errors import JobFailed
from service.training.checkpoint import Checkpoint
from service.training.in_place import views_of
from service.training.late_copy import LateCopies
from service.training.reporter import Reporter
from service.training.snapshots import Snapshots, Tensors
from service.training.weights import Copy
from service.training.writer import FATAL, WORTH_RETRYING, CheckpointWriter, WriterStatus
from workers.full_disk import RETRY_S
from workers.layout import Layout


class Saved(Protocol):
    """What is saved: the weights, the optimiser's state."""

    layout: Layout

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy) -> None:
        """Copies everything to arrays as its layout tells."""

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets everything to a snapshot's."""


@dataclass(frozen=True, slots=True)
class Held:
    """The state after a step, for an evaluation to read and for the writer; whoever does not need it releases it."""

    step: int
    tensors: Tensors
    release: Callable[[], None]
    is_live: bool = False
    """Whether it is no copy: then no step may be committed until it is read."""


@dataclass(slots=True, kw_only=True)
class Saver:
    """Belongs to the trainer's loop; the writer has a thread of its own."""

    writer: CheckpointWriter
    snapshots: Snapshots | None
    """None where the state is too large to be copied: then `write` returns when all is written."""
    sources: tuple[Saved, ...]
    copies: LateCopies
    reporter: Reporter
    spec_digest: str
    generation: int
    fingerprint: Mapping[str, str]
    every_steps: int
    clock: Callable[[], float] = time.monotonic
    _told: int = 0
    _saved_at_s: float = 0.0
    _last_trouble: str = ""

    def hold(self, step: int) -> Held:
        """Copies the state after `step`; waits until there is memory. Nobody else may write the state meanwhile; large
        tables are copied until later, while their updates go on, and no other snapshot is taken before that is done.

        A snapshot that waits to be written, and may be replaced, is given up for it.

        Raises:
            JobFailed: there is no memory at all (code `memory_full`).
        """
        held = self._held(step, waits=True)
        assert held is not None  # it has waited
        return held

    def try_to_hold(self, step: int) -> Held | None:
        """As `hold`; None if there is no memory just now, if the last one is still being copied, or if what waits to be
        written must not be replaced."""
        is_too_soon = self.writer.is_reserved or self.copies.is_under_way
        return None if is_too_soon else self._held(step, waits=False)

    def write(
        self, held: Held, metrics: Mapping[str, float], totals: Mapping[str, np.ndarray], *, is_last: bool = False,
        is_best: bool = False, best_step: int = 0,
    ) -> bool:  # fmt: skip
        """Hands a snapshot to the writer; returns whether it will be written.

        A snapshot that still waits to be written is replaced by this one, but not the last of all (`is_last`), and that
        of the best evaluation (`is_best`) only by that of a better one.

        Raises:
            JobFailed: as `tell`.
        """
        self.tell()
        self._saved_at_s = self.clock()
        checkpoint = Checkpoint(
            step=held.step,
            generation=self.generation,
            spec_digest=self.spec_digest,
            fingerprint=self.fingerprint,
            metrics=dict(metrics),
            totals=dict(totals),
            tensors=held.tensors,
            best_step=best_step,
        )
        is_taken = self.writer.submit(checkpoint, is_forced=is_last, is_best=is_best, release=held.release)
        if held.is_live:
            with contextlib.suppress(JobFailed):  # `tell` has it from the status
                self.writer.flush()
        return is_taken

    def _held(self, step: int, *, waits: bool) -> Held | None:
        snapshots = self.snapshots
        if snapshots is None:
            return Held(step, views_of(self.sources), lambda: None, is_live=True)
        self.copies.wait()
        free = snapshots.take()
        if free is None and self.writer.retract():
            free = snapshots.take()
        tensors = snapshots.take(waits=True) if free is None and waits else free
        if tensors is None:
            return None
        for source in self.sources:
            source.copy_into(tensors, self.copies.copy)
        late = self.copies.start(tensors)

        def release() -> None:
            late.wait()
            snapshots.give_back(tensors)

        return Held(step, late, release)

    @property
    def is_stored(self) -> bool:
        """Whether the storage took the last checkpoint that was tried; also if another try would not help."""
        status = self.writer.status()
        return status.error is None or status.error.code not in WORTH_RETRYING

    def is_retry_due(self) -> bool:
        """Whether the last checkpoint could not be stored, and it is time to try another."""
        return not self.is_stored and self.clock() - self._saved_at_s >= RETRY_S

    def tell(self) -> None:
        """Reports what the writer has done since; called after every step.

        Raises:
            JobFailed: a snapshot was not finite, and the checkpoints before it stay (code `nonfinite`); a newer start
                of the trainer has taken over (code `superseded`).
        """
        status = self.writer.status()
        if status.count > self._told and status.step is not None:
            self._told = status.count
            self.reporter.update(checkpoint_step=status.step)
            self._measure(status)
            what = f"{byte_size(status.size_bytes)} in {status.duration_s:.2f} s"
            self.reporter.emit("checkpoint", f"checkpoint of step {status.step} written ({what})", step=status.step)
        self.reporter.meter.checkpoint_failures = status.failures
        if status.error is not None and status.error.code in FATAL:
            raise status.error
        trouble = status.error.message if status.error is not None else status.warning
        if trouble and trouble != self._last_trouble:
            self.reporter.emit("warning", trouble)
        self._last_trouble = trouble

    def _measure(self, status: WriterStatus) -> None:
        meter = self.reporter.meter
        meter.checkpoints = status.count
        meter.checkpoint_bytes, meter.checkpoint_s = status.size_bytes, status.duration_s
        meter.checkpoint_at_s = status.written_at_s

    def finish(self) -> None:
        """Waits until everything is written; raises as `tell`, and reports other errors: they cost a checkpoint."""
        with contextlib.suppress(JobFailed):  # `tell` has it from the status
            self.writer.flush()
        self.tell()
