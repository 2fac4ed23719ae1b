"""Memory of our own that is zero until it is written."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Sequence
from threading import Thread

import numpy as np

HUGE_BYTES = 64 << 20
"""Less is taken by small pages."""


def pages(size_bytes: int, *, are_huge: bool = True) -> mmap.mmap:
    """So many bytes, at least one, from the beginning of a page on.

    A page is taken when it is first written to, which on a virtual machine may take 15 µs for each 4 KiB: Linux is
    asked for pages of 2 MiB, unless large parts of the memory may never be used (`are_huge`).
    """
    made = mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if are_huge and size_bytes >= HUGE_BYTES and advice is not None:
        with contextlib.suppress(OSError):  # a kernel without them
            made.madvise(advice)
    return made


POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of madvise(2), Linux 5.14: takes pages as a write would, and writes nothing."""
TAKEN_BYTES = 32 << 20
"""So much at once."""


def taken(memories: Sequence[mmap.mmap]) -> Thread:
    """Takes all pages of these memories in a thread that is under way, whoever writes them meanwhile; where the system
    cannot, they are taken as they are written."""
    thread = Thread(target=_take, args=(memories,), name="pages", daemon=True)
    thread.start()
    return thread


def _take(memories: Sequence[mmap.mmap]) -> None:
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise  # mmap's own would hold the interpreter's lock
    for memory in memories:
        view = np.frombuffer(memory, np.uint8)
        for start in range(0, view.size, TAKEN_BYTES):
            size = min(TAKEN_BYTES, view.size - start)
            if advise(ctypes.c_void_p(view.ctypes.data + start), ctypes.c_size_t(size), POPULATE_WRITE):
                return
