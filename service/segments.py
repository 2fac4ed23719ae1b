"""Sockets in /dev/shm that processes of this service have left behind on this node."""

from __future__ import annotations

import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def remove_segments(
    service_id: str, job_id: str = "*", generation: int | str = "*", root: Path = SHARED_MEMORY
) -> None:
    """Removes the sockets of one start of a job's trainer, or of the whole service.

    A trainer removes its own; one that was killed cannot.
    """
    for path in root.glob(f"gradwire-{service_id}-{job_id}-{generation}"):
        shutil.rmtree(path, ignore_errors=True)
