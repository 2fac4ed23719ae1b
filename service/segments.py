"""Sockets in /dev/shm that processes of this service have left behind on this node."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


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
