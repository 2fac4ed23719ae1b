"""The states of a job, and the moves between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from gradwire.errors import GradwireError


class JobState(StrEnum):
    """What a job is doing, in the word that users see."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    RECOVERING = "RECOVERING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


MOVES: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.STARTING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
        JobState.STARTING: frozenset(
            {JobState.RUNNING, JobState.PAUSED, JobState.RECOVERING, JobState.FAILED, JobState.CANCELLED}
        ),
        JobState.RUNNING: frozenset(
            {JobState.PAUSED, JobState.RECOVERING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
        ),
        JobState.PAUSED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
        JobState.RECOVERING: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
        JobState.SUCCEEDED: frozenset(),
        JobState.FAILED: frozenset(),
        JobState.CANCELLED: frozenset(),
    }
)
"""From each state, the states that may follow it."""

ENDED = frozenset(state for state, following in MOVES.items() if not following)
LIVE = frozenset(JobState) - ENDED


class IllegalMove(GradwireError):
    """The coordinator tried a move that the table does not have: a fault of the program."""

    code = "illegal_move"


def require_move(job_id: str, old: JobState, new: JobState) -> None:
    """Raises `IllegalMove` unless the table has the move."""
    if new not in MOVES[old]:
        allowed = ", ".join(sorted(MOVES[old])) or "nothing"
        raise IllegalMove(f"job {job_id} cannot go from {old} to {new}; after {old} comes {allowed}")
