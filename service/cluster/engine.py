"""Ray as the engine: a Ray of the service's own, or a cluster that is there already."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

import ray

from gradwire.assignment import Assignment
from gradwire.errors import GradwireError, Unavailable
from service.cluster import driver
from service.cluster.given import GivenRay
from service.cluster.handle import RayTrainer, RayWorker
from service.cluster.launch import Launch
from service.cluster.launcher import Launcher
from service.cluster.local import LocalRay
from service.cluster.mailbox import Mailbox
from service.engine import FoundRun, NodeResources

TRAINER = "service.training.trainer:Trainer"
WORKER = "workers.worker:Worker"

START_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 45.0
STOP_TIMEOUT_S = 20.0
NODES_PERIOD_S = 5.0


class Cluster(Protocol):
    """Where Ray is from."""

    def start(self) -> None:
        """Connects this process to it."""

    def stop(self) -> None:
        """Disconnects, and removes what `start` has made."""

    def logs(self) -> Path | None:
        """Ray's log folder, if it is on this machine."""

    def fault(self) -> str:
        """Why it is gone, where it is our own; from any thread."""

    def clear_away(self) -> None:
        """Removes what is left of it, without a call of Ray's; from any thread."""


class RayEngine:
    """Runs trainers and workers as Ray actors. Everything with Ray happens on one thread, which lives from start to
    stop; no other waits for it, but for `start` and `stop` themselves."""

    def __init__(
        self,
        state: Path,
        ray_address: str | None,
        service_id: str,
        *,
        trainer_role: str = TRAINER,
        worker_role: str = WORKER,
    ) -> None:
        self._cluster: Cluster = GivenRay(ray_address, state) if ray_address else LocalRay(state)
        self._outliving = service_id if ray_address else ""
        self._found: list[Launch] = []
        self._timeout_s = CONNECT_TIMEOUT_S if ray_address else START_TIMEOUT_S
        self._name = f"ray of {service_id}"
        self._trainer_role = trainer_role
        self._worker_role = worker_role
        self._mailbox: Mailbox | None = None
        self._launcher: Launcher | None = None
        self._nodes: tuple[NodeResources, ...] = ()
        self._looked_s = 0.0

    def start(self, *, warm: int, refill: bool) -> None:
        """Brings Ray up, and returns then; `warm` processes get ready in the background.

        `refill` says whether a used process is replaced. Raises GradwireError where Ray does not start, is not there,
        or does not take our token and nobody else's.
        """
        if self._mailbox is not None:
            raise GradwireError("the engine runs already")
        driver.require_free()
        self._mailbox = mailbox = Mailbox(self._name, self._tick)
        launcher = Launcher(
            mailbox.post, self._cluster.logs, warm=warm, refill=refill, outliving=self._outliving, look=self._look
        )
        try:
            mailbox.call(self._cluster.start, self._timeout_s)
            mailbox.call(self._look, self._timeout_s)
            mailbox.call(lambda: self._found.extend(launcher.take_over()), self._timeout_s)
        except TimeoutError as error:
            self._abandon(mailbox)
            raise Unavailable(f"Ray did not come up: {error}") from error
        except BaseException:
            self.stop()
            raise
        self._launcher = launcher
        mailbox.post(launcher.tick, self._nodes)

    def _abandon(self, mailbox: Mailbox) -> None:
        # Nothing interrupts Ray's call; should it return after all, what it has started ends.
        self._mailbox = None
        mailbox.close(self._cluster.stop, 0.0)

    def found(self) -> tuple[FoundRun, ...]:
        """The runs that an earlier coordinator has left here; told once. Workers without their trainer are ended."""
        launcher, mailbox = self._running()
        launches, self._found = self._found, []
        runs = []
        for trainer in [launch for launch in launches if launch.role == self._trainer_role]:
            mine = [
                launch for launch in launches if launch.role != self._trainer_role and _start(launch) == _start(trainer)
            ]
            workers = tuple((RayWorker(launch, launcher, mailbox), launch.node or "") for launch in mine)
            handle = RayTrainer(trainer, launcher, mailbox)
            runs.append(FoundRun(assignment=trainer.assignment, trainer=handle, workers=workers))
        known = {_start(launch) for launch in launches if launch.role == self._trainer_role}
        for launch in launches:
            if _start(launch) not in known:
                mailbox.post(launcher.kill, launch, "its trainer has gone", True)
        return tuple(runs)

    def resources(self) -> tuple[NodeResources, ...]:
        """The nodes of the cluster, as of some seconds ago."""
        return self._nodes

    def launch_trainer(self, assignment: Assignment) -> RayTrainer:
        """Begins to start a trainer; returns at once."""
        launcher, mailbox = self._running()
        launch = Launch(role=self._trainer_role, assignment=assignment)
        mailbox.post(launcher.begin, launch)
        return RayTrainer(launch, launcher, mailbox)

    def launch_worker(self, assignment: Assignment, node: str | None, cpus: float, gpus: float) -> RayWorker:
        """Begins to start a worker with its share of a node, or of any; returns at once."""
        launcher, mailbox = self._running()
        launch = Launch(role=self._worker_role, assignment=assignment, node=node, cpus=cpus, gpus=gpus)
        mailbox.post(launcher.begin, launch)
        return RayWorker(launch, launcher, mailbox)

    def stop(self) -> None:
        """Ends all processes, those of Ray too where it is our own. Stopping twice is no error."""
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is None:
            return
        if self.fault():
            self._cluster.clear_away()  # any call of Ray's would wait a minute for who is gone, and then abort us
            return
        if not mailbox.close(self._end, STOP_TIMEOUT_S):
            raise GradwireError(f"Ray did not stop within {STOP_TIMEOUT_S:.0f} s; its processes end with this one")

    def stages(self) -> str:
        """What the engine is doing to get ready, for people; empty when it is."""
        return self._launcher.stage() if self._launcher is not None else "starting Ray"

    def fault(self) -> str:
        """Why Ray is gone, if it is our own and is gone."""
        return self._cluster.fault()

    def _end(self) -> None:
        # Ray starts itself anew for whoever calls it after its end, so nothing may come after this.
        launcher, self._launcher = self._launcher, None
        try:
            if launcher is not None:
                launcher.stop()
        finally:
            self._cluster.stop()

    def _running(self) -> tuple[Launcher, Mailbox]:
        if self._launcher is None or self._mailbox is None:
            raise GradwireError("the engine is not running; start it first")
        return self._launcher, self._mailbox

    def _tick(self) -> float:
        if self._launcher is None:
            return 1.0
        if time.monotonic() - self._looked_s >= NODES_PERIOD_S:
            self._look()
        return self._launcher.tick(self._nodes)

    def _look(self) -> tuple[NodeResources, ...]:
        self._looked_s = time.monotonic()
        self._nodes = tuple(
            NodeResources(
                node=node["NodeID"],
                cpus=_total(node, "CPU"),
                gpus=_total(node, "GPU"),
                address=str(node["NodeManagerAddress"]),
            )
            for node in ray.nodes()
            if node["Alive"]
        )
        return self._nodes


def _start(launch: Launch) -> tuple[str, int]:
    """Which start of which job's trainer a process belongs to."""
    return launch.assignment.job_id, launch.assignment.generation


def _total(node: dict[str, dict[str, float]], resource: str) -> float:
    return float(node["Resources"].get(resource, 0.0))
