"""The training loop: step after step from the last committed one to the last of all."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradwire.errors import JobFailed
from gradwire.telemetry import STEP_PHASES
from service.training.average import MovingAverage
from service.training.board import TRAIN, Board
from service.training.changes import NO_ROWS, Changes, Rows
from service.training.checkpoint import Checkpoint
from service.training.guard import Guard
from service.training.histograms import Histograms
from service.training.milestones import Milestones, Moment
from service.training.norm import GradientNorm
from service.training.reporter import Reporter
from service.training.rounds import Contribution, Rounds
from service.training.summation import StepSum, Summation
from service.training.totals import EpochTotals
from service.training.update import Update
from service.training.weights import Weights
from workers.data.schedule import Schedule
from workers.program import LOSS, NONFINITE
from workers.tree import Node

REPORT_S = 0.5
"""At least so long between two progress events within an epoch."""
EPOCH_REPORT_S = 0.05
"""Likewise at the ends of epochs, which may be shorter than a millisecond."""
TOLD_EPOCHS = 1000
"""A job of so many epochs at most reports the end of every one."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a step was made of, and the seconds it took to gather, to add and to apply."""

    contributions: Mapping[Node, Contribution]
    gather_s: float
    sum_s: float
    apply_s: float


@dataclass(slots=True, kw_only=True)
class Loop:
    """All state of the loop in one block; the trainer's main thread is its only writer.

    `step` counts committed steps: it is the number of the step under way, and the version of the weights. The next step
    is begun before a committed one is counted, evaluated, saved and reported, so that workers do not wait for that.
    """

    schedule: Schedule
    rounds: Rounds
    weights: Weights
    update: Update
    changes: Changes
    average: MovingAverage | None
    guard: Guard
    summation: Summation
    norm: GradientNorm
    board: Board
    histograms: Histograms
    totals: EpochTotals
    milestones: Milestones
    reporter: Reporter
    step: int = 0
    phase_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEP_PHASES, 0.0))
    _phase_steps: int = 0
    _examples: int = 0
    _window_started: float = 0.0
    _reported_at: float = 0.0
    _told_skipped: int = 0

    def run(self) -> None:
        """Trains to the end, or to an early stop.

        Raises:
            JobFailed: a shard, the data, the numbers or the storage ended the job; the last checkpoint stays.
        """
        self._window_started = time.monotonic()
        try:
            self._run()
        except JobFailed:
            self.milestones.give_up()
            raise

    def _run(self) -> None:
        is_over = self._is_over
        if is_over:
            self._report()
        else:
            self._begin()
        while not is_over:
            self.rounds.interrupt()
            committed = self._commit()
            is_last = self.step == self.schedule.total_steps
            if not is_last:
                # What follows needs no more than the weights as they are now, and nobody writes them meanwhile.
                self._begin()
            self._count(committed)
            is_over = self._after_step() or is_last

    def resume(self, checkpoint: Checkpoint) -> None:
        """Takes the step and the epoch's totals of a checkpoint, whose tensors are restored already."""
        self.step = checkpoint.step
        self.milestones.resume(checkpoint.step, checkpoint.totals)
        if "guard" in checkpoint.totals:
            self.guard.restore(checkpoint.totals["guard"])
            self._told_skipped = self.guard.skipped
        is_within_epoch = self.step % self.schedule.steps_per_epoch > 0
        if is_within_epoch or self._is_over:
            self.totals.restore(checkpoint.totals)

    @property
    def _is_over(self) -> bool:
        return self.step >= self.schedule.total_steps or self.milestones.stopper.is_over

    def _begin(self) -> None:
        self.rounds.begin(self.step, self._shards(self.step), self.guard.scale)
        self.update.prepare()

    def _commit(self) -> Committed:
        """Waits for the contributions of the step under way, and makes its new weights."""
        started = time.perf_counter()
        contributions = self.rounds.collect()
        gathered = time.perf_counter()
        total = self._total(contributions)
        self.summation.add_up(total)
        self._look_at_norm(total)
        self.histograms.look_at_gradients(self.step + 1, total)
        summed = time.perf_counter()
        changed: Sequence[Rows] = [NO_ROWS] * len(self.summation.layout.tables)
        if self.guard.accepts(self.step, self.summation.tensors):
            self.update.apply(total)
            if self.average is not None:
                self.average.update()
            self.weights.merge(self._state_changes())
            changed = self.update.changed
        else:
            self.reporter.meter.nonfinite += max(int(self.summation.tensors[NONFINITE][0]), 1)
        self.changes.committed(self.step + 1, changed)
        applied = time.perf_counter()
        self.step += 1
        return Committed(contributions, gathered - started, summed - gathered, applied - summed)

    def _after_step(self) -> bool:
        """Evaluates, reports and saves what is due; returns whether to stop early."""
        now = Moment(
            step=self.step,
            epoch=self._epoch(),
            is_epoch_end=self.schedule.is_last_of_epoch(self.step - 1),
            is_last=self.step == self.schedule.total_steps,
        )
        should_stop = self.milestones.evaluate(now)
        is_end = now.is_last or should_stop
        pause_s = self._epoch_pause_s if now.is_epoch_end else REPORT_S
        if is_end or time.monotonic() - self._reported_at > pause_s:
            self._report()
        self.histograms.look_at_weights(self.step, is_last=is_end)
        self.milestones.save(now, is_end=is_end)
        if now.is_epoch_end and not is_end:
            self.totals.clear()
        return should_stop

    @property
    def _epoch_pause_s(self) -> float:
        epochs = self.schedule.total_steps / self.schedule.steps_per_epoch
        return -1.0 if epochs <= TOLD_EPOCHS else EPOCH_REPORT_S

    def _shards(self, step: int) -> int:
        """How many of a step's shards have samples: all, but in a last batch that is not full."""
        return -(-self.schedule.batch_samples(step) // self.schedule.shard_capacity)

    def _total(self, contributions: Mapping[Node, Contribution]) -> StepSum:
        sections = {node: item.slots.sections(item.done.key.slot) for node, item in contributions.items()}
        tables = {node: item.slots.tables(item.done.key.slot) for node, item in contributions.items()}
        return StepSum(Node(0, self._shards(self.step)), sections, tables)

    def _state_changes(self) -> Mapping[str, np.ndarray]:
        return {name: value for name, value in self.summation.tensors.items() if name.startswith("state/")}

    def _look_at_norm(self, total: StepSum) -> None:
        norm = self.norm.look(total)
        if norm is not None and math.isfinite(norm):  # that of a skipped step is not
            self.reporter.meter.gradient_norm = norm

    def _epoch(self) -> int:
        """From 1, as people count: the epoch of the last committed step."""
        return self.schedule.epoch_of(max(self.step - 1, 0)) + 1

    def _count(self, committed: Committed) -> None:
        """Adds the step to the epoch's totals, and its times.

        The slowest worker's data and computing count, since workers run beside each other; the rest is exchange.
        """
        samples = self.schedule.batch_samples(self.step - 1)
        if math.isfinite(float(self.summation.tensors[LOSS][0])):  # that of a skipped step may not be
            self.totals.add(self.summation.tensors, samples)
        self._examples += samples
        by_worker: dict[str, tuple[float, float]] = {}
        for item in committed.contributions.values():
            data_s, compute_s = by_worker.get(item.worker_id, (0.0, 0.0))
            by_worker[item.worker_id] = (data_s + item.done.data_s, compute_s + item.done.compute_s)
        data_s, compute_s = max(by_worker.values(), key=sum)
        exchange_s = max(committed.gather_s - data_s - compute_s, 0.0)
        seconds_by_phase = (data_s, compute_s, exchange_s, committed.sum_s, committed.apply_s)
        for phase, seconds in zip(STEP_PHASES, seconds_by_phase, strict=True):
            self.phase_s[phase] += seconds
        self._phase_steps += 1
        self.reporter.meter.committed(self.step, samples, seconds_by_phase)

    def _report(self) -> None:
        now = time.monotonic()
        metrics = self.totals.values()
        speed = self._examples / max(now - self._window_started, 1e-9)
        phases = {phase: seconds / max(self._phase_steps, 1) * 1e3 for phase, seconds in self.phase_s.items()}
        values = {"metrics": metrics, "examples_per_second": speed, "phase_ms": phases}
        workers = self.rounds.crew.views
        self.reporter.meter.learning_rate = self.update.learning_rate()
        self.reporter.update(step=self.step, epoch=self._epoch(), workers=workers, **values)
        self.reporter.emit("progress", f"step {self.step} of {self.schedule.total_steps}", **values)
        self._draw(metrics, speed, phases)
        if self.guard.skipped > self._told_skipped:
            self._told_skipped = self.guard.skipped
            self.reporter.emit("warning", f"gradients were not finite up to step {self.step}: {self.guard}")
        self._reported_at = now

    def _draw(self, metrics: Mapping[str, float], speed: float, phases: Mapping[str, float]) -> None:
        meter = self.reporter.meter
        curves = {
            "learning_rate": meter.learning_rate,
            "gradient_norm": meter.gradient_norm,
            "examples_per_second": speed,
        }
        by_phase = {f"phase_ms/{phase}": value for phase, value in phases.items()}
        self.board.curves(self.step, TRAIN, {**metrics, **curves, **by_phase})
