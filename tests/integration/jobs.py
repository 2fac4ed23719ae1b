"""Jobs on a real service, and waiting for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from gradwire.client import Client
from gradwire.spec.job import JobSpec
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.cases import convolutional, spec_of, write_npz

ONE_WORKER = {"workers": 1}
ENDED = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


def a_spec(data_root: Path, *, steps: int = 20, resources: dict[str, Any] | None = None, **training: Any) -> JobSpec:
    """For one worker, unless `resources` says otherwise: each more is a process that imports TensorFlow."""
    case = convolutional(has_state=True)
    path = data_root / "service.npz"
    if not path.exists():
        write_npz(case, path)
    return spec_of(
        case, "server:service.npz", training={"steps": steps, **training}, resources={**ONE_WORKER, **(resources or {})}
    )


def finished(client: Client, job: pb.Job) -> pb.Job:
    for _ in client.watch(job):
        pass
    return client.get(job.id)


def wait_for(client: Client, job: pb.Job, is_so: Callable[[pb.Job], bool], timeout_s: float = 90) -> pb.Job:
    deadline = time.monotonic() + timeout_s
    while not is_so(found := client.get(job.id)):
        assert found.state not in ENDED, f"ended before: {found.error.message}"
        assert time.monotonic() < deadline, f"still {pb.JobState.Name(found.state)}: {found.state_reason}"
        time.sleep(0.05)
    return found


def trainer_pid(job_id: str, generation: int = 1) -> int:
    """The process that listens on the job's exchange."""
    ends = [end for end in psutil.net_connections("unix") if f"{job_id}-{generation}/control" in str(end.laddr)]
    assert ends and ends[0].pid, "no trainer found"
    return int(ends[0].pid)
