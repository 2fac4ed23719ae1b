"""The JSON that scripts read."""

from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp

from gradwire.spec.check import validate
from gradwire.spec.file import parse
from gradwire.spec.wire import to_proto
from gradwire.view import event_view, job_view, spec_view, state_word
from protos.gradwire.v1 import service_pb2 as pb

SPEC = {
    "name": "small",
    "model": {"keras": '{"class_name":"Sequential","config":{"units":32,"rate":1.0,"limit":Infinity}}'},
    "data": {"train": {"builtin": "digits"}, "inputs": "image", "labels": "digit"},
    "loss": "mse",
    "optimizer": {"name": "adam", "config": {"learning_rate": 0.5, "steps": 3}},
    "training": {"globalBatch": 32, "epochs": 1},
}


def test_a_new_job_prints_every_field_with_its_zero() -> None:
    view = job_view(pb.Job(id="j1", name="small", state=pb.JOB_STATE_QUEUED, created_at=Timestamp(seconds=1)))
    assert view == {
        "id": "j1",
        "name": "small",
        "state": "QUEUED",
        "stateReason": "",
        "step": 0,
        "totalSteps": 0,
        "epoch": 0,
        "metrics": {},
        "evalMetrics": {},
        "best": None,
        "finite": True,
        "examplesPerSecond": 0.0,
        "phaseMs": {},
        "workers": [],
        "wantedWorkers": 0,
        "weightsDigest": "",
        "weightsDigestStep": 0,
        "checkpointStep": 0,
        "exports": [],
        "error": None,
        "generation": 0,
        "fingerprint": {},
        "cursor": 0,
        "createdAt": "1970-01-01T00:00:01Z",
        "startedAt": None,
        "finishedAt": None,
        "specDigest": "",
        "spec": None,
    }


def test_a_failed_job() -> None:
    job = pb.Job(
        state=pb.JOB_STATE_FAILED,
        step=7,
        metrics={"accuracy": 0.5, "loss": float("nan")},
        eval_metrics={"loss": float("-inf")},
        error=pb.JobError(code="nonfinite", message="the loss is NaN", step=8),
        workers=[pb.Worker(id="w0", pid=12, node="n", state="READY", phase="compute", transport="shared_memory")],
        started_at=Timestamp(seconds=2, nanos=500_000_000),
    )
    view = job_view(job)
    assert view["metrics"] == {"loss": None, "accuracy": 0.5}
    assert list(view["metrics"]) == ["loss", "accuracy"]
    assert view["evalMetrics"] == {"loss": None}
    assert view["finite"] is False
    assert view["error"] == {"code": "nonfinite", "message": "the loss is NaN", "details": "", "step": 8, "worker": ""}
    assert view["workers"] == [
        {"id": "w0", "pid": 12, "node": "n", "state": "READY", "phase": "compute", "transport": "shared_memory"}
    ]
    assert view["startedAt"] == "1970-01-01T00:00:02.500Z"
    json.dumps(view, allow_nan=False)


def test_one_number_that_is_not_finite_is_enough() -> None:
    assert job_view(pb.Job(metrics={"loss": float("nan")}, eval_metrics={"loss": 2.0}))["finite"] is False
    assert job_view(pb.Job(metrics={"loss": 1.0}, eval_metrics={"loss": float("inf")}))["finite"] is False
    assert job_view(pb.Job(metrics={"loss": 1.0}, eval_metrics={"loss": 2.0}))["finite"] is True


def test_a_spec_has_configs_as_objects_and_numbers_as_they_were() -> None:
    view = job_view(pb.Job(spec=to_proto(validate(SPEC))))["spec"]
    text = json.dumps(view, allow_nan=False)
    assert '"units": 32, "rate": 1.0, "limit": null' in text
    assert view["optimizer"] == {"name": "adam", "config": {"learning_rate": 0.5, "steps": 3}}
    assert view["training"]["globalBatch"] == 32
    assert view["training"]["shards"] == 4
    assert view["loss"] == {"": {"name": "mse", "config": {}, "weight": 1.0}}


def test_a_spec_view_can_be_submitted_again() -> None:
    spec = parse({**SPEC, "model": {"keras": {"class_name": "Sequential", "config": {"units": 32}}}})
    assert parse(spec_view(spec)) == spec


def test_an_event() -> None:
    event = pb.JobEvent(cursor=3, time=Timestamp(seconds=1), kind="progress", message="step 2", step=2, total_steps=9)
    assert event_view(event) == {
        "cursor": 3,
        "time": "1970-01-01T00:00:01Z",
        "kind": "progress",
        "message": "step 2",
        "state": None,
        "step": 2,
        "totalSteps": 9,
        "epoch": 0,
        "metrics": {},
        "finite": True,
        "examplesPerSecond": 0.0,
        "phaseMs": {},
        "workers": [],
        "error": None,
    }


def test_a_state_event_with_an_error() -> None:
    event = pb.JobEvent(kind="state", state=pb.JOB_STATE_FAILED, error=pb.JobError(code="oom"))
    view = event_view(event)
    assert view["state"] == "FAILED"
    assert view["error"]["code"] == "oom"


def test_every_state_has_a_plain_word() -> None:
    words = {state_word(state) for state in pb.JobState.values() if state}
    assert words == {"QUEUED", "STARTING", "RUNNING", "PAUSED", "RECOVERING", "SUCCEEDED", "FAILED", "CANCELLED"}
    assert state_word(99) == "UNKNOWN"
