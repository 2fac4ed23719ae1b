"""The events of a job as they happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gradwire.errors import Unavailable
from service.jobs.bulletin import Bulletin
from service.jobs.event import JobEvent
from service.store.base import JobStore

PAGE_EVENTS = 500
RECHECK_S = 30.0
"""The store is read so often even if nothing was published; only a guard against a lost wake-up."""


def watch(
    store: JobStore,
    bulletin: Bulletin,
    job_id: str,
    cursor: int,
    *,
    is_active: Callable[[], bool],
    on_hang_up: Callable[[Callable[[], None]], bool],
) -> Iterator[JobEvent]:
    """The job's events after a cursor; ends when the job has ended and all are sent, or when the client hung up.

    `on_hang_up` takes what is to be called then, and says whether it will be. Raises `NotFound`, `Exhausted` if too
    many watch, `Unavailable` if the service stops.
    """
    job_id = store.get(job_id).id
    with bulletin.watching(job_id) as signal:
        if not on_hang_up(signal.set):
            return
        while is_active():
            signal.clear()
            # Read in this order: a job that has ended gets no event more.
            has_ended = store.get(job_id).has_ended
            events = store.events(job_id, cursor, PAGE_EVENTS)
            yield from events
            cursor = events[-1].cursor if events else cursor
            if has_ended and not events:
                return
            if bulletin.is_closed:
                raise Unavailable("the service is stopping; watch again from the last cursor when it is back")
            if not events:
                signal.wait(RECHECK_S)
