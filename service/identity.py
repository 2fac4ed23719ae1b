"""Which process is meant: a number alone may soon be another's. Works where /proc is; without it nothing is found."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Identity:
    """A process of one machine, by its number and the time of its start in clock ticks since the machine's."""

    pid: int
    start_ticks: int

    @classmethod
    def own(cls) -> Identity:
        """This process."""
        return cls(os.getpid(), (_stat(os.getpid()) or ("", 0))[1])

    def is_alive(self) -> bool:
        """Whether it is on this machine and has not ended; stopped processes are alive."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.start_ticks and found[0] not in "ZX"

    def end(self, timeout_s: float) -> bool:
        """Kills it, stopped or not, and waits until it is gone; returns whether it is, or was never here."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return False  # the kernel holds it in a device's call
            time.sleep(POLL_S)
        return True


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start time from /proc/PID/stat, see proc(5): they come after the name in brackets."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])
