"""Whether a process that Ray does not reach is given up: a network that fails for a moment costs nobody's work."""

from __future__ import annotations

from dataclasses import dataclass

LOST_S = 10.0
"""By then Ray has found a node dead whose machine refuses connections, and tells so; longer nobody waits for a job."""
AGAIN_S = 0.5
"""After so long it is asked again."""


@dataclass(frozen=True, slots=True)
class Contact:
    """Since when a process has been out of reach, in seconds of a clock that never goes back."""

    missed_since_s: float | None = None

    @property
    def is_missed(self) -> bool:
        """Whether Ray did not reach it when it was last asked; it may well be at work."""
        return self.missed_since_s is not None

    def missed(self, now_s: float) -> Contact:
        """Ray said, at `now_s`, that it is temporarily unavailable."""
        return self if self.is_missed else Contact(now_s)

    def is_lost(self, now_s: float) -> bool:
        """Whether it has been out of reach for so long that it is given up."""
        return self.missed_since_s is not None and now_s - self.missed_since_s >= LOST_S
