"""A job's log: one line per event, for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gradwire.storage import Storage
from service.jobs.event import JobEvent

log = structlog.get_logger()


class JobLog:
    """Appends to jobs/<id>/log. Losing a line is no reason to lose a job: errors go to the service's own log.

    A storage that is no local folder cannot append; there the log grows in `spool` and is stored when the job ends.
    """

    def __init__(self, storage: Storage, spool: Path) -> None:
        self._storage = storage
        self._spool = spool

    def append(self, job_id: str, events: Iterable[JobEvent], *, is_end: bool = False) -> None:
        """Adds a line per event; `is_end` says that these are the job's last."""
        name = f"jobs/{job_id}/log"
        text = "".join(f"{_line(event)}\n" for event in events)
        path = self._storage.local_path(name) if self._storage.is_local else self._spool / job_id
        try:
            if text:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(text)
            if is_end and not self._storage.is_local:
                self._storage.write(name, path.read_bytes())
                path.unlink()
        except OSError as error:
            log.warning("job_log_not_written", job=job_id, why=str(error))


def _line(event: JobEvent) -> str:
    time = datetime.fromtimestamp(event.time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    parts = [time, event.state, event.kind, " ".join(event.message.split())]
    parts += [f"{name}={value:.6g}" for name, value in event.metrics.items()]
    lines = [" ".join(part for part in parts if part)]
    if event.error is not None and event.error.details:
        lines += [f"    {line}" for line in event.error.details.splitlines()]
    return "\n".join(lines)
