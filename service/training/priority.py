"""The priority of a thread."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOWEST = 19


def take_what_is_left() -> None:
    """Gives the calling thread the lowest priority, so that it runs where training leaves a core idle.

    Linux gives each thread its own nice value (setpriority(2), notes); elsewhere nothing is changed.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some sandboxes forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
