"""JobService: each method decodes its request, calls, and encodes the answer; errors are the interceptors' business."""

# ruff: noqa: N802 - the methods have the names of the protocol

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from typing import NoReturn

import grpc

from gradwire.errors import InvalidSpec, Unavailable, Unsupported, Violation
from protos.gradwire.v1 import service_pb2 as pb
from protos.gradwire.v1.service_pb2_grpc import JobServiceServicer
from service.api.messages import event_message, job_message
from service.api.submission import Submission
from service.api.transfer import Transfer
from service.api.watch import watch
from service.jobs.bulletin import Bulletin
from service.jobs.record import JobRecord
from service.store.base import JobStore

DEFAULT_PAGE = 100
MAX_PAGE = 1000
ANSWER_S = 10.0
"""How long a call waits for the supervisor."""

Context = grpc.ServicerContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What the API calls."""

    store: JobStore
    submission: Submission
    transfer: Transfer
    bulletin: Bulletin
    cancel: Callable[[str], Future[JobRecord]]
    pause: Callable[[str], Future[JobRecord]]
    resume: Callable[[str], Future[JobRecord]]
    scale: Callable[[str, int], Future[JobRecord]]


class Servicer(JobServiceServicer):
    """The API of one service."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.SubmitJobResponse:
        record = self._backend.submission.submit(request.spec, request.request_id)
        return pb.SubmitJobResponse(job=self._whole(record))

    def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=self._whole(self._backend.store.get(request.id)))

    def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        records = self._backend.store.page(size, _before(request.page_token))
        following = str(records[-1].sequence) if len(records) == size and records[-1].sequence > 1 else ""
        # Without the specifications: a page of large models would be larger than a message may be.
        return pb.ListJobsResponse(jobs=[job_message(record) for record in records], next_page_token=following)

    def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> Iterator[pb.WatchJobResponse]:
        events = watch(
            self._backend.store,
            self._backend.bulletin,
            request.id,
            request.cursor,
            is_active=context.is_active,
            on_hang_up=context.add_callback,
        )
        for event in events:
            yield pb.WatchJobResponse(event=event_message(event))

    def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        answer = self._backend.cancel(self._backend.store.get(request.id).id)
        return pb.CancelJobResponse(job=self._whole(_answer(answer)))

    def UploadArtifact(
        self, request_iterator: Iterator[pb.UploadArtifactRequest], context: Context
    ) -> pb.UploadArtifactResponse:
        sha256, size_bytes = self._backend.transfer.upload(request_iterator)
        return pb.UploadArtifactResponse(sha256=sha256, size_bytes=size_bytes)

    def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: Context
    ) -> Iterator[pb.DownloadArtifactResponse]:
        yield from self._backend.transfer.download(request)

    def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> pb.PauseJobResponse:
        answer = self._backend.pause(self._backend.store.get(request.id).id)
        return pb.PauseJobResponse(job=self._whole(_answer(answer)))

    def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> pb.ResumeJobResponse:
        answer = self._backend.resume(self._backend.store.get(request.id).id)
        return pb.ResumeJobResponse(job=self._whole(_answer(answer)))

    def ScaleJob(self, request: pb.ScaleJobRequest, context: Context) -> pb.ScaleJobResponse:
        record = _answer(self._backend.scale(self._backend.store.get(request.id).id, request.workers))
        return pb.ScaleJobResponse(job=self._whole(record), usable_workers=record.usable_workers)

    def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        _refuse("deleting a job")

    def CheckJob(self, request: pb.CheckJobRequest, context: Context) -> pb.CheckJobResponse:
        _refuse("checking a job without running it")

    def ReplayStep(self, request: pb.ReplayStepRequest, context: Context) -> pb.ReplayStepResponse:
        _refuse("replaying a step")

    def _whole(self, record: JobRecord) -> pb.Job:
        return job_message(record, self._backend.store.spec_json(record.id))


def _before(page_token: str) -> int | None:
    if not page_token:
        return None
    if not (page_token.isascii() and page_token.isdigit() and len(page_token) < 19):
        raise InvalidSpec([Violation("pageToken", f"{page_token[:40]!r} is none that this server gave")])
    return int(page_token)


def _answer(answer: Future[JobRecord]) -> JobRecord:
    try:
        return answer.result(ANSWER_S)
    except NotInTime:
        raise Unavailable(f"the supervisor did not answer within {ANSWER_S:.0f} s; look at the service's log") from None


def _refuse(what: str) -> NoReturn:
    raise Unsupported(f"{what} is not supported by this server")
