"""Shared memory: anonymous memory files, which go with the last process that has them, however it ends.

A segment has a name for people (`/proc/PID/fd`) and for words, but no path: its descriptor travels with a word over a
Unix socket. So the size of /dev/shm, 64 MB in most containers, is no limit.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import Self

from gradwire.errors import JobFailed
from workers.exchange.room import Room

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "gradwire"

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
"""Nobody changes the size afterwards: reading beyond the end of a file that has shrunk kills a process."""


def job_folder(service_id: str, job_id: str, generation: int) -> Path:
    """The folder of one start of a job's trainer: its socket lies there, and its segments are named by it."""
    return SHARED_MEMORY / f"{PREFIX}-{service_id}-{job_id}-{generation}"


class NotASegment(Exception):
    """A descriptor that is no memory file of a fixed size."""


class Segment:
    """Memory mapped for reading and writing (NumPy refuses to hand out read-only memory by DLPack).

    The mapping lives as long as a view of it does: there is no close that could pull memory from under an array.
    """

    def __init__(self, descriptor: int, buffer: mmap.mmap) -> None:
        self.descriptor = descriptor
        self.buffer = buffer

    def __del__(self) -> None:
        os.close(self.descriptor)  # the mapping has one of its own

    @classmethod
    def create(cls, name: str, size_bytes: int, *, reserve: bool = True) -> Self:
        """Makes a memory file. Without `reserve` its memory is taken as `reserve` is called, or as it is touched.

        Raises:
            JobFailed: there is not enough memory (code `shared_memory_full`).
        """
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
            made = cls(descriptor, mmap.mmap(descriptor, size_bytes))
        except (OSError, ValueError, OverflowError) as error:
            os.close(descriptor)
            raise _full(size_bytes, str(error)) from error
        if reserve:
            made.reserve(0, size_bytes)
        return made

    @classmethod
    def attach(cls, descriptor: int) -> Self:
        """Maps a memory file that another process made; the descriptor is the segment's from now on.

        Raises:
            NotASegment: it is something else, or somebody could still change its size.
        """
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
                raise NotASegment("its size is not sealed")
            return cls(descriptor, mmap.mmap(descriptor, os.fstat(descriptor).st_size))
        except (OSError, ValueError, NotASegment) as error:
            os.close(descriptor)
            raise NotASegment(str(error)) from error

    def reserve(self, start: int, size_bytes: int) -> None:
        """Takes the memory of a part now, so that too little is an error here and not a killed process later.

        Raises:
            JobFailed: there is not enough memory (code `shared_memory_full`).
        """
        if (why := Room.now().refusal(size_bytes)) is not None:
            raise _full(size_bytes, why)
        try:
            os.posix_fallocate(self.descriptor, start, size_bytes)
        except OSError as error:
            raise _full(size_bytes, str(error)) from error


def _full(size_bytes: int, why: str) -> JobFailed:
    message = f"no memory for {size_bytes} shared bytes: {why}; use a smaller model, fewer workers, or more memory"
    return JobFailed(message, code="shared_memory_full")
