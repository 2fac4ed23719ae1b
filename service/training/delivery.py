"""The last of a job: its model is exported, and what is trained waits for a storage that has no room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gradwire.errors import JobFailed
from gradwire.storage import Storage
from service.training.checkpoint import CheckpointFolder
from service.training.export import BEST, EXPORT, Exports, export_model
from service.training.fence import Fence
from service.training.loop import Loop
from service.training.patience import until_stored
from service.training.reporter import Reporter
from service.training.trainee import Trainee


@dataclass(slots=True, kw_only=True)
class Delivery:
    """Belongs to the trainer's loop.

    Args:
        restores_best: whether the export is of the best evaluation instead of the last step.
        wait: passes so many seconds; raises where nobody wants the result any more.
    """

    job_id: str
    storage: Storage
    checkpoints: CheckpointFolder
    fence: Fence
    reporter: Reporter
    restores_best: bool
    wait: Callable[[float], None]

    def deliver(self, loop: Loop, trainee: Trainee) -> None:
        """Returns when the last checkpoint and the exports are stored, or have waited for a day.

        The weights of the best evaluation are read from its checkpoint, over those of the last step.

        Raises:
            JobFailed: a newer start of the trainer has taken over (code `superseded`), or the last checkpoint is lost.
        """
        milestones = loop.milestones
        until_stored(lambda: milestones.saver.is_stored, lambda: milestones.save_again(loop.step), self._wait_for_room)
        best = milestones.best
        is_other = best is not None and best.step != loop.step
        if best is not None and is_other and self.restores_best:
            self.reporter.emit("state", f"exports the weights of the best evaluation, after step {best.step}")
            is_other = not self._load(trainee, best.step)
        exports = self._export(trainee, EXPORT)
        self.reporter.update(exports=exports.formats)
        self.reporter.emit("export", f"exported as {', '.join(exports.formats) or 'nothing'}")
        if best is not None and is_other and not self.restores_best and self._load(trainee, best.step):
            exports, is_other = self._export(trainee, BEST), False
            said = f"exported the best evaluation, after step {best.step}, as {', '.join(exports.formats) or 'nothing'}"
            self.reporter.emit("export", said)
        if best is not None and not is_other:
            self.reporter.update(best=replace(best, exports=exports.formats))

    def _wait_for_room(self, seconds: float) -> bool:
        self.reporter.update(phase="waiting for room in the storage")
        self.wait(seconds)
        return False

    def _load(self, trainee: Trainee, step: int) -> bool:
        """Sets the weights to a checkpoint's; False if it is not whole, which is told."""
        try:
            trainee.show(self.checkpoints.read(step, trainee.shown))
        except JobFailed as error:
            self.reporter.emit("warning", f"the best evaluation's weights are not exported: {error.message}")
            return False
        return True

    def _export(self, trainee: Trainee, folder: str) -> Exports:
        """Exports what the trainee shows, again and again until there is room for it."""
        found: list[Exports] = []

        def export() -> None:
            self.fence.check()
            self.reporter.update(phase="exporting")
            with trainee.weights.loaded():
                model = trainee.objective.model
                found[:] = [export_model(model, self.storage, self.job_id, self.fence.check, folder)]
            for warning in found[0].warnings:
                self.reporter.emit("warning", warning)

        export()
        until_stored(lambda: found[0].is_stored, export, self._wait_for_room)
        if raw := trainee.variables.raw:
            names = ", ".join(name.partition("/")[2] for name in raw[:5])
            self.reporter.emit("warning", f"model.keras lacks variables that Keras does not save: {names}")
        return found[0]
