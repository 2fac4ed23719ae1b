"""Files on the wire: a file's chunks with its checksum, and chunks into a file, checked before it has its name."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from gradwire.errors import GradwireError
from protos.gradwire.v1 import service_pb2 as pb

CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload_requests(path: Path, sha256: str) -> Iterator[pb.UploadArtifactRequest]:
    """A file's chunks. First and last carry the checksum: the first lets the server say that it has the file."""
    with path.open("rb") as file:
        chunk, is_first = file.read(CHUNK_BYTES), True
        while chunk or is_first:
            following = file.read(CHUNK_BYTES)
            yield pb.UploadArtifactRequest(data=chunk, sha256=sha256 if is_first or not following else "")
            chunk, is_first = following, False


def write_download(responses: Iterable[pb.DownloadArtifactResponse], target: Path) -> None:
    """Writes the chunks of a download to `target`, which appears only when size and checksum are right.

    Raises `GradwireError` with the code `checksum_mismatch` if they are not; `OSError` if the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            for data in checked_chunks(responses):
                file.write(data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def checked_chunks(responses: Iterable[pb.DownloadArtifactResponse]) -> Iterator[bytes]:
    """The bytes of a download, chunk by chunk; raises at its end if size or checksum are wrong."""
    digest, size_bytes, expected_bytes, sha256 = hashlib.sha256(), 0, 0, ""
    for response in responses:
        digest.update(response.data)
        size_bytes += len(response.data)
        expected_bytes = expected_bytes or int(response.size_bytes)
        sha256 = response.sha256 or sha256
        yield response.data
    if sha256 != digest.hexdigest() or size_bytes != expected_bytes:
        raise GradwireError(
            f"the download is damaged: {size_bytes} of {expected_bytes} bytes with SHA-256 {digest.hexdigest()}, "
            f"announced as {sha256 or 'nothing'}; try again",
            code="checksum_mismatch",
        )
