"""Reads what the system knows of processes and of the loopback device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

MEGABYTE = 1e6


def proportional_mb(pid: int) -> float:
    """A process's proportional set size: shared pages count by their share. 0 for one that has ended."""
    return _mapped_mb(pid, "Pss:")


def anonymous_mb(pid: int) -> float:
    """What a process has of its own, without files that are mapped. 0 for one that has ended."""
    return _mapped_mb(pid, "Anonymous:")


def _mapped_mb(pid: int, field: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / MEGABYTE
    return 0.0


def memory(roles: Iterable[tuple[str, int]]) -> Mapping[str, float]:
    """Role -> megabytes, of (role, pid); processes of one role are added up."""
    found: dict[str, float] = {}
    for role, pid in roles:
        found[role] = found.get(role, 0.0) + proportional_mb(pid)
    return found


def descendants(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """That a process and all below it have used so far."""
    total = 0.0
    for process in descendants(pid):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def loopback_bytes(pid: int) -> int:
    """That the loopback device of a process's network has carried so far, for all who are in that network."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        device, _, counts = line.partition(":")
        if device.strip() == "lo":
            return int(counts.split()[0])
    return 0
