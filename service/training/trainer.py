"""The trainer: one start of one job, from its assignment to its outcome."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import methodcaller

import structlog

from gradwire.assignment import Assignment, ExchangeAddress
from gradwire.errors import GradwireError, JobFailed
from gradwire.progress import ErrorView, Outcome, Progress
from gradwire.spec.digest import spec_digest
from gradwire.spec.job import MAX_WORKERS, JobSpec
from gradwire.storage import Storage
from service.training.average import MovingAverage
from service.training.best import BestWeights
from service.training.blocks import Blocks
from service.training.board import Board
from service.training.changes import Changes
from service.training.checkpoint import Checkpoint, CheckpointFolder
from service.training.crew import Crew
from service.training.digest import weights_digest
from service.training.evaluation import Evaluator
from service.training.exchange import SharedMemoryServer
from service.training.export import export_model
from service.training.fence import Fence
from service.training.groups import Groups
from service.training.guard import Guard
from service.training.in_place import is_too_large
from service.training.loop import Loop
from service.training.norm import GradientNorm
from service.training.optimizer import KerasUpdate
from service.training.patience import until_stored
from service.training.reporter import Reporter
from service.training.rounds import Rounds
from service.training.saver import Saved, Saver
from service.training.snapshots import Snapshots
from service.training.stopping import Stopper, is_better_when_larger, require_metric
from service.training.summation import Summation
from service.training.totals import EpochTotals
from service.training.update import Update, make_update
from service.training.weights import SEGMENT, Weights
from service.training.writer import CheckpointWriter
from service.training.xla_choice import XlaChoice
from workers.denormals import flush_denormals
from workers.exchange.messages import MEASURE, Welcome
from workers.exchange.room import Room
from workers.layout import Layout
from workers.models.objects import make_optimizer
from workers.models.piecewise import piecewise
from workers.models.precision import exceptions
from workers.objective import input_dtypes, make_objective
from workers.program import Objective
from workers.rows import Rows
from workers.source_code import failure_within
from workers.variables import ModelVariables

MAX_SHOWN = 10
"""Layers, or tables, in a message."""

SUCCESSOR_S = 1.0
"""How often a trainer without workers asks whether a newer one has been started."""

log = structlog.get_logger()


class Cancelled(Exception):
    """Somebody cancelled the job."""


@dataclass(frozen=True, slots=True)
class _Model:
    """What is made from the specification before the first worker is let in."""

    rows: Rows
    objective: Objective
    variables: ModelVariables
    update: Update
    average: MovingAverage | None
    best: BestWeights | None
    weights: Weights
    saved: tuple[Saved, ...]
    """All of these that a checkpoint holds."""
    snapshots: Snapshots | None
    evaluator: Evaluator | None


class Trainer:
    """Owns weights and optimiser state. `run` belongs to one thread; the other calls may come from others."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._spec = JobSpec.model_validate_json(assignment.spec_json)
        self._storage = Storage(assignment.storage_url)
        self._fence = Fence(self._storage, assignment.job_id, assignment.generation)
        self._xla_choice = XlaChoice(self._storage, assignment.job_id, self._fence)
        self._reporter = Reporter()
        self._cancelled = threading.Event()
        self._changes: queue.SimpleQueue[Callable[[Rounds], None]] = queue.SimpleQueue()
        self._server = SharedMemoryServer(assignment)
        self._crew = Crew(
            self._server, self._report_worker, assignment.workers or MAX_WORKERS, meter=self._reporter.meter
        )  # fmt: skip
        self._blocks = Blocks()
        self._news = Changes()
        self._looked_s = time.monotonic()
        self._is_exported = False
        flight = self._serve_flight(assignment) if assignment.exchange_host else ""
        address = ExchangeAddress(node=assignment.node, folder=str(self._server.folder), flight=flight)
        self.exchange_address = str(address)

    def _serve_flight(self, assignment: Assignment) -> str:
        # Only jobs with workers on other nodes load it.
        from service.training.flight_server import FlightServer  # noqa: PLC0415

        remote = FlightServer(assignment, assignment.exchange_host, lambda: self._server.memory(SEGMENT), self._news)
        self._server.join(remote)
        return remote.address

    def progress(self, since: int) -> Progress:
        return self._reporter.progress(since)

    def cancel(self) -> None:
        self._cancelled.set()

    def dismiss(self, worker_ids: Sequence[str]) -> None:
        """The job shall do without these workers: each finishes its present order, and ends."""
        for worker_id in worker_ids:
            self._changes.put(methodcaller("dismiss", worker_id))

    def scale(self, workers: int) -> None:
        """So many workers get orders from now on; the others are spares."""
        self._changes.put(methodcaller("resize", workers))

    def run(self) -> Outcome:
        """Trains the job to its end; every end is an outcome, none an exception."""
        flush_denormals()
        try:
            self._train()
            return Outcome(state="SUCCEEDED")
        except Cancelled:
            return Outcome(state="CANCELLED")
        except GradwireError as error:
            return self._failed(ErrorView(code=error.code, message=error.message, details=error.details))
        except Exception as error:
            if own := failure_within(error):
                return self._failed(ErrorView(code=own.code, message=own.message, details=own.details))
            message = f"the trainer failed: {type(error).__name__}: {error}"
            return self._failed(ErrorView(code="internal", message=message, details=traceback.format_exc()))
        finally:
            self._crew.dismiss("the job has ended")
            self._server.close()
            self._blocks.close()

    def _failed(self, error: ErrorView) -> Outcome:
        return Outcome(state="FAILED", error=replace(error, step=self._reporter.step))

    def _train(self) -> None:
        self._fence.check()
        self._reporter.update(phase="building the model")
        model = self._prepare()
        folder = CheckpointFolder(self._storage, self._assignment.job_id)
        restored = self._restore(folder, model)
        xla = self._xla(restored)
        self._crew.open(Welcome(segment=SEGMENT, layout_digest=model.weights.layout.digest(), xla=xla))
        rounds = Rounds(
            self._server, self._crew, lambda: self._interrupt(rounds), model.rows.samples, self._reporter.meter
        )
        self._reporter.update(phase="waiting for workers")
        rounds.gather(self._spec.resources.min_workers)
        if xla == MEASURE:
            self._record_xla()
        checkpoints = self._spec.training.checkpoint
        writer = CheckpointWriter(
            folder, keep=checkpoints.keep, monitor=checkpoints.monitor, mode=checkpoints.mode
        )  # fmt: skip
        try:
            loop = self._loop(model, rounds, writer, restored)
            self._run(loop, model)
        finally:
            writer.close()

    def _xla(self, restored: Checkpoint | None) -> str:
        """Whether programs are compiled by XLA, or that a worker shall measure it."""
        if self._spec.training.xla != "auto":
            return self._spec.training.xla
        recorded = self._xla_choice.recorded()
        return restored.fingerprint.get("xla", recorded) if restored and recorded == MEASURE else recorded

    def _record_xla(self) -> None:
        terms = self._crew.terms
        assert terms is not None  # gather waited for the worker that measured
        xla = terms.fingerprint["xla"]
        self._xla_choice.record(xla)
        took = ", ".join(f"{name} {ms:.2f} ms" for name, ms in sorted(terms.xla_ms.items()))
        self._reporter.emit("state", f"xla is {xla} for the rest of the job (a shard's gradient took: {took})")

    def _prepare(self) -> _Model:
        """Everything that needs no worker, and every error that can be found without one."""
        rows = Rows.open(self._spec, self._assignment)
        with piecewise():
            objective = make_objective(self._spec, self._assignment, self._storage, rows.train.arrays)
        self._warn_of_precision(objective)
        variables = ModelVariables.of(objective.model)
        evaluator = None
        if rows.validation is not None:
            batches = rows.batches(rows.validation, objective.heads, input_dtypes(objective))
            # What a worker cannot hold at once, the trainer need not either.
            batch_size = -(-self._spec.training.global_batch // self._spec.training.accumulation)
            evaluator = Evaluator(objective, batches, rows.validation.rows, batch_size)
        self._check_monitors(objective)
        weights = Weights(self._server, variables)
        groups = Groups.of(self._spec.training, variables.trained_paths)
        make = partial(make_optimizer, self._spec.optimizer, self._spec.training.gradient_clip)
        is_lazy = self._spec.training.sparse == "lazy"
        update = make_update(make, groups, variables, weights, self._blocks, is_lazy=is_lazy)
        self._reporter.update(total_steps=rows.schedule.total_steps)
        average = MovingAverage.of(self._spec.training, variables, weights, self._blocks)
        best = BestWeights.of(self._spec.training, variables, weights, average, self._blocks)
        saved = tuple(part for part in (weights, update, average, best) if part is not None)
        state = Layout.of(tensor for part in saved for tensor in part.layout.tensors)
        is_copied = not is_too_large(state.total_bytes, Room.now())
        if not is_copied:
            self._reporter.emit("warning", "the state is too large to be copied: steps wait for each checkpoint")
        snapshots = Snapshots(state) if is_copied else None
        return _Model(rows, objective, variables, update, average, best, weights, saved, snapshots, evaluator)

    def _warn_of_precision(self, objective: Objective) -> None:
        policy = self._spec.training.precision
        others = exceptions(objective.model, policy)
        if others:
            shown = ", ".join(others[:MAX_SHOWN]) + ", …" * (len(others) > MAX_SHOWN)
            self._reporter.emit("warning", f"these layers do not compute as training.precision {policy} says: {shown}")

    def _check_monitors(self, objective: Objective) -> None:
        names = EpochTotals([head.output for head in objective.losses], objective.metrics).names
        known, training = dict.fromkeys(names, 0.0), self._spec.training
        require_metric(known, training.checkpoint.monitor, "training.checkpoint.monitor")
        if training.early_stopping is not None:
            require_metric(known, training.early_stopping.monitor, "training.earlyStopping.monitor")

    def _restore(self, folder: CheckpointFolder, model: _Model) -> Checkpoint | None:
        found = folder.restore_latest()
        for warning in found.warnings:
            self._reporter.emit("warning", warning)
        if found.checkpoint is not None:
            for part in model.saved:
                part.restore(found.checkpoint.tensors)
            step = found.checkpoint.step
            self._reporter.update(step=step, checkpoint_step=step)
            self._reporter.emit("checkpoint", f"goes on from the checkpoint of step {step}")
        return found.checkpoint

    def _loop(self, model: _Model, rounds: Rounds, writer: CheckpointWriter, restored: Checkpoint | None) -> Loop:
        terms = self._crew.terms
        assert terms is not None  # gather waited for the first ready worker, which set them
        self._compare(restored, terms.fingerprint)
        summation = Summation(terms.contribution, self._blocks)
        model.update.attach(summation)
        self._tell_of_tables(model.update, terms.contribution)
        self._news.watch(model.weights.layout, terms.contribution.tables)
        training, objective = self._spec.training, model.objective
        totals = EpochTotals([head.output for head in objective.losses], objective.metrics)
        rule = training.early_stopping
        stopper = Stopper(rule, is_max=rule is not None and is_better_when_larger(rule.monitor))
        saver = Saver(
            writer=writer,
            snapshots=model.snapshots,
            sources=model.saved,
            copy=self._blocks.copy,
            reporter=self._reporter,
            spec_digest=spec_digest(self._spec),
            generation=self._assignment.generation,
            fingerprint=terms.fingerprint,
            every_steps=training.checkpoint.every_steps,
        )
        loop = Loop(
            schedule=model.rows.schedule,
            rounds=rounds,
            weights=model.weights,
            update=model.update,
            changes=self._news,
            average=model.average,
            best=model.best,
            guard=Guard(training),
            summation=summation,
            norm=GradientNorm(summation, self._blocks),
            board=Board(self._storage, self._assignment.job_id, self._assignment.generation, self._spec),
            totals=totals,
            evaluator=model.evaluator,
            evaluate_every=training.evaluate_every,
            stopper=stopper,
            saver=saver,
            reporter=self._reporter,
        )
        if restored is not None:
            loop.resume(restored)
        return loop

    def _tell_of_tables(self, update: Update, contribution: Layout) -> None:
        names = ", ".join(table.name for table in contribution.tables[:MAX_SHOWN])
        more = len(contribution.tables) - MAX_SHOWN
        names += f" and {more} others" if more > 0 else ""
        if not names:
            return
        if isinstance(update, KerasUpdate):
            message = f"the optimizer has no rule for rows, or an option that has none: all of {names} is updated"
            self._reporter.emit("warning", f"{message} in every step, by a dense gradient")
        else:
            self._reporter.emit("state", f"sparse gradients ({self._spec.training.sparse}) of {names}")

    def _compare(self, restored: Checkpoint | None, fingerprint: dict[str, str]) -> None:
        self._reporter.update(fingerprint=fingerprint)
        if restored is None:
            return
        changed = [name for name, value in fingerprint.items() if restored.fingerprint.get(name) != value]
        if changed:
            what = ", ".join(f"{name} {restored.fingerprint.get(name)} → {fingerprint[name]}" for name in changed)
            self._reporter.emit("warning", f"the digest is not comparable with that of an undisturbed run: {what}")

    def _run(self, loop: Loop, model: _Model) -> None:
        self._reporter.update(is_running=True, phase="training", workers=self._crew.views)
        self._reporter.emit("state", "the first step is under way")
        loop.board.begin(loop.step)
        try:
            loop.run()
        except Cancelled:
            loop.save_now()
            raise
        finally:
            self._reporter.update(phase="writing the last checkpoint")
            digest = weights_digest(*model.weights.by_kind())
            self._reporter.update(weights_digest=digest, weights_digest_step=loop.step, step=loop.step)
            loop.board.close(model.evaluator.graph() if model.evaluator is not None else b"")
            loop.saver.finish()
        until_stored(lambda: loop.saver.is_stored, loop.save_again, self._wait)
        self._export(model)
        until_stored(lambda: self._is_exported, lambda: self._export(model), self._wait)

    def _wait(self, seconds: float) -> bool:
        """Waits for the storage; whoever cancels the job wants no result any more."""
        self._reporter.update(phase="waiting for room in the storage")
        if self._cancelled.wait(seconds):
            raise Cancelled
        return False

    def _export(self, model: _Model) -> None:
        self._fence.check()
        self._reporter.update(phase="exporting")
        with model.weights.loaded():
            if model.best is not None and model.best.step:
                self._reporter.emit(
                    "state", f"exports the weights of the best evaluation, after step {model.best.step}"
                )
                model.best.put_in(model.variables.bound)
            exports = export_model(model.objective.model, self._storage, self._assignment.job_id, self._fence.check)
        self._is_exported = exports.is_stored
        for warning in exports.warnings:
            self._reporter.emit("warning", warning)
        if raw := model.variables.raw:
            names = ", ".join(name.partition("/")[2] for name in raw[:5])
            self._reporter.emit("warning", f"model.keras lacks variables that Keras does not save: {names}")
        self._reporter.update(exports=exports.formats)
        self._reporter.emit("export", f"exported as {', '.join(exports.formats) or 'nothing'}")

    def _interrupt(self, rounds: Rounds) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        while not self._changes.empty():
            self._changes.get()(rounds)
        if not self._crew.ready:
            self._look_for_successor()
        if self._crew.views is not self._reporter.workers:
            self._reporter.update(workers=self._crew.views)

    def _look_for_successor(self) -> None:
        """A trainer that was given up gets no workers any more, and writes nothing that could be refused."""
        if time.monotonic() - self._looked_s < SUCCESSOR_S:
            return
        self._looked_s = time.monotonic()
        try:
            self._fence.check()
        except JobFailed as error:
            if error.code == "superseded":
                raise

    def _report_worker(self, message: str, is_warning: bool) -> None:
        self._reporter.update(workers=self._crew.views)
        self._reporter.emit("warning" if is_warning else "worker", message)
        log.info("worker", job=self._assignment.job_id, step=self._reporter.step, what=message)
