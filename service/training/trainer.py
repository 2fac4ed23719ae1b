"""The trainer: one start of one job, from its assignment to its outcome."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from gradwire.assignment import Assignment, ExchangeAddress
from gradwire.errors import GradwireError
from gradwire.progress import ErrorView, Outcome, Progress
from gradwire.spec.job import MAX_WORKERS, JobSpec
from gradwire.storage import Storage
from service.training.assembly import Assembly
from service.training.blocks import Blocks
from service.training.changes import Changes
from service.training.checkpoint import Checkpoint, CheckpointFolder
from service.training.crew import Crew, Terms
from service.training.delivery import Delivery
from service.training.digest import weights_digest
from service.training.exchange import SharedMemoryServer
from service.training.fence import Fence, Lookout
from service.training.graph import graph_def_of
from service.training.loop import Loop
from service.training.reporter import Reporter
from service.training.requests import Cancelled, Requests
from service.training.rounds import Rounds
from service.training.trainee import Trainee
from service.training.weights import SEGMENT
from service.training.writer import CheckpointWriter
from service.training.xla_choice import XlaChoice
from workers.denormals import flush_denormals
from workers.exchange.messages import MEASURE, Welcome
from workers.full_disk import when_there_is_room
from workers.rows import Rows
from workers.source_code import failure_within


class Trainer:
    """Owns weights and optimiser state. `run` belongs to one thread; the other calls may come from others."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._spec = JobSpec.model_validate_json(assignment.spec_json)
        self._storage = Storage(assignment.storage_url)
        self._fence = Fence(self._storage, assignment.job_id, assignment.generation)
        self._lookout = Lookout(self._fence)
        self._xla_choice = XlaChoice(self._storage, assignment.job_id, self._fence)
        self._reporter = Reporter()
        self._requests = Requests()
        self._server = SharedMemoryServer(assignment)
        self._crew = Crew(
            self._server, self._report_worker, assignment.workers or MAX_WORKERS, meter=self._reporter.meter
        )  # fmt: skip
        self._blocks = Blocks()
        self._changes = Changes()
        self._assembly = Assembly(
            spec=self._spec,
            assignment=assignment,
            blocks=self._blocks,
            changes=self._changes,
            reporter=self._reporter,
        )
        flight = self._serve_flight(assignment) if assignment.exchange_host else ""
        address = ExchangeAddress(node=assignment.node, folder=str(self._server.folder), flight=flight)
        self.exchange_address = str(address)

    def _serve_flight(self, assignment: Assignment) -> str:
        # Only jobs with workers on other nodes load it.
        from service.training.flight_server import FlightServer  # noqa: PLC0415

        remote = FlightServer(assignment, assignment.exchange_host, lambda: self._server.memory(SEGMENT), self._changes)
        self._server.join(remote)
        return remote.address

    def progress(self, since: int) -> Progress:
        return self._reporter.progress(since)

    def cancel(self) -> None:
        self._requests.cancel()

    def dismiss(self, worker_ids: Sequence[str]) -> None:
        self._requests.dismiss(worker_ids)

    def scale(self, workers: int) -> None:
        self._requests.scale(workers)

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
        trainee = Trainee.of(self._rows(), self._spec, self._assignment, self._server, self._blocks, self._reporter)
        folder = CheckpointFolder(self._storage, self._assignment.job_id)
        restored = self._restore(folder, trainee)
        xla = self._xla(restored)
        self._crew.open(Welcome(segment=SEGMENT, layout_digest=trainee.weights.layout.digest(), xla=xla))
        rounds = Rounds(
            self._server, self._crew, lambda: self._interrupt(rounds), trainee.rows.samples, self._reporter.meter
        )
        terms = self._gather(rounds)
        if xla == MEASURE:
            self._record_xla(terms)
        checkpoints = self._spec.training.checkpoint
        writer = CheckpointWriter(
            folder, keep=checkpoints.keep, monitor=checkpoints.monitor, mode=checkpoints.mode
        )  # fmt: skip
        try:
            loop = self._assembly.loop(trainee, rounds, writer, restored, terms)
            self._run(loop, trainee)
            self._delivery(folder).deliver(loop, trainee)
        finally:
            writer.close()

    def _rows(self) -> Rows:
        """The data, once this node has room for it."""
        self._reporter.update(phase="reading the data")

        def tell(why: str) -> None:
            self._reporter.update(phase="waiting for room for the data on the trainer's node")
            self._reporter.emit("warning", why)

        rows = when_there_is_room(partial(Rows.open, self._spec, self._assignment), tell, self._requests.wait)
        self._reporter.update(phase="building the model")
        return rows

    def _delivery(self, folder: CheckpointFolder) -> Delivery:
        rule = self._spec.training.early_stopping
        return Delivery(
            job_id=self._assignment.job_id,
            storage=self._storage,
            checkpoints=folder,
            fence=self._fence,
            reporter=self._reporter,
            restores_best=rule is not None and rule.restore_best,
            wait=self._requests.wait,
        )

    def _restore(self, folder: CheckpointFolder, trainee: Trainee) -> Checkpoint | None:
        found = folder.restore_latest()
        for warning in found.warnings:
            self._reporter.emit("warning", warning)
        if found.checkpoint is not None:
            trainee.restore(found.checkpoint)
            step = found.checkpoint.step
            self._reporter.update(step=step, checkpoint_step=step)
            self._reporter.emit("checkpoint", f"goes on from the checkpoint of step {step}")
        return found.checkpoint

    def _xla(self, restored: Checkpoint | None) -> str:
        """Whether programs are compiled by XLA, or that a worker shall measure it."""
        if self._spec.training.xla != "auto":
            return self._spec.training.xla
        recorded = self._xla_choice.recorded()
        return restored.fingerprint.get("xla", recorded) if restored and recorded == MEASURE else recorded

    def _gather(self, rounds: Rounds) -> Terms:
        """Waits for the first workers; returns what all have to agree on."""
        self._reporter.update(phase="waiting for workers")
        rounds.gather(self._spec.resources.min_workers)
        terms = self._crew.terms
        assert terms is not None  # the first ready worker has set them
        return terms

    def _record_xla(self, terms: Terms) -> None:
        xla = terms.fingerprint["xla"]
        self._xla_choice.record(xla)
        took = ", ".join(f"{name} {ms:.2f} ms" for name, ms in sorted(terms.xla_ms.items()))
        self._reporter.emit("state", f"xla is {xla} for the rest of the job (a shard's gradient took: {took})")

    def _run(self, loop: Loop, trainee: Trainee) -> None:
        self._reporter.update(is_running=True, phase="training", workers=self._crew.views)
        self._reporter.emit("state", "the first step is under way")
        loop.board.begin(loop.step)
        try:
            loop.run()
        except Cancelled:
            loop.histograms.look_at_weights(loop.step, is_last=True)
            loop.milestones.save_now(loop.step)
            raise
        finally:
            self._reporter.update(phase="writing the last checkpoint")
            digest = weights_digest(*trainee.weights.by_kind())
            self._reporter.update(weights_digest=digest, weights_digest_step=loop.step, step=loop.step)
            loop.board.close(graph_def_of(trainee.objective.model, trainee.evaluator))
            loop.milestones.saver.finish()

    def _interrupt(self, rounds: Rounds) -> None:
        self._requests.comply(rounds)
        if not self._crew.ready:
            self._lookout.look()
        if self._crew.views is not self._reporter.workers:
            self._reporter.update(workers=self._crew.views)

    def _report_worker(self, message: str, is_warning: bool) -> None:
        self._reporter.update(workers=self._crew.views)
        self._reporter.emit("warning" if is_warning else "worker", message)
