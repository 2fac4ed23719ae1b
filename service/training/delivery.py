"""The last of a job: its model is exported, and what is trained waits for a storage that has no room."""

from __future__ import annotations

from collections.abc import Callable

from gradwire.storage import Storage
from service.training.export import export_model
from service.training.fence import Fence
from service.training.loop import Loop
from service.training.patience import until_stored
from service.training.reporter import Reporter
from service.training.trainee import Trainee


class Delivery:
    """Belongs to the trainer's loop.

    Args:
        wait: passes so many seconds; raises where nobody wants the result any more.
    """

    def __init__(
        self, job_id: str, storage: Storage, fence: Fence, reporter: Reporter, wait: Callable[[float], None]
    ) -> None:
        self._job_id = job_id
        self._storage = storage
        self._fence = fence
        self._reporter = reporter
        self._wait = wait
        self._is_exported = False

    def deliver(self, loop: Loop, trainee: Trainee) -> None:
        """Returns when the last checkpoint and the exports are stored, or have waited for a day.

        Raises:
            JobFailed: a newer start of the trainer has taken over (code `superseded`), or the last checkpoint is lost.
        """
        until_stored(lambda: loop.saver.is_stored, loop.save_again, self._wait_for_room)
        self._export(trainee)
        until_stored(lambda: self._is_exported, lambda: self._export(trainee), self._wait_for_room)

    def _wait_for_room(self, seconds: float) -> bool:
        self._reporter.update(phase="waiting for room in the storage")
        self._wait(seconds)
        return False

    def _export(self, trainee: Trainee) -> None:
        self._fence.check()
        self._reporter.update(phase="exporting")
        best = trainee.best
        with trainee.weights.loaded():
            if best is not None and best.step:
                self._reporter.emit("state", f"exports the weights of the best evaluation, after step {best.step}")
                best.put_in(trainee.variables.bound)
            exports = export_model(trainee.objective.model, self._storage, self._job_id, self._fence.check)
        self._is_exported = exports.is_stored
        for warning in exports.warnings:
            self._reporter.emit("warning", warning)
        if raw := trainee.variables.raw:
            names = ", ".join(name.partition("/")[2] for name in raw[:5])
            self._reporter.emit("warning", f"model.keras lacks variables that Keras does not save: {names}")
        self._reporter.update(exports=exports.formats)
        self._reporter.emit("export", f"exported as {', '.join(exports.formats) or 'nothing'}")
