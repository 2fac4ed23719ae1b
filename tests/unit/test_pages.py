"""Memory of our own: zero, on a boundary, and by huge pages where that is wanted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from workers.pages import HUGE_BYTES, pages, taken


def flags_at(address: int) -> str:
    """Of the mapping that holds an address, as the kernel tells them."""
    is_it = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            is_it = low <= address < high
        elif is_it and first == "VmFlags:":
            return rest
    return ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
@pytest.mark.parametrize(
    ("size", "are_huge", "expected"), [(HUGE_BYTES, True, True), (HUGE_BYTES, False, False), (4096, True, False)]
)
def test_large_memory_asks_for_huge_pages_where_it_will_be_used(size: int, are_huge: bool, expected: bool) -> None:
    memory = np.frombuffer(pages(size, are_huge=are_huge), np.uint8)
    assert memory.size == size and not memory[:4096].any() and memory.ctypes.data % 4096 == 0
    assert ("hg" in flags_at(memory.ctypes.data).split()) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes pages without writing them")
def test_pages_are_taken_and_what_lies_there_stays() -> None:
    memory = pages(HUGE_BYTES)
    numbers = np.frombuffer(memory, np.uint8)
    numbers[5_000_000] = 7
    before = psutil.Process().memory_info().rss
    taken([memory]).join()
    assert psutil.Process().memory_info().rss - before > HUGE_BYTES / 2
    assert numbers[5_000_000] == 7 and np.count_nonzero(numbers) == 1
