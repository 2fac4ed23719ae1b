"""Takes a submitted specification in: checks all that can be checked without TensorFlow, and queues the job."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gradwire import model_archive
from gradwire.errors import InvalidSpec, Violation
from gradwire.spec import check
from gradwire.spec.digest import spec_digest
from gradwire.spec.file_refs import file_refs
from gradwire.spec.job import FileRef, JobSpec
from gradwire.spec.wire import from_proto
from gradwire.storage import Storage
from protos.gradwire.v1 import spec_pb2
from service.jobs.journal import Journal
from service.jobs.record import JobRecord

MAX_REQUEST_ID_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The way in. `submitted` is told the id of every new job."""

    journal: Journal
    storage: Storage
    data_root: Path | None
    allow_code: bool
    trust: tuple[str, ...]
    wall: Callable[[], float]
    submitted: Callable[[str], None]

    def submit(self, message: spec_pb2.JobSpec, request_id: str) -> JobRecord:
        """Queues a job; the same request id gives the job that it made. An empty id is not remembered.

        Raises `InvalidSpec` with every violation, `AlreadyExists` if the request id made a job from another
        specification, `Exhausted` if too many jobs wait.
        """
        if len(request_id) > MAX_REQUEST_ID_CHARS:
            what = f"has {len(request_id)} characters; at most {MAX_REQUEST_ID_CHARS} are taken"
            raise InvalidSpec([Violation("requestId", what)])
        spec = from_proto(message)
        self._require_acceptable(spec)
        job_id = secrets.token_hex(6)
        record = JobRecord(
            id=job_id,
            name=spec.name,
            request_id=request_id or f"job-{job_id}",
            spec_digest=spec_digest(spec),
            resources=spec.resources,
            shards=spec.training.shards,
            created_at_s=self.wall(),
            state_reason="queued",
        )
        stored, is_new = self.journal.submit(record, spec.model_dump_json(by_alias=True))
        if is_new:
            self.submitted(stored.id)
        return stored

    def _require_acceptable(self, spec: JobSpec) -> None:
        found = check.violations(
            spec, trust=self.trust, allow_code=self.allow_code, has_data_root=self.data_root is not None
        )
        known = {violation.field for violation in found}
        for field, file in file_refs(spec):
            if field not in known:
                found += self._missing(field, file)
        if not found:
            found += self._archive(spec)
        if found:
            raise InvalidSpec(found)

    def _archive(self, spec: JobSpec) -> list[Violation]:
        """What the gate says of the config in an archive, which is read as far as that and no further."""
        file = spec.model.archive
        if file is None:
            return []
        try:
            with self._opened(file) as content:
                return model_archive.violations(content, self.trust)
        except OSError as error:
            return [Violation("model.archive", f"cannot be read: {error}")]

    def _opened(self, file: FileRef) -> IO[bytes]:
        if file.server_path is not None and self.data_root is not None:
            return (self.data_root / file.server_path).open("rb")
        return self.storage.open(f"artifacts/{file.artifact}")

    def _missing(self, field: str, file: FileRef) -> Iterator[Violation]:
        if file.artifact is not None and not self.storage.exists(f"artifacts/{file.artifact}"):
            name = file.label or "the file"
            yield Violation(field, f"{name} (SHA-256 {file.artifact}) is not on the server; upload it first")
        if file.server_path is not None and self.data_root is not None:
            fault = server_path_fault(self.data_root, file.server_path)
            if fault:
                yield Violation(field, f"server:{file.server_path} {fault}")


def server_path_fault(data_root: Path, server_path: str) -> str:
    """What is wrong with a path below the data root, links followed; empty if it names a file there."""
    try:
        root = data_root.resolve()
        path = (root / server_path).resolve()
        if not path.is_relative_to(root):
            return "leads out of the server's data root; name a file below it"
        if not path.exists():
            return "is not there; the path is relative to the server's --data-root"
        return "" if path.is_file() else "is no file"
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        return f"cannot be reached: {error}"
