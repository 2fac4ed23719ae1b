"""Memory of our own that is zero until it is written."""

from __future__ import annotations

import contextlib
import mmap

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
