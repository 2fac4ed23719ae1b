"""Records and events as JSON text, for stores that keep text."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from service.jobs.event import JobEvent
from service.jobs.record import JobRecord

_RECORD = TypeAdapter(JobRecord)
_EVENT = TypeAdapter(JobEvent)


def record_text(record: JobRecord) -> str:
    """A record; what is not finite stays so, as Python's JSON writes it."""
    return json.dumps(_RECORD.dump_python(record), separators=(",", ":"))


def event_text(event: JobEvent) -> str:
    """An event, likewise."""
    return json.dumps(_EVENT.dump_python(event), separators=(",", ":"))


def record_of(text: str) -> JobRecord:
    """The record that `record_text` wrote."""
    return _RECORD.validate_python(json.loads(text))


def event_of(text: str) -> JobEvent:
    """The event that `event_text` wrote."""
    return _EVENT.validate_python(json.loads(text))
