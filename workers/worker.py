"""A worker: builds the model, traces the gradient program, and computes what the trainer orders."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from gradwire.assignment import Assignment
from gradwire.errors import GradwireError, JobFailed
from gradwire.progress import ErrorView, Outcome
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from workers.binding import Binding
from workers.compiling import Compiled, program_of, traced
from workers.computer import BatchTerms, NodeComputer, Parts
from workers.data.micro_batches import MicroBatches
from workers.data.prefetch import Prefetcher
from workers.data.row_order import RowOrder
from workers.data.shard_shape import first_shapes
from workers.denormals import flush_denormals
from workers.exchange.client import ExchangeClient, SharedMemoryClient
from workers.exchange.dial import ENCRYPTED, PLAIN
from workers.exchange.messages import Count, Counted, Dismiss, Done, Failed, Heartbeat, Hello, Ready, Welcome, Work
from workers.fingerprint import fingerprint
from workers.full_disk import when_there_is_room
from workers.ids import IdCheck
from workers.models.unfilled import unfilled
from workers.objective import input_dtypes, make_objective
from workers.program import GradientProgram, Prepared
from workers.rows import Rows
from workers.scheduling import prefer_trainer
from workers.slots import Slots
from workers.source_code import failure_within

HEARTBEAT_S = 0.5

log = structlog.get_logger()


class Worker:
    """Serves one start of a job's trainer, then is done.

    The computing thread owns everything; the heartbeat thread only reads the phase.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.exchange_address = ""
        self._assignment = assignment
        self._spec = JobSpec.model_validate_json(assignment.spec_json)
        self._computer: NodeComputer | None = None
        self._ended = threading.Event()

    def run(self) -> Outcome:
        """Works until the trainer dismisses it or hangs up; every end is an outcome, none an exception."""
        try:
            client = self._connect()
        except JobFailed as error:
            return Outcome(state="CANCELLED", error=ErrorView(code=error.code, message=error.message))
        threading.Thread(target=self._beat, args=(client,), name="heartbeat", daemon=True).start()
        try:
            return self._serve(client)
        except GradwireError as error:
            return _report(client, Failed(code=error.code, message=error.message, details=error.details))
        except ConnectionError:  # the trainer has gone, or has let this worker go
            return _let_go(client)
        except Exception as error:
            if own := failure_within(error):
                return _report(client, Failed(code=own.code, message=own.message, details=own.details))
            message = f"{type(error).__name__}: {error}"
            return _report(client, Failed(code="internal", message=message, details=traceback.format_exc()))
        finally:
            self._ended.set()
            client.close()

    def _connect(self) -> ExchangeClient:
        mine = self._assignment
        hello = Hello(
            token=mine.token,
            job_id=mine.job_id,
            generation=mine.generation,
            worker_id=mine.worker_id,
            pid=os.getpid(),
            node=os.uname().nodename,
        )
        if mine.exchange_address.startswith((PLAIN, ENCRYPTED)):
            # pyarrow, and what starts a process: workers on the trainer's node do without.
            if mine.shares_stream:
                from workers.exchange import relay_client  # noqa: PLC0415

                return relay_client.connect(mine, hello)
            from workers.exchange.flight import FlightClient  # noqa: PLC0415

            return FlightClient(mine.exchange_address, hello, mine.exchange_certificate)
        return SharedMemoryClient(Path(mine.exchange_address), hello)

    def _beat(self, client: ExchangeClient) -> None:
        with contextlib.suppress(OSError):  # the trainer has gone; the computing thread notices as well
            while not self._ended.wait(HEARTBEAT_S):
                computer = self._computer
                client.send(
                    Heartbeat(phase=computer.phase, traces=computer.traces) if computer else Heartbeat(phase="trace")
                )

    def _serve(self, client: ExchangeClient) -> Outcome:
        flush_denormals()
        prefer_trainer()
        opened, tell = partial(Rows.open, self._spec, self._assignment), partial(log.warning, "waits_for_room")
        rows = when_there_is_room(opened, lambda why: tell(why=why), self._ended.wait)
        xla: str = self._spec.training.xla
        word = client.receive() if xla == "auto" else None  # it says who measures
        if xla == "auto":
            if not isinstance(word, Welcome):
                return Outcome(state="CANCELLED")
            xla = word.xla
        started = time.monotonic()
        compiled, prefetcher = self._trace(rows, xla)
        program, trace_s = compiled.program, time.monotonic() - started
        try:
            welcome = word or client.receive()
            if not isinstance(welcome, Welcome):
                return Outcome(state="CANCELLED")
            binding = self._bind(client, program, welcome)
            computer = NodeComputer(program, rows, prefetcher, self._spec.training)
            slots = self._get_ready(client, compiled, trace_s)
            self._computer = computer
            return self._obey(client, computer, binding, slots)
        finally:
            prefetcher.close()

    def _trace(self, rows: Rows, xla: str) -> tuple[Compiled, Prefetcher[Parts]]:
        storage = Storage(self._assignment.storage_url)
        with unfilled():
            objective = make_objective(self._spec, self._assignment, storage, rows.arrays)
        batches = rows.batches(rows.train, objective.heads, input_dtypes(objective))
        parts = MicroBatches.of(self._spec.training.accumulation, rows.schedule.shard_capacity)
        order, sizes = RowOrder(rows.schedule), parts.sizes(rows.schedule.shard_sizes())
        compiled = traced(
            partial(program_of, objective, self._spec.training, rows.trace_bound(objective.heads, len(sizes))),
            first_shapes(rows.schedule, parts, batches, order),
            lambda shape: batches.make(np.arange(shape.samples, dtype=np.int64), shape.lengths),
            xla,
        )
        ids_of = IdCheck(tuple(compiled.program.id_inputs), rows.train)

        def prepare(step: int, shard: int) -> Parts:
            # All shards of a step have one length: that of the whole batch, as if it were padded in one piece.
            lengths = batches.lengths(order.batch(step)) if batches.padding else ()
            made = (batches.make(ids, lengths) for ids in parts.split(order.ids(step, shard)))
            return tuple(Prepared.of(ids_of.check(batch)) for batch in made)

        return compiled, Prefetcher(prepare)

    def _bind(self, client: ExchangeClient, program: GradientProgram, welcome: Welcome) -> Binding:
        layout = program.variables.layout()
        if layout.digest() != welcome.layout_digest:
            raise JobFailed("the trainer's model has other variables than this worker's", code="model_differs")
        return Binding(program.variables.bound, layout.views(client.attach(welcome.segment).buffer))

    def _get_ready(self, client: ExchangeClient, compiled: Compiled, trace_s: float) -> Slots:
        program = compiled.program
        worker_id, layout = self._assignment.worker_id, program.contribution()
        count = self._spec.training.shards
        segment = client.create(f"slots-{worker_id}", count * layout.total_bytes)
        slots = Slots(segment, layout, count)
        document = {
            "contribution": layout.to_json(),
            "exchangedHeads": program.exchanged_heads,
            "fingerprint": fingerprint(self._assignment.threads, compiled.xla),
            "xlaMs": compiled.ms,
            "traceSeconds": trace_s,
            "traces": program.traces,
        }
        client.publish(f"ready-{worker_id}", json.dumps(document).encode())
        log.info("worker_ready", traces=program.traces, trace_s=round(trace_s, 3))
        client.send(Ready(segment=f"slots-{worker_id}", document=f"ready-{worker_id}"))
        return slots

    def _obey(self, client: ExchangeClient, computer: NodeComputer, binding: Binding, slots: Slots) -> Outcome:
        while True:
            word = client.receive()
            match word:
                case None:
                    return _let_go(client)
                case Dismiss():
                    return Outcome(state="SUCCEEDED")
                case Work(key=key):
                    binding.refresh()
                    terms = BatchTerms(word.denominators, word.loss_scale)
                    times = computer.compute(key.step, key.node, terms, slots[key.slot])
                    computer.phase = "exchange"
                    client.send(Done(key, times.data_s, times.compute_s, times.copy_s))
                case Count(key=key):
                    binding.refresh()
                    client.send(Counted(key, computer.denominators(key.step, key.node)))
            computer.phase = "idle"


def _let_go(client: ExchangeClient) -> Outcome:
    reason = client.farewell()
    return Outcome(state="CANCELLED", error=ErrorView(code="let_go", message=reason) if reason else None)


def _report(client: ExchangeClient, failed: Failed) -> Outcome:
    with contextlib.suppress(OSError):  # the trainer has gone; the outcome says the same
        client.send(failed)
    return Outcome(state="FAILED", error=ErrorView(code=failed.code, message=failed.message, details=failed.details))
