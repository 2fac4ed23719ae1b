"""The Python client: submits jobs to a server, watches and steers them, and moves their files."""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from gradwire import packing
from gradwire.channel import open_channel, read_token
from gradwire.errors import GradwireError, InvalidSpec, Unavailable, Violation
from gradwire.spec import file as job_file
from gradwire.spec.file_refs import file_refs, path_fault, with_file_refs
from gradwire.spec.job import MAX_WORKERS, FileRef, JobSpec
from gradwire.spec.wire import to_proto
from gradwire.status import from_grpc
from gradwire.transfer import file_sha256, upload_requests, write_download
from protos.gradwire.v1 import service_pb2 as pb
from protos.gradwire.v1.service_pb2_grpc import JobServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50551"
TRANSFER_DEADLINE_S = 4 * 3600.0
WATCH_DEADLINE_S = 3600.0
"""A watch is opened anew after this time, from its cursor."""
RETRY_PAUSES_S = (0.2, 0.6)
"""Between the attempts of a call that the server was not there for."""
RECONNECT_PAUSE_S = (0.1, 2.0)
"""The first pause before a lost watch is opened anew, and the longest; each is twice the one before."""
STEADY_S = 5.0
"""A stream that lived this long was connected."""
MAX_SPEC_BYTES = 3 << 20
"""A server takes messages up to 4 MiB."""
PAGE_SIZE = 100

ENDED = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})

T = TypeVar("T")


class Client:
    """A connection to one server; safe to use from several threads, and a context manager that closes it.

    `token` (or the first line of `token_file`) is shown to the server; `tls_cert` names a PEM file of the certificates
    to trust, without which nothing is encrypted and no token goes to another machine. `timeout_s` bounds each call but
    transfers and watches; `reconnect_s` is how long a lost watch tries to find the server again.

    All methods raise the errors of `gradwire.errors`; `Unavailable` if no server answers. A job is given as a `Job` or
    by its id, or a beginning of the id that only one job has.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        tls_cert: str | Path | None = None,
        timeout_s: float = 30.0,
        reconnect_s: float = 60.0,
    ) -> None:
        token = read_token(token, token_file)
        self.address = address
        self._channel = open_channel(address, has_token=token is not None, tls_cert=tls_cert)
        self._stub = JobServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call that is under way."""
        self._channel.close()

    def submit(self, spec: JobSpec | Mapping[str, Any] | str | Path, request_id: str | None = None) -> pb.Job:
        """Uploads the files that the server does not have, then queues a job; returns it.

        `spec` is a specification, the fields of a job file as a mapping (paths relative to the working folder), or the
        path of a job file. Two calls with one `request_id` make one job; without it every call makes its own, and only
        its retries share an id.
        """
        if isinstance(spec, str | Path):
            spec = job_file.load(spec)
        elif not isinstance(spec, JobSpec):
            spec = job_file.parse(spec)
        message = to_proto(self._with_uploads(spec))
        if message.ByteSize() > MAX_SPEC_BYTES:
            size_mib = message.ByteSize() / (1 << 20)
            raise InvalidSpec(
                [
                    Violation(
                        "model", f"takes {size_mib:.1f} MiB with the rest of the job; a job has {MAX_SPEC_BYTES >> 20}"
                    )
                ]
            )
        request = pb.SubmitJobRequest(request_id=request_id or uuid.uuid4().hex, spec=message)
        return self._call(self._stub.SubmitJob, request).job

    def get(self, job: pb.Job | str) -> pb.Job:
        """The job as it is now."""
        return self._call(self._stub.GetJob, pb.GetJobRequest(id=_id(job))).job

    def list(self) -> Sequence[pb.Job]:
        """All jobs, newest first."""
        jobs: dict[str, pb.Job] = {}
        tokens, token = set(), ""
        while token not in tokens:
            tokens.add(token)
            page = self._call(self._stub.ListJobs, pb.ListJobsRequest(page_size=PAGE_SIZE, page_token=token))
            jobs.update((job.id, job) for job in page.jobs)
            token = page.next_page_token
            if not token:
                break
        return [*jobs.values()]

    def watch(self, job: pb.Job | str, cursor: int = 0) -> Iterator[pb.JobEvent]:
        """The job's events after a cursor, each once and in order, as they happen; ends when the job has ended.

        Goes on from the last event when the connection is lost; raises `Unavailable` if the server is not there at
        first, or not again within `reconnect_s`.
        """
        job_id = self.get(job).id
        lost_since, pause_s = time.monotonic(), RECONNECT_PAUSE_S[0]
        while True:
            opened = time.monotonic()
            failure: Unavailable | None = None
            try:
                for event in self._events(job_id, cursor):
                    if event.cursor > cursor:
                        cursor, lost_since, pause_s = event.cursor, time.monotonic(), RECONNECT_PAUSE_S[0]
                        yield event
                # A server that shuts down may end the stream of a job that goes on.
                now = self.get(job_id)
                if now.state in ENDED and cursor >= now.cursor:
                    return
            except Unavailable as error:
                failure = error
            if time.monotonic() - opened >= STEADY_S:
                lost_since, pause_s = time.monotonic(), RECONNECT_PAUSE_S[0]
            if time.monotonic() - lost_since >= self._reconnect_s:
                raise failure or Unavailable(f"the server at {self.address} ends the events of job {job_id} too early")
            time.sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(2 * pause_s, RECONNECT_PAUSE_S[1])

    def cancel(self, job: pb.Job | str) -> pb.Job:
        """Asks the job to end; what it has finished stays."""
        return self._call(self._stub.CancelJob, pb.CancelJobRequest(id=_id(job))).job

    def pause(self, job: pb.Job | str) -> pb.Job:
        """Asks the job to write a checkpoint and to give its workers back; it waits until it is resumed."""
        return self._call(self._stub.PauseJob, pb.PauseJobRequest(id=_id(job))).job

    def resume(self, job: pb.Job | str) -> pb.Job:
        """Queues a paused job again, which goes on with the same result; one that is not paused stays as it is."""
        return self._call(self._stub.ResumeJob, pb.ResumeJobRequest(id=_id(job))).job

    def scale(self, job: pb.Job | str, workers: int) -> pb.ScaleJobResponse:
        """Sets how many workers the job shall have, while it runs or waits; its result stays the same.

        The answer's `usable_workers` says how many of them can be used: no more than the job has gradient shards.
        """
        if not 0 <= workers <= MAX_WORKERS:  # what no message can carry; the server knows what the job can have
            raise InvalidSpec([Violation("workers", f"must be from 1 to {MAX_WORKERS}, not {workers}")])
        return self._call(self._stub.ScaleJob, pb.ScaleJobRequest(id=_id(job), workers=workers))

    def delete(self, job: pb.Job | str) -> None:
        """Removes a job that has ended, with its files."""
        self._call(self._stub.DeleteJob, pb.DeleteJobRequest(id=_id(job)))

    def upload(self, path: str | Path) -> str:
        """Uploads a file, or a source folder as a zip archive, unless the server has it; returns its SHA-256."""
        path = Path(path)
        if not path.is_dir():
            return self._upload_file(path)
        with tempfile.TemporaryDirectory(prefix="gradwire-") as folder:
            archive = Path(folder) / "source.zip"
            packing.pack(path, archive)
            return self._upload_file(archive)

    def download(self, job_or_artifact: pb.Job | str, name: str | None, target: str | Path) -> Path:
        """Writes a file of a job to `target`, which appears only when it is whole and its checksum right; returns it.

        `name` is "log", "export/keras", or one of the tar archives "export/saved_model" and "tensorboard"; with
        "export/best/…" in their place, exports are of the best evaluation. Without a name, an uploaded artifact is
        meant, named by its SHA-256. Raises `OSError` if the file cannot be written.
        """
        target = Path(target)
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder; name the file to write")
        if name is None:
            request = pb.DownloadArtifactRequest(artifact=_id(job_or_artifact))
        else:
            request = pb.DownloadArtifactRequest(job_file=pb.JobFile(job_id=_id(job_or_artifact), name=name))

        def attempt() -> None:
            responses = self._stub.DownloadArtifact(request, timeout=TRANSFER_DEADLINE_S, metadata=self._metadata)
            try:
                write_download(responses, target)
            finally:
                responses.cancel()

        self._retried(attempt)
        return target

    def _upload_file(self, path: Path) -> str:
        sha256 = file_sha256(path)

        def attempt() -> pb.UploadArtifactResponse:
            requests = upload_requests(path, sha256)
            return self._stub.UploadArtifact(requests, timeout=TRANSFER_DEADLINE_S, metadata=self._metadata)

        stored = self._retried(attempt).sha256
        if stored != sha256:
            raise GradwireError(
                f"{path} arrived at the server with SHA-256 {stored} instead of {sha256}; try again",
                code="checksum_mismatch",
            )
        return sha256

    def _with_uploads(self, spec: JobSpec) -> JobSpec:
        """The specification with its local files uploaded; nothing is sent unless all of them are there."""
        local = [(field, file, Path(file.path)) for field, file in file_refs(spec) if file.path is not None]
        faults = [(field, path, path_fault(field, path)) for field, _, path in local]
        if violations := [Violation(field, f"{path} {fault}") for field, path, fault in faults if fault]:
            raise InvalidSpec(violations)
        uploaded = {
            field: FileRef(artifact=self.upload(path), label=file.label or path.name) for field, file, path in local
        }
        return with_file_refs(spec, uploaded.get)

    def _events(self, job_id: str, cursor: int) -> Iterator[pb.JobEvent]:
        request = pb.WatchJobRequest(id=job_id, cursor=cursor)
        responses = self._stub.WatchJob(request, timeout=WATCH_DEADLINE_S, metadata=self._metadata)
        try:
            for response in responses:
                yield response.event
        except grpc.RpcError as error:
            raise from_grpc(error, self.address) from error
        finally:
            responses.cancel()

    def _call(self, method: Callable[..., T], request: object) -> T:
        return self._retried(lambda: method(request, timeout=self._timeout_s, metadata=self._metadata))

    def _retried(self, attempt: Callable[[], T]) -> T:
        """One call, made again where the server was not there; every call can be repeated without harm."""
        for pause_s in RETRY_PAUSES_S:
            try:
                return self._translated(attempt)
            except Unavailable as error:
                if error.code == "deadline_exceeded":
                    raise
            time.sleep(pause_s)
        return self._translated(attempt)

    def _translated(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except grpc.RpcError as error:
            raise from_grpc(error, self.address) from error


def _id(job: pb.Job | str) -> str:
    return job if isinstance(job, str) else job.id
