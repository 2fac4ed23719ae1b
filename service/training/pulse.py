"""Who is hung: decided from how long nobody has heard of a worker, while somebody listened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SILENCE_S = 3.0
"""Workers send a heartbeat every half second, from a thread that does not compute."""

STARTING_SILENCE_S = 5.0
"""Before it is ready: importing TensorFlow and tracing hold Python's interpreter for over a second at a time."""

MAX_GAP_S = 0.5
"""Of the time between two looks no more counts: then the trainer was busy, or stopped, and heard nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """How long a worker has been silent."""

    worker_id: str
    silent_s: float
    is_ready: bool


def hung(pulses: Iterable[Pulse]) -> list[Pulse]:
    """Those who have been silent for too long. However slow a worker is, its heartbeats come."""
    return [pulse for pulse in pulses if pulse.silent_s > (SILENCE_S if pulse.is_ready else STARTING_SILENCE_S)]


class Listening:
    """Seconds that were spent listening, which are the clock that silence is measured by."""

    def __init__(self, now_s: float) -> None:
        self._looked_s = now_s
        self.seconds = 0.0

    def look(self, now_s: float) -> None:
        """Somebody has just heard what there was to hear."""
        self.seconds += min(now_s - self._looked_s, MAX_GAP_S)
        self._looked_s = now_s
