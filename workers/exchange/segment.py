"""Shared memory: our own mapped files, since Python's SharedMemory unlinks segments that others own."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Self

from gradwire.errors import JobFailed

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "gradwire"


def job_folder(service_id: str, job_id: str, generation: int) -> Path:
    """The folder of one start of a job's trainer: its segments and its socket."""
    return SHARED_MEMORY / f"{PREFIX}-{service_id}-{job_id}-{generation}"


class Segment:
    """A file in memory, mapped for reading and writing (NumPy refuses to hand out read-only memory by DLPack).

    The mapping lives as long as a view of it does: there is no close that could pull memory from under an array.
    """

    def __init__(self, path: Path, buffer: mmap.mmap) -> None:
        self.path = path
        self.buffer = buffer

    @classmethod
    def create(cls, path: Path, size_bytes: int, *, reserve: bool = True) -> Self:
        """Makes the file. `reserve` takes the memory now, so that a full /dev/shm is an error here, not a crash later.

        Raises:
            JobFailed: shared memory is too small (code `shared_memory_full`).
        """
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            if reserve:
                os.posix_fallocate(descriptor, 0, size_bytes)
            else:
                os.ftruncate(descriptor, size_bytes)
            return cls(path, mmap.mmap(descriptor, size_bytes))
        except OSError as error:
            path.unlink(missing_ok=True)
            raise JobFailed(
                f"{SHARED_MEMORY} has no room for {size_bytes} bytes ({error.strerror}); enlarge it (docker: shm_size)",
                code="shared_memory_full",
            ) from error
        finally:
            os.close(descriptor)

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Maps a file that another process made."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            return cls(path, mmap.mmap(descriptor, os.fstat(descriptor).st_size))
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        """Removes the name; the memory goes when the last process unmaps it."""
        self.path.unlink(missing_ok=True)
