"""A double of the client for the command line's tests: one job, its events, and what may go wrong."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from gradwire.errors import NotFound
from protos.gradwire.v1 import service_pb2 as pb

JOB_ID = "3f2ac81b90d4"
TOTAL_STEPS = 24
SHARDS = 4


def make_job(state: str = "SUCCEEDED") -> pb.Job:
    job = pb.Job(
        id=JOB_ID,
        name="digits [v2]",
        state=pb.JobState.Value(f"JOB_STATE_{state}"),
        step=TOTAL_STEPS,
        total_steps=TOTAL_STEPS,
        epoch=2,
        examples_per_second=4210.4,
        exports=["keras", "saved_model"],
        cursor=8,
        metrics={"loss": 0.25, "digit_accuracy": 0.9912},
        eval_metrics={"loss": 0.5, "digit_accuracy": 0.9805},
        best=pb.BestEvaluation(step=12, metric="digit_accuracy", value=0.985),
        phase_ms={"data": 0.4, "compute": 18.2, "exchange": 3.1, "sum": 0.6, "apply": 4.3},
    )
    job.workers.add(id="w0", pid=1200, node="10.0.0.4", state="READY", phase="compute", transport="shared_memory")
    job.workers.add(id="w1", pid=1201, node="10.0.0.4", state="READY", phase="compute", transport="shared_memory")
    if state == "FAILED":
        job.error.code, job.error.message = "nonfinite", "the loss of step 7 is NaN; lower the learning rate"
        job.error.details, job.error.step = "worker w1, shard 2", 7
    return job


def make_events() -> list[pb.JobEvent]:
    """What the job's watch gives: a state, two epochs of twelve steps with an evaluation each, the end."""
    events = [pb.JobEvent(kind="state", state=pb.JOB_STATE_RUNNING, message="the first step is under way")]
    for step in (6, 12, 18, 24):
        if step % 12 == 0:
            metrics = {"loss": 7.0 / step, "digit_accuracy": 0.89 + step / 1000}
            events.append(pb.JobEvent(kind="evaluation", step=step, epoch=step // 12, metrics=metrics))
        metrics = {"loss": 6.0 / step, "digit_accuracy": 0.9 + step / 1000}
        events.append(pb.JobEvent(kind="progress", step=step, epoch=(step - 1) // 12 + 1, metrics=metrics))
    events.append(pb.JobEvent(kind="state", state=pb.JOB_STATE_SUCCEEDED))
    for cursor, event in enumerate(events, 1):
        event.cursor, event.total_steps = cursor, TOTAL_STEPS
        event.time.FromSeconds(1_795_477_526 + cursor)
    return events


class ClientDouble:
    """Takes the place of `gradwire.client.Client`; `script` is what the next one does."""

    script: ClassVar[dict[str, Any]] = {}
    """job: the job it knows; error: what every call raises; watch_error: what its events end with; archive: a tar."""
    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, address: str, **options: Any) -> None:
        self.calls.append(("open", address, options))
        self.job: pb.Job = self.script.get("job") or make_job()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.calls.append(("close",))

    def submit(self, spec: Any, request_id: str | None = None) -> pb.Job:
        self._call("submit", request_id)
        return self.job

    def get(self, job: str) -> pb.Job:
        self._call("get", job)
        if not self.job.id.startswith(job):
            raise NotFound(f"no job {job}")
        return self.job

    def list(self) -> Sequence[pb.Job]:
        self._call("list")
        return self.script.get("jobs", [self.job])

    def watch(self, job: pb.Job | str, cursor: int = 0) -> Iterator[pb.JobEvent]:
        self._call("watch", cursor)
        yield from make_events()[cursor:]
        if "watch_error" in self.script:
            raise self.script["watch_error"]

    def cancel(self, job: str) -> pb.Job:
        self._call("cancel", job)
        return make_job("CANCELLED")

    def pause(self, job: str) -> pb.Job:
        self._call("pause", job)
        return make_job(self.script.get("paused", "PAUSED"))

    def resume(self, job: str) -> pb.Job:
        self._call("resume", job)
        return make_job("QUEUED")

    def scale(self, job: str, workers: int) -> pb.ScaleJobResponse:
        self._call("scale", job, workers)
        scaled = make_job("RUNNING")
        scaled.wanted_workers = workers
        return pb.ScaleJobResponse(job=scaled, usable_workers=min(workers, SHARDS))

    def download(self, job: str, name: str, target: Path) -> Path:
        self._call("download", name)
        content = {"log": b"step=1 loss=2.5\nstep=2 loss=2.25\n", "export/keras": b"a keras file"}
        target.write_bytes(content[name] if name in content else self.script.get("archive") or saved_model_tar())
        return target

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if "error" in self.script:
            raise self.script["error"]


def saved_model_tar(**extra: bytes) -> bytes:
    """A tar with a folder saved_model in it, and what else is named."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in {"saved_model/saved_model.pb": b"graph", "saved_model/variables/0": b"v", **extra}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
