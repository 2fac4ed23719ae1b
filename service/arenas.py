"""The C library's heaps: few of them, so that what one thread has given back serves the others."""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8
"""See mallopt(3); glibc's number for the setting."""
ARENAS = 2
"""By default each of some tens of threads, most of them gRPC's and Ray's, gets a heap of its own up to eight for each
core; the memory that a job's threads have used then lies scattered over them, and the process grows with every job."""


def use_few_arenas() -> None:
    """To be called before other threads are started; elsewhere than with glibc it changes nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)
