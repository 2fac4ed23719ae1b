"""How much memory this process may still take.

Nothing limits anonymous memory files but memory itself, and the kernel kills somebody rather than refuse a page. So
we look before we take.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

KEEP_BYTES = 64 * 2**20
"""So much is left to others: what we read is a moment old."""


@dataclass(frozen=True, slots=True)
class Room:
    """Free bytes, and what bounds them."""

    free_bytes: int
    bound: str

    @classmethod
    def now(cls, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Self:
        """The tightest bound: the machine's memory, or the limit of a control group (a container) around us."""
        found = [cls(_available(proc / "meminfo"), "the machine's memory")]
        for folder in _folders(proc / "self" / "cgroup", cgroups):
            with contextlib.suppress(OSError, ValueError, KeyError):  # no limit here ("max"), or no such file
                limit = int((folder / "memory.max").read_text())
                used = int((folder / "memory.current").read_text())
                reclaimable = _numbers(folder / "memory.stat")["inactive_file"]
                found.append(cls(limit - used + reclaimable, f"the memory limit of {limit} bytes of its container"))
        return min(found, key=lambda room: room.free_bytes)

    def refusal(self, size_bytes: int) -> str | None:
        """Why so many bytes cannot be taken, or None."""
        if size_bytes + KEEP_BYTES <= self.free_bytes:
            return None
        return f"{self.bound} has {max(self.free_bytes, 0)} bytes free"


def _available(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{meminfo} does not say what is available")


def _folders(own: Path, cgroups: Path) -> list[Path]:
    """The folders of this process's control group and of those around it (version 2)."""
    lines = own.read_text().splitlines() if own.exists() else []
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    pure = PurePosixPath(path)
    return [cgroups / part.relative_to("/") for part in (pure, *pure.parents) if part.is_absolute()]


def _numbers(stat: Path) -> dict[str, int]:
    pairs = (line.split() for line in stat.read_text().splitlines())
    return {name: int(value) for name, value in pairs}
