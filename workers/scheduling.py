"""How the kernel shares cores between the processes of a job."""

from __future__ import annotations

import contextlib
import os


def prefer_trainer() -> None:
    """From now on this thread, and those that it starts, do not take a core from others by waking up.

    A worker that is told to begin would else take the core of the trainer that is about to tell the next worker, which
    made a small model's step a quarter longer. Batch threads have the same share of the processor as others.
    """
    with contextlib.suppress(OSError):  # a container may forbid it; then steps are a little longer
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
