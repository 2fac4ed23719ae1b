"""Whether a job's programs are compiled by XLA, where its specification leaves it to a measurement."""

from __future__ import annotations

import structlog

from gradwire.storage import Storage, is_full
from service.training.fence import Fence
from service.training.storage_failure import storage_failure
from workers.exchange.messages import MEASURE

CHOICES = ("on", "off")

log = structlog.get_logger()


class XlaChoice:
    """Measured by the first worker of all, and from then on the job's, whoever dies: XLA gives other bits.

    It lies in the storage, since a job may be started again before its first checkpoint.
    """

    def __init__(self, storage: Storage, job_id: str, fence: Fence) -> None:
        self._storage = storage
        self._name = f"jobs/{job_id}/xla"
        self._fence = fence

    def recorded(self) -> str:
        """on or off; `MEASURE` before anybody has measured."""
        with storage_failure("read the job's choice of xla", f"{self._storage.url}/{self._name}"):
            try:
                text = self._storage.read(self._name).decode()
            except FileNotFoundError:
                return MEASURE
        return text if text in CHOICES else MEASURE

    def record(self, xla: str) -> None:
        """To be called before the first step.

        On a full disk it is not recorded, and checkpoints tell of it; a job that has none yet measures again.

        Raises:
            JobFailed: a newer start of the trainer has taken over (code `superseded`), or the storage fails.
        """
        self._fence.check()
        with storage_failure("record the job's choice of xla", f"{self._storage.url}/{self._name}"):
            try:
                self._storage.write(self._name, xla.encode())
            except OSError as error:
                if not is_full(error):
                    raise
                log.warning("xla_not_recorded", choice=xla, why=str(error))
