"""Files in and out of the storage, in chunks and with checksums."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from gradwire.errors import Exhausted, InvalidSpec, NotFound, Violation
from gradwire.storage import CHUNK_BYTES, Storage
from protos.gradwire.v1 import service_pb2 as pb
from service.store.base import JobStore

MAX_TRANSFERS = 16
"""Each holds a thread of the API."""
UPLOADS = "uploads"
JOB_FILES = {
    "log": "log",
    "export/keras": "export/model.keras",
    "export/saved_model": "export/saved_model.tar",
    "export/best/keras": "export/best/model.keras",
    "export/best/saved_model": "export/best/saved_model.tar",
}
"""What clients may ask for, and where it is below the job's folder."""
BEST = "export/best/"


TENSORBOARD = "tensorboard"
"""A folder below the job's, which goes out as a tar archive, at any time of the job's life."""


class Transfer:
    """Uploads and downloads; safe to call from any thread."""

    def __init__(self, storage: Storage, store: JobStore, max_upload_bytes: int) -> None:
        self._storage = storage
        self._store = store
        self._max_upload_bytes = max_upload_bytes
        self._slots = threading.BoundedSemaphore(MAX_TRANSFERS)

    def sweep(self) -> None:
        """Removes what unfinished uploads left behind."""
        self._storage.delete(UPLOADS)

    def upload(self, requests: Iterable[pb.UploadArtifactRequest]) -> tuple[str, int]:
        """Stores a file under its SHA-256; returns that and its size in bytes.

        A first chunk with the SHA-256 of a file that is there ends the upload. Raises `InvalidSpec` for a wrong or
        missing checksum and for chunks that are too large, `Exhausted` for files that are.
        """
        chunks = iter(requests)
        first = next(chunks, pb.UploadArtifactRequest())
        if re.fullmatch("[0-9a-f]{64}", first.sha256) and self._storage.exists(f"artifacts/{first.sha256}"):
            return first.sha256, self._storage.size_bytes(f"artifacts/{first.sha256}")
        name = f"{UPLOADS}/{secrets.token_hex(8)}"
        with self._slot():
            try:
                with self._storage.writing(name) as file:
                    sha256, size_bytes = self._receive(first, chunks, file)
                self._storage.rename(name, f"artifacts/{sha256}")
            except OSError as error:
                raise Exhausted(f"the server cannot store the file: {error.strerror or error}") from error
        return sha256, size_bytes

    def download(self, request: pb.DownloadArtifactRequest) -> Iterator[pb.DownloadArtifactResponse]:
        """A stored file's chunks: the first says its size, the last its SHA-256. Raises `NotFound`."""
        if request.job_file.name == TENSORBOARD:
            folder = self._folder(request.job_file.job_id)
            with self._slot(), tempfile.TemporaryFile() as file:
                pack(self._storage, folder, file)
                yield from _send(file, file.tell())
            return
        name = self._name(request)
        with self._slot(), self._storage.open(name) as file:
            yield from _send(file, self._storage.size_bytes(name))

    def _receive(
        self, first: pb.UploadArtifactRequest, chunks: Iterator[pb.UploadArtifactRequest], file: IO[Any]
    ) -> tuple[str, int]:
        digest, size_bytes, request = hashlib.sha256(), 0, first
        while True:
            size_bytes += len(request.data)
            if len(request.data) > CHUNK_BYTES:
                raise InvalidSpec([Violation("data", f"a chunk has at most {CHUNK_BYTES} bytes")])
            if size_bytes > self._max_upload_bytes:
                raise Exhausted(f"the file is larger than the {self._max_upload_bytes} bytes that this server takes")
            digest.update(request.data)
            file.write(request.data)
            following = next(chunks, None)
            if following is None:
                break
            request = following
        if request.sha256 != digest.hexdigest():
            what = f"{size_bytes} bytes with SHA-256 {digest.hexdigest()} arrived, not {request.sha256 or 'given'}"
            raise InvalidSpec([Violation("sha256", f"{what}; the last chunk must carry it; send the file again")])
        return digest.hexdigest(), size_bytes

    def _name(self, request: pb.DownloadArtifactRequest) -> str:
        if request.WhichOneof("what") == "artifact":
            name = f"artifacts/{request.artifact}"
            if not (re.fullmatch("[0-9a-f]{64}", request.artifact) and self._storage.exists(name)):
                raise NotFound(f"no artifact has the SHA-256 {request.artifact[:64]!r}; upload the file")
            return name
        job = self._store.get(request.job_file.job_id)
        wanted = request.job_file.name
        if wanted not in JOB_FILES:
            raise InvalidSpec(
                [Violation("jobFile.name", f"{wanted!r} must be one of {', '.join([*JOB_FILES, TENSORBOARD])}")]
            )
        name = f"jobs/{job.id}/{JOB_FILES[wanted]}"
        best = job.snapshot.best
        if wanted.startswith(BEST) and best is not None and wanted.removeprefix(BEST) in best.exports:
            # It lies there only if it is another than the job's own.
            name = name if self._storage.exists(name) else name.replace(f"/{BEST}", "/export/")
        if not self._storage.exists(name):
            raise NotFound(f"job {job.id} has no {wanted}; it is {job.state}, and exports come at a job's end")
        return name

    def _folder(self, job_id: str) -> str:
        folder = f"jobs/{self._store.get(job_id).id}/{TENSORBOARD}"
        if not self._storage.exists(folder):
            raise NotFound(f"job {job_id} has written nothing for TensorBoard yet; it does from its first step on")
        return folder

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise Exhausted(f"{MAX_TRANSFERS} files are on their way, and the server takes no more; try again")
        try:
            yield
        finally:
            self._slots.release()


def pack(storage: Storage, folder: str, file: IO[bytes]) -> None:
    """Writes a tar archive of a folder's folders of files, as they are now, under the folder's own name."""
    with tarfile.open(fileobj=file, mode="w") as archive:
        for run in storage.names(folder):
            for name in storage.names(f"{folder}/{run}"):
                content = storage.read(f"{folder}/{run}/{name}")
                member = tarfile.TarInfo(f"{folder.rpartition('/')[2]}/{run}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _send(file: IO[Any], size_bytes: int) -> Iterator[pb.DownloadArtifactResponse]:
    """So many bytes from the file's begin; a log may grow meanwhile."""
    left, digest = size_bytes, hashlib.sha256()
    file.seek(0)
    is_first = True
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        left -= len(chunk)
        digest.update(chunk)
        yield pb.DownloadArtifactResponse(data=chunk, size_bytes=size_bytes if is_first else 0)
        is_first = False
    yield pb.DownloadArtifactResponse(size_bytes=size_bytes if is_first else 0, sha256=digest.hexdigest())
