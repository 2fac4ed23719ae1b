"""A `JobService` in memory, for tests of the client: the answers of a server, and its failures on demand."""

# ruff: noqa: N802 (the methods have the names of the calls)

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from gradwire.errors import AlreadyExists, GradwireError, NotFound, Unauthenticated, Unavailable, Unsupported
from gradwire.spec.wire import from_proto
from gradwire.status import to_grpc
from protos.gradwire.v1 import service_pb2 as pb
from protos.gradwire.v1 import service_pb2_grpc as rpc

CHUNK_BYTES = 1 << 20
ENDED = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


@dataclass
class Faults:
    """What goes wrong next; each number is used up by the calls that it fails."""

    lost_replies: int = 0
    """Submissions that are stored before the connection is lost."""
    broken_uploads: int = 0
    """Uploads that are lost after their first chunk."""
    watch_events: list[int] = field(default_factory=list)
    """Events that each of the next watches sends before its connection is lost."""
    quiet_watch_ends: int = 0
    """Watches that end without an error after one event, as of a server that shuts down."""
    repeated_events: int = 0
    """Events up to the cursor that every watch sends once more."""
    damaged_downloads: int = 0
    submit_error: GradwireError | None = None


class JobServiceDouble(rpc.JobServiceServicer):
    """Jobs, events and artifacts in dicts; `faults` breaks the next calls, the other attributes record what came in."""

    def __init__(self, token: str | None = None) -> None:
        self.faults = Faults()
        self.jobs: dict[str, pb.Job] = {}
        self.events: dict[str, list[pb.JobEvent]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.requests: dict[str, str] = {}
        self.request_ids: list[str] = []
        self.uploads: list[list[pb.UploadArtifactRequest]] = []
        self.cursors: list[int] = []
        self._token = token
        self._changed = threading.Condition()

    def add_job(self, job_id: str, events: int = 0, state: int = pb.JOB_STATE_RUNNING) -> None:
        self.jobs[job_id] = pb.Job(id=job_id, state=pb.JobState.ValueType(state), cursor=events)
        self.events[job_id] = [pb.JobEvent(cursor=1 + index, kind="progress", step=index) for index in range(events)]

    def add_event(self, job_id: str, state: int = pb.JOB_STATE_RUNNING) -> None:
        with self._changed:
            job = self.jobs[job_id]
            job.cursor += 1
            job.state = pb.JobState.ValueType(state)
            self.events[job_id].append(pb.JobEvent(cursor=job.cursor, kind="state", state=job.state))
            self._changed.notify_all()

    def SubmitJob(self, request: pb.SubmitJobRequest, context: grpc.ServicerContext) -> pb.SubmitJobResponse:
        self._admit(context)
        self.request_ids.append(request.request_id)
        try:
            if self.faults.submit_error is not None:
                raise self.faults.submit_error
            job = self._stored(request)
        except GradwireError as error:
            context.abort_with_status(to_grpc(error))
        if self.faults.lost_replies:
            self.faults.lost_replies -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
        return pb.SubmitJobResponse(job=job)

    def _stored(self, request: pb.SubmitJobRequest) -> pb.Job:
        spec = from_proto(request.spec)
        if request.request_id in self.requests:
            job = self.jobs[self.requests[request.request_id]]
            if job.spec != request.spec:
                raise AlreadyExists(f"request {request.request_id} was for another specification")
            return job
        job = pb.Job(id=f"job{len(self.jobs)}", name=spec.name, state=pb.JOB_STATE_QUEUED, spec=request.spec)
        self.jobs[job.id] = job
        self.events[job.id] = []
        self.requests[request.request_id] = job.id
        return job

    def GetJob(self, request: pb.GetJobRequest, context: grpc.ServicerContext) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=self._found(request.id, context))

    def ListJobs(self, request: pb.ListJobsRequest, context: grpc.ServicerContext) -> pb.ListJobsResponse:
        self._admit(context)
        start = int(request.page_token or 0)
        jobs = [*reversed(self.jobs.values())]
        end = start + request.page_size
        return pb.ListJobsResponse(jobs=jobs[start:end], next_page_token=str(end) if end < len(jobs) else "")

    def WatchJob(self, request: pb.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchJobResponse]:
        job = self._found(request.id, context)
        self.cursors.append(request.cursor)
        budget = self.faults.watch_events.pop(0) if self.faults.watch_events else None
        if self.faults.quiet_watch_ends:
            self.faults.quiet_watch_ends -= 1
            yield pb.WatchJobResponse(event=self.events[job.id][request.cursor])
            return
        cursor = max(0, request.cursor - self.faults.repeated_events)
        while context.is_active():
            if budget == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
            with self._changed:
                if cursor == len(self.events[job.id]):
                    if job.state in ENDED:
                        return
                    self._changed.wait(0.05)
                    continue
                event = self.events[job.id][cursor]
            yield pb.WatchJobResponse(event=event)
            cursor += 1
            budget = None if budget is None else budget - 1

    def CancelJob(self, request: pb.CancelJobRequest, context: grpc.ServicerContext) -> pb.CancelJobResponse:
        job = self._found(request.id, context)
        self.add_event(job.id, pb.JOB_STATE_CANCELLED)
        return pb.CancelJobResponse(job=job)

    def PauseJob(self, request: pb.PauseJobRequest, context: grpc.ServicerContext) -> pb.PauseJobResponse:
        context.abort_with_status(to_grpc(Unsupported("this server does not pause jobs")))

    def ResumeJob(self, request: pb.ResumeJobRequest, context: grpc.ServicerContext) -> pb.ResumeJobResponse:
        return pb.ResumeJobResponse(job=self._found(request.id, context))

    def ScaleJob(self, request: pb.ScaleJobRequest, context: grpc.ServicerContext) -> pb.ScaleJobResponse:
        job = self._found(request.id, context)
        return pb.ScaleJobResponse(job=pb.Job(id=job.id, wanted_workers=request.workers), usable_workers=2)

    def DeleteJob(self, request: pb.DeleteJobRequest, context: grpc.ServicerContext) -> pb.DeleteJobResponse:
        del self.jobs[self._found(request.id, context).id]
        return pb.DeleteJobResponse()

    def CheckJob(self, request: pb.CheckJobRequest, context: grpc.ServicerContext) -> pb.CheckJobResponse:
        context.abort_with_status(to_grpc(Unsupported("this server does not check jobs")))

    def ReplayStep(self, request: pb.ReplayStepRequest, context: grpc.ServicerContext) -> pb.ReplayStepResponse:
        context.abort_with_status(to_grpc(Unsupported("this server does not replay steps")))

    def UploadArtifact(
        self, request_iterator: Iterator[pb.UploadArtifactRequest], context: grpc.ServicerContext
    ) -> pb.UploadArtifactResponse:
        self._admit(context)
        received: list[pb.UploadArtifactRequest] = []
        self.uploads.append(received)
        for request in request_iterator:
            received.append(request)
            if request.sha256 in self.artifacts:
                return pb.UploadArtifactResponse(sha256=request.sha256)
            if self.faults.broken_uploads:
                self.faults.broken_uploads -= 1
                context.abort_with_status(to_grpc(Unavailable("the server goes down")))
        content = b"".join(request.data for request in received)
        sha256 = hashlib.sha256(content).hexdigest()
        if received[-1].sha256 != sha256:
            context.abort(grpc.StatusCode.DATA_LOSS, "wrong checksum")
        self.artifacts[sha256] = content
        return pb.UploadArtifactResponse(sha256=sha256, size_bytes=len(content))

    def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactResponse]:
        self._admit(context)
        if request.WhichOneof("what") == "artifact":
            content = self.artifacts.get(request.artifact)
        else:
            content = self.files.get((request.job_file.job_id, request.job_file.name))
        if content is None:
            context.abort_with_status(to_grpc(NotFound("there is no such file")))
        sha256 = hashlib.sha256(content).hexdigest()
        if self.faults.damaged_downloads:
            self.faults.damaged_downloads -= 1
            content = content[:-1] + b"?"
        for start in range(0, len(content), CHUNK_BYTES):
            chunk = content[start : start + CHUNK_BYTES]
            yield pb.DownloadArtifactResponse(data=chunk, size_bytes=0 if start else len(content))
        yield pb.DownloadArtifactResponse(sha256=sha256)

    def _admit(self, context: grpc.ServicerContext) -> None:
        shown = dict(context.invocation_metadata()).get("authorization")
        if self._token is not None and shown != f"Bearer {self._token}":
            context.abort_with_status(to_grpc(Unauthenticated("the token is missing or wrong")))

    def _found(self, job_id: str, context: grpc.ServicerContext) -> pb.Job:
        self._admit(context)
        if job_id not in self.jobs:
            context.abort_with_status(to_grpc(NotFound(f"there is no job {job_id}")))
        return self.jobs[job_id]


@dataclass
class Running:
    """A double behind a real socket of this machine."""

    service: JobServiceDouble
    server: grpc.Server
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.stop(None).wait()


def start(service: JobServiceDouble, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> Running:
    """Serves the double on a port of the loopback interface; 0 for any."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    rpc.add_JobServiceServicer_to_server(service, server)
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return Running(service, server, bound)


def document(**parts: Any) -> dict[str, Any]:
    """A small job's fields, with these parts instead."""
    return {
        "name": "small",
        "model": {"keras": {"class_name": "Sequential", "config": {}}},
        "data": {"train": {"builtin": "digits"}, "inputs": "image", "labels": "digit"},
        "loss": "mse",
        "optimizer": "sgd",
        "training": {"globalBatch": 32, "epochs": 1},
        **parts,
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
