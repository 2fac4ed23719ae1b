"""Looks after the workers of one start of a job's trainer: as many as the grant has room for, and no dead ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import structlog

from gradwire.progress import Outcome, WorkerView
from service.engine import Death
from service.jobs.journal import Journal
from service.jobs.states import JobState
from service.launcher import Launcher
from service.recovery import End, after_worker
from service.run import LiveJob, PlacedWorker, Run

REPLACE_AFTER_S = 0.5
"""Workers end a moment before their trainer does: so long it is waited before one is replaced."""
DISMISS_GRACE_S = 30.0
"""How long a dismissed worker may take for its present order; then it is killed, and others do it again."""

log = structlog.get_logger()


class Foreman:
    """Acts for the supervisor, on its thread. `now` is the supervisor's clock, in seconds."""

    def __init__(self, journal: Journal, launcher: Launcher) -> None:
        self._journal = journal
        self._launcher = launcher

    def employ(self, job: LiveJob, run: Run) -> None:
        """Launches the workers that the grant has room for, once the trainer listens."""
        address = run.trainer.exchange_address()
        if address is None:
            return
        if not run.workers and job.record.next_worker == 0 and job.record.state is JobState.STARTING:
            job.record = self._journal.explain(job.record, f"building the model on {crew_text(run)}")
        number = job.record.next_worker
        for node, wanted in run.grant.workers.items():
            for _ in range(wanted - run.present(node)):
                handle = self._launcher.worker(
                    run.assignment, number, address, job.demand, node, has_colleagues=wanted > 1
                )
                run.workers[handle.id] = PlacedWorker(handle, node)
                number += 1
        if number > job.record.next_worker:
            job.record = self._journal.write(replace(job.record, next_worker=number))

    def grow(self, job: LiveJob, run: Run, more: Mapping[str, int]) -> None:
        """Gives the job more workers."""
        for node, count in more.items():
            run.grant = run.grant.changed(node, count)
        self.employ(job, run)
        if job.record.state is JobState.RUNNING:
            have, spares = min(run.grant.total, job.demand.workers), run.grant.total - job.demand.workers
            what = f"has {have} of {count_text(job.demand.workers)}{_and_spares(spares)} now"
            job.record = self._journal.note(job.record, "worker", what)

    def shrink(self, job: LiveJob, run: Run, now: float) -> None:
        """Takes from the job what it has beyond what it shall have; its trainer lets the workers go."""
        wanted = job.demand.workers + (job.demand.spares if job.keeps_spares else 0)
        surplus = run.grant.total - len(run.leaving) - wanted
        for node in list(run.grant.workers):
            unused = min(max(run.grant.workers[node] - run.present(node), 0), max(surplus, 0))
            run.grant = run.grant.changed(node, -unused)
            surplus -= unused
        if surplus > 0:
            chosen = to_dismiss(run, job.record.snapshot.workers, surplus)
            for worker_id in chosen:
                run.workers[worker_id].dismissed_at = now
            run.trainer.dismiss(chosen)

    def look_after(self, job: LiveJob, run: Run, nodes: Collection[str], now: float) -> End | None:
        """Replaces the workers that have died, and takes leave of those that were dismissed; how that ends the job."""
        for worker_id, worker in list(run.workers.items()):
            end = worker.handle.outcome() or _given_up(job, worker_id) or _stranded(worker, nodes)
            if worker.dismissed_at is not None:
                self._take_leave(run, worker_id, is_late=now - worker.dismissed_at >= DISMISS_GRACE_S)
            elif end is None or (isinstance(end, Outcome) and end.state == "SUCCEEDED"):
                continue  # at work, or dismissed because the trainer is about to end
            else:
                worker.ended_at = now if worker.ended_at is None else worker.ended_at
                if now - worker.ended_at >= REPLACE_AFTER_S:
                    verdict = self._replace(job, run, worker_id, _reason(end), nodes)
                    if verdict is not None:
                        return verdict
        return None

    def _take_leave(self, run: Run, worker_id: str, *, is_late: bool) -> None:
        worker = run.workers[worker_id]
        if worker.handle.outcome() is not None:
            worker.handle.kill()  # what is left of it gives its share back
            del run.workers[worker_id]
            run.grant = run.grant.changed(worker.node, -1)
        elif is_late and not worker.is_killed:
            worker.is_killed = True
            worker.handle.kill("it was dismissed and did not go", is_hung=True)

    def _replace(self, job: LiveJob, run: Run, worker_id: str, reason: str, nodes: Collection[str]) -> End | None:
        worker = run.workers.pop(worker_id)
        # What is left of it gives its share back; one that has not ended by itself may be stopped.
        worker.handle.kill(is_hung=worker.handle.outcome() is None)
        run.deaths[worker_id] = reason
        job.losses = job.losses.worker_died()
        if (end := after_worker(job.losses, worker_id, reason)) is not None:
            return end
        if worker.node not in nodes:
            run.grant = run.grant.changed(worker.node, -1)  # the job may grow again elsewhere
        log.warning("worker_died", job=job.record.id, worker=worker_id, step=job.record.snapshot.step, why=reason)
        what = "another takes its place" if worker.node in nodes else f"node {worker.node} is gone"
        job.record = self._journal.note(job.record, "worker", f"worker {worker_id} died ({reason}); {what}")
        self.employ(job, run)
        return None


def to_dismiss(run: Run, views: Collection[WorkerView], count: int) -> tuple[str, ...]:
    """Whose loss costs least: who is not ready, then spares, then who has fewest colleagues on its node, or is new."""
    worth = {view.id: 1 if view.phase == "spare" else 2 for view in views if view.state in ("READY", "SLOW")}
    staying = [worker_id for worker_id, worker in run.workers.items() if worker.dismissed_at is None]
    number = {worker_id: index for index, worker_id in enumerate(staying)}
    ranked = sorted(
        staying, key=lambda one: (worth.get(one, 0), run.present(run.workers[one].node), -number[one])
    )  # fmt: skip
    return tuple(ranked[:count])


def crew_text(run: Run) -> str:
    """How many a job has, such as 2 workers and 1 spare."""
    spares = max(run.grant.total - run.grant.demand.workers, 0)
    return f"{count_text(run.grant.total - spares)}{_and_spares(spares)}"


def count_text(workers: int) -> str:
    """Such as 1 worker, 2 workers."""
    return f"{workers} worker{'s' * (workers != 1)}"


def _given_up(job: LiveJob, worker_id: str) -> Death | None:
    """A worker that its trainer has dropped while its process goes on, or is stopped."""
    views = job.record.snapshot.workers
    gone = (view for view in views if view.id == worker_id and view.state == "DEAD")
    return next((Death(f"its trainer let it go in phase {view.phase}") for view in gone), None)


def _stranded(worker: PlacedWorker, nodes: Collection[str]) -> Death | None:
    """A worker whose node has left: one that was launched on it after its death waits for a share that never comes."""
    return None if worker.node in nodes else Death("its node has left the cluster")


def _reason(end: Outcome | Death) -> str:
    if isinstance(end, Death):
        return end.reason
    return end.error.message if end.error is not None else "it was let go"


def _and_spares(count: int) -> str:
    return f" and {count} spare{'s' * (count != 1)}" if count > 0 else ""
