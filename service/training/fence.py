"""The fence that keeps a trainer which was given up from writing over its successor."""

from __future__ import annotations

import time
from collections.abc import Callable

from gradwire.errors import JobFailed
from gradwire.storage import Storage
from service.training.storage_failure import storage_failure

LOOK_EVERY_S = 1.0
"""How often a trainer without workers asks whether a newer one has been started."""


class Fence:
    """One start of a job's trainer, held against the newest one that the storage names.

    The coordinator writes the generation, as decimal text, before it starts a trainer; nobody else writes it.
    """

    def __init__(self, storage: Storage, job_id: str, generation: int) -> None:
        self._storage = storage
        self._name = f"jobs/{job_id}/generation"
        self._job_id = job_id
        self._generation = generation

    def check(self) -> None:
        """Raises `JobFailed` with code superseded if a newer trainer of the job has been started.

        Without the file there is nothing to compare with, and the check passes. Other codes: storage_unavailable, also
        for a file that holds no number.
        """
        newest = self._newest()
        if newest > self._generation:
            raise superseded(self._job_id, self._generation, newest)

    def _newest(self) -> int:
        with storage_failure("read the job's generation", f"{self._storage.url}/{self._name}"):
            try:
                text = self._storage.read(self._name)
            except FileNotFoundError:
                return 0
        try:
            return int(text)
        except ValueError as error:
            message = f"{self._storage.url}/{self._name} holds {text[:40]!r}, not a number; restart the job"
            raise JobFailed(message, code="storage_unavailable") from error


class Lookout:
    """Looks at the fence now and then: a trainer that was given up gets no workers any more, and writes nothing that
    could be refused."""

    def __init__(self, fence: Fence, clock: Callable[[], float] = time.monotonic) -> None:
        self._fence = fence
        self._clock = clock
        self._looked_s = clock()

    def look(self) -> None:
        """Raises `JobFailed` with code superseded; a storage that does not answer is no reason to end."""
        if self._clock() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = self._clock()
        try:
            self._fence.check()
        except JobFailed as error:
            if error.code == "superseded":
                raise


def superseded(job_id: str, generation: int, newest: int) -> JobFailed:
    """The error of a trainer that has a successor."""
    return JobFailed(
        f"start {generation} of job {job_id}'s trainer is superseded by start {newest}; it writes no more",
        code="superseded",
    )
