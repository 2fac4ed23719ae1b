"""Records and events as the messages of the API."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict

from google.protobuf.timestamp_pb2 import Timestamp

from gradwire.progress import ErrorView, WorkerView
from gradwire.spec.job import JobSpec
from gradwire.spec.wire import to_proto
from protos.gradwire.v1 import service_pb2 as pb
from service.jobs.event import JobEvent
from service.jobs.record import JobRecord
from service.jobs.states import JobState


def job_message(record: JobRecord, spec_json: str | None = None) -> pb.Job:
    """A job; with its specification only if that is given, for it may be large."""
    now = record.snapshot
    message = pb.Job(
        id=record.id,
        name=record.name,
        state=_state(record.state),
        state_reason=record.state_reason,
        step=now.step,
        total_steps=now.total_steps,
        epoch=now.epoch,
        metrics=now.metrics,
        eval_metrics=now.eval_metrics,
        workers=_workers(now.workers),
        weights_digest=now.weights_digest,
        weights_digest_step=now.weights_digest_step,
        spec_digest=record.spec_digest,
        created_at=_time(record.created_at_s),
        examples_per_second=now.examples_per_second,
        phase_ms=now.phase_ms,
        finite=all(math.isfinite(value) for value in [*now.metrics.values(), *now.eval_metrics.values()]),
        generation=record.generation,
        checkpoint_step=now.checkpoint_step,
        exports=now.exports,
        fingerprint=now.fingerprint,
        cursor=record.cursor,
        wanted_workers=record.resources.workers,
    )
    if now.best is not None:
        message.best.CopyFrom(pb.BestEvaluation(**asdict(now.best)))
    if record.error is not None:
        message.error.CopyFrom(_error(record.error))
    if record.started_at_s is not None:
        message.started_at.CopyFrom(_time(record.started_at_s))
    if record.finished_at_s is not None:
        message.finished_at.CopyFrom(_time(record.finished_at_s))
    if spec_json is not None:
        message.spec.CopyFrom(to_proto(JobSpec.model_validate_json(spec_json)))
    return message


def event_message(event: JobEvent) -> pb.JobEvent:
    """An event."""
    return pb.JobEvent(
        cursor=event.cursor,
        time=_time(event.time_s),
        kind=event.kind,
        message=event.message,
        state=_state(event.state),
        step=event.step,
        total_steps=event.total_steps,
        epoch=event.epoch,
        metrics=event.metrics,
        examples_per_second=event.examples_per_second,
        phase_ms=event.phase_ms,
        workers=_workers(event.workers),
        error=_error(event.error) if event.error is not None else None,
    )


def _state(state: JobState) -> pb.JobState.ValueType:
    return pb.JobState.Value(f"JOB_STATE_{state}")


def _workers(workers: Iterable[WorkerView]) -> list[pb.Worker]:
    return [
        pb.Worker(
            id=worker.id,
            pid=worker.pid,
            node=worker.node,
            state=worker.state,
            phase=worker.phase,
            transport=worker.transport,
        )
        for worker in workers
    ]


def _error(error: ErrorView) -> pb.JobError:
    return pb.JobError(
        code=error.code, message=error.message, details=error.details, step=error.step, worker=error.worker
    )


def _time(time_s: float) -> Timestamp:
    time = Timestamp()
    time.FromNanoseconds(round(time_s * 1e6) * 1000)
    return time
