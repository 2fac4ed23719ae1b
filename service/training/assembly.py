"""Puts the loop together, once a worker is ready and the terms of the job are known."""

from __future__ import annotations

from dataclasses import dataclass

from gradwire.assignment import Assignment
from gradwire.spec.digest import spec_digest
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.blocks import Blocks
from service.training.board import Board
from service.training.changes import Changes
from service.training.checkpoint import Checkpoint
from service.training.crew import Terms
from service.training.examiner import Examiner
from service.training.guard import Guard
from service.training.histograms import Histograms
from service.training.late_copy import LateCopies
from service.training.loop import Loop
from service.training.milestones import Milestones
from service.training.norm import GradientNorm
from service.training.optimizer import KerasUpdate
from service.training.reporter import Reporter
from service.training.rounds import Rounds
from service.training.saver import Saver
from service.training.stopping import Stopper
from service.training.summation import Summation
from service.training.totals import EpochTotals
from service.training.trainee import Trainee
from service.training.update import Update
from service.training.writer import CheckpointWriter
from workers.layout import Layout

MAX_SHOWN = 10
"""Tables in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What a loop is put together with that a trainer has from its start; `changes` is told of every step."""

    spec: JobSpec
    assignment: Assignment
    blocks: Blocks
    changes: Changes
    reporter: Reporter

    def loop(
        self, trainee: Trainee, rounds: Rounds, writer: CheckpointWriter, restored: Checkpoint | None, terms: Terms
    ) -> Loop:
        """The loop of a job, ready for its next step.

        Args:
            restored: the checkpoint that the trainee was set to, if there was one.
            terms: what all workers agree on.
        """
        _compare(restored, terms.fingerprint, self.reporter)
        summation = Summation(terms.contribution, self.blocks)
        trainee.update.attach(summation)
        training, objective, assignment = self.spec.training, trainee.objective, self.assignment
        _tell_of_tables(trainee.update, terms.contribution, training.sparse, self.reporter)
        self.changes.watch(trainee.weights.layout, terms.contribution.tables)
        guard = Guard(training)
        board = Board(Storage(assignment.storage_url), assignment.job_id, assignment.generation, self.spec)
        totals = EpochTotals([head.output for head in objective.losses], objective.metrics)
        milestones = Milestones(
            examiner=Examiner(trainee.evaluator.evaluate) if trainee.evaluator is not None else None,
            evaluate_every=training.evaluate_every,
            stopper=Stopper(training),
            saver=self._saver(trainee, writer, terms),
            guard=guard,
            totals=totals,
            board=board,
            reporter=self.reporter,
        )
        loop = Loop(
            schedule=trainee.rows.schedule,
            rounds=rounds,
            weights=trainee.weights,
            update=trainee.update,
            changes=self.changes,
            average=trainee.average,
            guard=guard,
            summation=summation,
            norm=GradientNorm(summation, self.blocks),
            board=board,
            histograms=Histograms(self.spec.reporting, trainee.rows.schedule, summation, trainee.weights, board),
            totals=totals,
            milestones=milestones,
            reporter=self.reporter,
        )
        if restored is not None:
            loop.resume(restored)
        return loop

    def _saver(self, trainee: Trainee, writer: CheckpointWriter, terms: Terms) -> Saver:
        return Saver(
            writer=writer,
            snapshots=trainee.snapshots,
            sources=trainee.saved,
            copies=LateCopies(trainee.update.watches, self.blocks.copy),
            reporter=self.reporter,
            spec_digest=spec_digest(self.spec),
            generation=self.assignment.generation,
            fingerprint=terms.fingerprint,
            every_steps=self.spec.training.checkpoint.every_steps,
        )


def _tell_of_tables(update: Update, contribution: Layout, sparse: str, reporter: Reporter) -> None:
    names = ", ".join(table.name for table in contribution.tables[:MAX_SHOWN])
    more = len(contribution.tables) - MAX_SHOWN
    names += f" and {more} others" if more > 0 else ""
    if not names:
        return
    if isinstance(update, KerasUpdate):
        message = f"the optimizer has no rule for rows, or an option that has none: all of {names} is updated"
        reporter.emit("warning", f"{message} in every step, by a dense gradient")
    else:
        reporter.emit("state", f"sparse gradients ({sparse}) of {names}")


def _compare(restored: Checkpoint | None, fingerprint: dict[str, str], reporter: Reporter) -> None:
    reporter.update(fingerprint=fingerprint)
    if restored is None:
        return
    changed = [name for name, value in fingerprint.items() if restored.fingerprint.get(name) != value]
    if changed:
        what = ", ".join(f"{name} {restored.fingerprint.get(name)} → {fingerprint[name]}" for name in changed)
        reporter.emit("warning", f"the digest is not comparable with that of an undisturbed run: {what}")
