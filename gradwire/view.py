"""Jobs and events as the JSON that scripts and people get: camelCase, zeros printed, states as words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from gradwire.spec.job import JobSpec
from gradwire.spec.wire import from_proto
from protos.gradwire.v1 import service_pb2 as pb

STATE_PREFIX = "JOB_STATE_"


def job_view(job: pb.Job) -> dict[str, Any]:
    """A job as one JSON document.

    Timestamps are ISO 8601 text, or null; a metric that is not finite is null beside `finite: false`; `error` is null
    without one; `spec` is null where the server left it out.
    """
    metrics, eval_metrics = dict(job.metrics), dict(job.eval_metrics)
    return {
        "id": job.id,
        "name": job.name,
        "state": state_word(job.state),
        "stateReason": job.state_reason,
        "step": job.step,
        "totalSteps": job.total_steps,
        "epoch": job.epoch,
        "metrics": _numbers(metrics),
        "evalMetrics": _numbers(eval_metrics),
        "best": _best(job.best) if job.HasField("best") else None,
        "finite": _is_finite(metrics) and _is_finite(eval_metrics),
        "examplesPerSecond": _number(job.examples_per_second),
        "phaseMs": _numbers(job.phase_ms),
        "workers": [_worker(worker) for worker in job.workers],
        "wantedWorkers": job.wanted_workers,
        "weightsDigest": job.weights_digest,
        "weightsDigestStep": job.weights_digest_step,
        "checkpointStep": job.checkpoint_step,
        "exports": list(job.exports),
        "error": _error(job.error) if job.HasField("error") else None,
        "generation": job.generation,
        "fingerprint": dict(sorted(job.fingerprint.items())),
        "cursor": job.cursor,
        "createdAt": _time(job.created_at) if job.HasField("created_at") else None,
        "startedAt": _time(job.started_at) if job.HasField("started_at") else None,
        "finishedAt": _time(job.finished_at) if job.HasField("finished_at") else None,
        "specDigest": job.spec_digest,
        "spec": spec_view(from_proto(job.spec)) if job.HasField("spec") else None,
    }


def event_view(event: pb.JobEvent) -> dict[str, Any]:
    """An event as one JSON document; `state` is null where the event is of no state."""
    return {
        "cursor": event.cursor,
        "time": _time(event.time) if event.HasField("time") else None,
        "kind": event.kind,
        "message": event.message,
        "state": state_word(event.state) if event.state else None,
        "step": event.step,
        "totalSteps": event.total_steps,
        "epoch": event.epoch,
        "metrics": _numbers(event.metrics),
        "finite": _is_finite(event.metrics),
        "examplesPerSecond": _number(event.examples_per_second),
        "phaseMs": _numbers(event.phase_ms),
        "workers": [_worker(worker) for worker in event.workers],
        "error": _error(event.error) if event.HasField("error") else None,
    }


def spec_view(spec: JobSpec) -> dict[str, Any]:
    """A specification as one JSON document, with the Keras model's config as an object; a job file may say the same."""
    document = spec.model_dump(mode="json", by_alias=True)
    if spec.model.keras is not None:
        document["model"]["keras"] = _finite(json.loads(spec.model.keras))
    return document


def state_word(state: int) -> str:
    """A state's word, such as QUEUED; UNKNOWN for one that only a newer server has."""
    if state not in pb.JobState.values():
        return "UNKNOWN"
    return pb.JobState.Name(pb.JobState.ValueType(state)).removeprefix(STATE_PREFIX)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """By name in alphabetical order, but for the loss, which comes first."""
    return {name: _number(values[name]) for name in sorted(values, key=lambda name: (name != "loss", name))}


def _is_finite(values: Mapping[str, float]) -> bool:
    return all(math.isfinite(value) for value in values.values())


def _time(time: Timestamp) -> str:
    return time.ToJsonString()


def _worker(worker: pb.Worker) -> dict[str, Any]:
    return {
        "id": worker.id,
        "pid": worker.pid,
        "node": worker.node,
        "state": worker.state,
        "phase": worker.phase,
        "transport": worker.transport,
    }


def _best(best: pb.BestEvaluation) -> dict[str, Any]:
    return {
        "step": best.step,
        "metric": best.metric,
        "value": _number(best.value),
        "exports": list(best.exports),
    }


def _error(error: pb.JobError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "step": error.step,
        "worker": error.worker,
    }


def _finite(value: Any) -> Any:
    """A Keras config with null for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
