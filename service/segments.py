"""Sockets in /dev/shm that processes of this service have left behind on this node."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
FRESH_S = 5.0
"""A folder that is younger may not have been taken yet."""


def remove_segments(
    service_id: str,
    job_id: str = "*",
    generation: int | str = "*",
    *,
    but: Collection[tuple[str, int]] = (),
    root: Path = SHARED_MEMORY,
) -> None:
    """Removes the sockets of one start of a job's trainer, or of the whole service `but` those of some starts.

    A trainer removes its own; one that was killed cannot.
    """
    kept = {f"gradwire-{service_id}-{job}-{start}" for job, start in but}
    for path in root.glob(f"gradwire-{service_id}-{job_id}-{generation}"):
        if path.name in kept:
            continue
        shutil.rmtree(path, ignore_errors=True)


def hold_segments(folder: Path) -> int:
    """Takes a folder for this process, until the descriptor that it returns is closed or the process ends."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def sweep_segments(service_id: str, *, root: Path = SHARED_MEMORY) -> None:
    """Removes the folders of the service that no living process of this node has taken: those of killed trainers."""
    for path in root.glob(f"gradwire-{service_id}-*"):
        if _is_nobodys(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_nobodys(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it has just been removed, or is another user's
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - os.fstat(lock).st_mtime >= FRESH_S
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
