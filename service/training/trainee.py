"""What a trainer trains: everything that is made from the specification before the first worker is let in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Self

from gradwire.assignment import Assignment
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.average import AVERAGE, MovingAverage, averaged
from service.training.blocks import Blocks
from service.training.checkpoint import Checkpoint
from service.training.evaluation import Evaluator
from service.training.exchange import SharedMemoryServer
from service.training.groups import Groups
from service.training.in_place import is_too_large
from service.training.reporter import Reporter
from service.training.saver import Saved
from service.training.snapshots import EVALUATED, MAX_BUFFERS, Snapshots
from service.training.stopping import require_metric
from service.training.totals import EpochTotals
from service.training.update import Update, make_update
from service.training.weights import Weights
from workers.exchange.room import Room
from workers.layout import Layout
from workers.models.objects import make_optimizer
from workers.models.piecewise import piecewise
from workers.models.precision import exceptions
from workers.objective import input_dtypes, make_objective
from workers.program import Objective
from workers.rows import Rows
from workers.variables import ModelVariables

MAX_SHOWN = 10
"""Layers in a message."""

SHOWN = ("weights", "state")
"""Groups of a checkpoint's tensors that make up a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """Data, model, weights and optimiser of a job, and what is kept beside them."""

    rows: Rows
    objective: Objective
    variables: ModelVariables
    update: Update
    average: MovingAverage | None
    weights: Weights
    saved: tuple[Saved, ...]
    """All of these that a checkpoint holds."""
    snapshots: Snapshots | None
    evaluator: Evaluator | None

    @classmethod
    def of(
        cls,
        rows: Rows,
        spec: JobSpec,
        assignment: Assignment,
        server: SharedMemoryServer,
        blocks: Blocks,
        reporter: Reporter,
    ) -> Self:
        """Everything that needs no worker, and every error that can be found without one.

        Raises:
            JobFailed: the data, the model, an option, or their fit is at fault, each named.
        """
        training = spec.training
        with piecewise():
            objective = make_objective(spec, assignment, Storage(assignment.storage_url), rows.arrays)
        _warn_of_precision(objective, training.precision, reporter)
        _check_monitors(objective, spec)
        variables = ModelVariables.of(objective.model)
        weights = Weights(server, variables)
        groups = Groups.of(training, variables.trained_paths)
        make = partial(make_optimizer, spec.optimizer, training.gradient_clip)
        update = make_update(make, groups, variables, weights, blocks, is_lazy=training.sparse == "lazy")
        reporter.update(total_steps=rows.schedule.total_steps)
        if rows.padding:
            reporter.emit("state", str(rows.padding))
        average = MovingAverage.of(training, variables, weights, blocks)
        saved = tuple(part for part in (weights, update, average) if part is not None)
        return cls(
            rows=rows,
            objective=objective,
            variables=variables,
            update=update,
            average=average,
            weights=weights,
            saved=saved,
            snapshots=_snapshots(saved, reporter, most=MAX_BUFFERS + (EVALUATED if rows.validation is not None else 0)),
            evaluator=_evaluator(spec, rows, objective, variables, is_averaged=average is not None),
        )

    @property
    def shown(self) -> tuple[str, ...]:
        """The groups of a checkpoint's tensors that evaluations and exports take."""
        return (*SHOWN, *[AVERAGE] * (self.average is not None))

    def show(self, checkpoint: Checkpoint) -> None:
        """Sets what evaluations and exports take to a checkpoint's tensors; nothing is trained after that."""
        for part in (self.weights, self.average):
            if part is not None:
                part.restore(checkpoint.tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Sets everything to a checkpoint's tensors."""
        for part in self.saved:
            part.restore(checkpoint.tensors)


def _evaluator(
    spec: JobSpec, rows: Rows, objective: Objective, variables: ModelVariables, *, is_averaged: bool
) -> Evaluator | None:
    if rows.validation is None:
        return None
    trained = [averaged(path) for path in variables.trained_paths] if is_averaged else []
    return Evaluator(
        objective,
        variables,
        [*trained, *variables.names[len(trained) :]],
        rows.batches(rows.validation, objective.heads, input_dtypes(objective)),
        rows.validation,
        # What a worker cannot hold at once, the trainer need not either.
        -(-spec.training.global_batch // spec.training.accumulation),
        spec.training.seed,
        rows.trace_bound(objective.heads, sizes=2),  # the last batch may be shorter
    )


def _snapshots(saved: tuple[Saved, ...], reporter: Reporter, most: int) -> Snapshots | None:
    state = Layout.of(tensor for part in saved for tensor in part.layout.tensors)
    if is_too_large(state.total_bytes, Room.now()):
        message = "the state is too large to be copied: steps wait for each checkpoint and each evaluation"
        reporter.emit("warning", message)
        return None
    return Snapshots(state, most)


def _warn_of_precision(objective: Objective, policy: str, reporter: Reporter) -> None:
    others = exceptions(objective.model, policy)
    if others:
        shown = ", ".join(others[:MAX_SHOWN]) + ", …" * (len(others) > MAX_SHOWN)
        reporter.emit("warning", f"these layers do not compute as training.precision {policy} says: {shown}")


def _check_monitors(objective: Objective, spec: JobSpec) -> None:
    names = EpochTotals([head.output for head in objective.losses], objective.metrics).names
    known, training = dict.fromkeys(names, 0.0), spec.training
    require_metric(known, training.checkpoint.monitor, "training.checkpoint.monitor")
    if training.early_stopping is not None:
        require_metric(known, training.early_stopping.monitor, "training.earlyStopping.monitor")
