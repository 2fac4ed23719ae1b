"""How much slower than itself this machine is: for limits that a test has to set in seconds."""

from __future__ import annotations

import os


def overload() -> float:
    """How many times as many threads want to compute as there are cores for; at least 1."""
    return max(os.getloadavg()[0] / len(os.sched_getaffinity(0)), 1.0)
