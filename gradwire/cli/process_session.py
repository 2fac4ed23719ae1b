"""The processes of one session of the operating system: all that a child and its children started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
KILL_TIMEOUT_S = 5.0
"""A process that the kernel holds in a device's call outlives even SIGKILL; it is not waited for any longer."""
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Member:
    """A process; its start time tells it from a later one of the same number."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    is_zombie: bool


def members(session: int) -> set[Member]:
    """The living processes of a session, and their descendants in other sessions."""
    everyone = [member for path in PROC.glob("[0-9]*") if (member := _read(path)) is not None]
    found = {member for member in everyone if member.session == session}
    while True:
        pids = {member.pid for member in found}
        more = {member for member in everyone if member.parent in pids} - found
        if not more:
            return {member for member in found if not member.is_zombie}
        found |= more


def kill(found: set[Member]) -> None:
    """Kills those that are still alive, and waits until they are gone."""
    for member in found:
        if _is_alive(member):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while any(_is_alive(member) for member in found) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _is_alive(member: Member) -> bool:
    now = _read(PROC / str(member.pid))
    return now is not None and now.start_ticks == member.start_ticks and not now.is_zombie


def _read(path: Path) -> Member | None:
    """From /proc/PID/stat, see proc(5): state, parent, group and session come after the name in brackets."""
    try:
        words = (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None  # it ended meanwhile
    return Member(
        pid=int(path.name),
        parent=int(words[1]),
        session=int(words[3]),
        start_ticks=int(words[19]),
        is_zombie=words[0] in "ZX",
    )
