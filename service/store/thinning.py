"""How a job's events stay few: in a long job, fewer and fewer progress events are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from service.jobs.event import JobEvent
from service.jobs.record import JobRecord

FULL_EVENTS = 5000
"""Up to so many events, a job keeps all."""
DOUBLING_EVENTS = 1000
"""After every so many more, only half as many progress events are kept as before."""


def stride(cursor: int) -> int:
    """One of how many progress events is kept, for a job that has `cursor` events."""
    return 1 if cursor < FULL_EVENTS else 2 ** ((cursor - FULL_EVENTS) // DOUBLING_EVENTS + 1)


def append(record: JobRecord, events: Iterable[JobEvent]) -> tuple[JobRecord, list[JobEvent]]:
    """The record after the events, and those of them that are kept, with their cursors.

    Only progress is thinned out; what happens once (states, evaluations, checkpoints, workers) always stays.
    """
    cursor, offered, kept = record.cursor, record.progress_offered, []
    for event in events:
        if event.kind == "progress":
            offered += 1
            if offered % stride(cursor):
                continue
        cursor += 1
        kept.append(replace(event, cursor=cursor))
    return replace(record, cursor=cursor, progress_offered=offered), kept
