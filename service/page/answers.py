"""The JSON that the page shows."""

from __future__ import annotations

import json
from typing import Any

from gradwire.view import event_view, job_view
from service.api.messages import event_message, job_message
from service.store.base import JobStore

JOBS = 100
"""The newest that the page lists."""
EVENTS = 500
"""Of a job, in one answer; the page asks for the next ones by their cursor."""
SHOWN_OF_EVENT = ("cursor", "time", "kind", "message", "state", "step", "epoch", "metrics")


def jobs(store: JobStore) -> bytes:
    """The newest jobs, and how many there are in each state."""
    counts = {state.value: count for state, count in store.counts().items()}
    return _json({"counts": counts, "jobs": [job_view(job_message(record)) for record in store.page(JOBS, None)]})


def job(store: JobStore, job_id: str, after: int) -> bytes:
    """A job with its events after a cursor, and whether there are more. Raises `NotFound`."""
    record = store.get(job_id)
    events = [event_view(event_message(event)) for event in store.events(record.id, after, EVENTS)]
    return _json(
        {
            "job": job_view(job_message(record)),
            "events": [{name: event[name] for name in SHOWN_OF_EVENT} for event in events],
            "hasMore": len(events) == EVENTS,
        }
    )


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
