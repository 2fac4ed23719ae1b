"""What comes due between steps: evaluations, and checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from gradwire.progress import Best
from service.training.board import VALIDATION, Board
from service.training.guard import Guard
from service.training.reporter import Reporter
from service.training.saver import Held, Saver
from service.training.stopping import Stopper
from service.training.totals import EpochTotals


class Examination(Protocol):
    """Evaluates a snapshot beside the loop; see `Examiner`."""

    @property
    def is_done(self) -> bool: ...

    def begin(self, step: int, tensors: Mapping[str, np.ndarray]) -> None: ...

    def result(self) -> EpochTotals: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where the loop is: so many steps are committed, the last of them in this epoch."""

    step: int
    epoch: int
    is_epoch_end: bool
    is_last: bool

    def is_due(self, every_steps: int) -> bool:
        """Whether something happens now that happens every so many steps; 0 means at each epoch's end."""
        return self.is_last or (self.step % every_steps == 0 if every_steps else self.is_epoch_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An evaluation under way: the moment it is of, the snapshot it reads, and what else a checkpoint of it holds."""

    moment: Moment
    held: Held
    totals: Mapping[str, np.ndarray]
    is_checkpoint: bool
    """Whether a checkpoint was due at that moment as well."""


@dataclass(slots=True, kw_only=True)
class Milestones:
    """Belongs to the trainer's loop, which calls `evaluate` and then `save` after each step.

    Steps go on while a snapshot is evaluated, and still every decision is as if they had not: an evaluation that may
    end the job is waited for at once, any other before the next one begins, and no checkpoint of a later step is
    taken before its result is there. So what a checkpoint holds depends on its step alone.
    """

    examiner: Examination | None
    evaluate_every: int
    stopper: Stopper
    saver: Saver
    guard: Guard
    totals: EpochTotals
    """The epoch's, which the loop adds up."""
    board: Board
    reporter: Reporter
    saved_step: int = 0
    _pending: Pending | None = None
    _evaluated_step: int = 0
    _is_overdue: bool = False
    _saved_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Best | None:
        """The best evaluation so far."""
        stopper = self.stopper
        return Best(stopper.best_step, stopper.monitor, stopper.best_value) if stopper.best_step else None

    def evaluate(self, now: Moment) -> bool:
        """Begins the evaluation that is due and takes results that are there; returns whether the job is over."""
        if self._pending is not None and self.examiner is not None and self.examiner.is_done:
            self.settle()
        if self.examiner is not None and now.is_due(self.evaluate_every):
            self.settle()
            is_decisive = self.stopper.is_decisive or now.is_last
            if self._begin(self.examiner, now).held.is_live or is_decisive:
                self.settle()
        return self.stopper.is_over

    def save(self, now: Moment, *, is_end: bool) -> None:
        """Takes the checkpoint that is due, or was, unless an evaluation is under way; `evaluate` sees to its own."""
        if now.step != self._evaluated_step:
            self._is_overdue |= self.saver.is_retry_due() or replace(now, is_last=is_end).is_due(self.saver.every_steps)
            if self._is_overdue and self._pending is None:
                self._save(now.step, {} if self.examiner is not None else self.totals.values(), is_last=is_end)
        self.saver.tell()

    def save_now(self, step: int) -> None:
        """A checkpoint of the last committed step, off the usual times."""
        self.settle()
        if step and step != self.saved_step:
            self._save(step, {}, is_last=True)

    def save_again(self, step: int) -> None:
        """Another try of the last checkpoint, of the same state."""
        self._save(step, self._saved_metrics, is_last=True)
        self.saver.finish()

    def settle(self) -> None:
        """Waits for the evaluation that is under way, if there is one, and takes its result.

        The snapshot that it has read becomes a checkpoint if one was due, or if it is the best so far.
        """
        pending, self._pending = self._pending, None
        if pending is None or self.examiner is None:
            return
        moment = pending.moment
        if not self.examiner.is_done:
            self.reporter.update(phase="evaluating")
        try:
            metrics = self.examiner.result().values()
            verdict = self.stopper.judge(moment.step, metrics)
        except BaseException:
            pending.held.release()
            raise
        finally:
            self.reporter.update(phase="training")
        self._report(moment, metrics)
        if verdict.is_best or pending.is_checkpoint or verdict.is_over:
            is_last = moment.is_last or verdict.is_over
            self._write(pending.held, metrics, pending.totals, is_last=is_last, is_best=verdict.is_best)
        else:
            pending.held.release()

    def give_up(self) -> None:
        """The job fails: a checkpoint that waits for its evaluation is still written."""
        with contextlib.suppress(Exception):  # the first error is the one to report
            self.settle()

    def resume(self, step: int, totals: Mapping[str, np.ndarray]) -> None:
        """Takes over from the checkpoint of a step."""
        self.saved_step = step
        self.stopper.restore(totals["stopper"])
        self.reporter.update(best=self.best)

    def _begin(self, examiner: Examination, now: Moment) -> Pending:
        is_checkpoint = self._is_overdue or self.saver.is_retry_due() or now.is_due(self.saver.every_steps)
        self._is_overdue, self._evaluated_step = False, now.step
        started = time.perf_counter()
        held = self.saver.hold(now.step)
        self.reporter.meter.saved(time.perf_counter() - started)
        self._pending = Pending(moment=now, held=held, totals=self._totals(), is_checkpoint=is_checkpoint)
        examiner.begin(now.step, held.tensors)
        return self._pending

    def _totals(self) -> dict[str, np.ndarray]:
        return self.totals.arrays() | {"guard": self.guard.array()}

    def _report(self, moment: Moment, metrics: dict[str, float]) -> None:
        self.reporter.update(eval_metrics=metrics, best=self.best)
        message = f"evaluated after step {moment.step}"
        self.reporter.emit("evaluation", message, metrics=metrics, step=moment.step, epoch=moment.epoch)
        self.board.curves(moment.step, VALIDATION, metrics)

    def _save(self, step: int, metrics: dict[str, float], *, is_last: bool) -> None:
        started = time.perf_counter()
        held = self.saver.hold(step) if is_last else self.saver.try_to_hold(step)
        self._is_overdue = held is None
        if held is not None:
            self._write(held, metrics, self._totals(), is_last=is_last)
        self.reporter.meter.saved(time.perf_counter() - started)

    def _write(
        self, held: Held, metrics: dict[str, float], totals: Mapping[str, np.ndarray], *, is_last: bool,
        is_best: bool = False,
    ) -> None:  # fmt: skip
        self._saved_metrics = metrics
        totals = {**totals, "stopper": self.stopper.array()}
        best_step = self.stopper.best_step
        if self.saver.write(held, metrics, totals, is_last=is_last, is_best=is_best, best_step=best_step):
            self.saved_step = held.step
        else:
            self._is_overdue = True
