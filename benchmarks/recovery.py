"""How long a job stands still when a worker is killed: with another worker there, with nobody, and with a spare."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from benchmarks.commits import recovery_s
from benchmarks.models import MODELS
from benchmarks.results import Row
from benchmarks.rounds import Tell
from benchmarks.service import Service, Watched, serving, time_s

MODEL = "mlp_medium"
FEED = "constant"
TRANSPORT = "shared_memory"
QUIET_TIMEOUT_S = 240.0
JOB_TIMEOUT_S = 240.0

SETTLE_S = 0.75
"""Of undisturbed steps before and after a kill."""
KILLS_OF_A_SERVICE = 25
"""Everybody who is killed is replaced by a process that was warm, which takes memory."""
ALONE_KILLS = 5
"""At most, of the only worker and of the one that has a spare."""

TRACED = re.compile(r"worker (\S+) is ready \(built and traced in ([\d.]+) s\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A job, and how often one of its workers is killed; `spares` wait, traced."""

    metric: str
    workers: int
    spares: int = 0
    kills: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from a death to the commit of the first step that began after it; of which the replacement took so many
    to build and to trace."""

    seconds: float
    trace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoveries:
    """Measures all scenes."""

    folder: Path
    tell: Tell
    kills: int

    def measure(self) -> list[Row]:
        found: list[Recovery] = []
        while len(found) < self.kills:
            kills = min(self.kills - len(found), KILLS_OF_A_SERVICE)
            self.tell(f"recovery, {len(found)} of {self.kills} kills done")
            found += self._play(Scene(metric="recovery", workers=2, kills=kills))
        rows = summary("recovery", found)
        few = min(self.kills, ALONE_KILLS)
        for scene in (
            Scene(metric="recovery_alone", workers=1, kills=few),
            Scene(metric="recovery_spare", workers=1, spares=1, kills=few),
        ):
            self.tell(f"{scene.metric.replace('_', ' ')}, {few} kills")
            rows += summary(scene.metric, self._play(scene))
        return rows

    def _play(self, scene: Scene) -> list[Recovery]:
        present = scene.workers + scene.spares
        with serving(self.folder, warm=1 + present + scene.kills) as service:
            service.wait_until_quiet(QUIET_TIMEOUT_S)
            return play(service, scene)


def play(service: Service, scene: Scene) -> list[Recovery]:
    """Runs one job, and kills its workers one after the other; each time another takes its place."""
    resources = {"workers": scene.workers, "minWorkers": scene.workers, "spares": scene.spares}
    spec = service.spec(MODELS[MODEL], FEED, TRANSPORT, resources=resources)
    job = Watched(service, spec, JOB_TIMEOUT_S)
    killer = Killer(scene, lambda pid: os.kill(pid, signal.SIGKILL))
    commits = {}
    for event in job.events():
        commits[event.step] = time_s(event)
        ready = [worker for worker in event.workers if worker.state in ("READY", "SLOW")]
        active = [worker.pid for worker in ready if worker.phase != "spare"]
        if killer.is_done(time_s(event), active, len(ready)):
            job.cancel()
    traced = [float(found[2]) for message in job.messages if (found := TRACED.search(message))]
    replacements = traced[scene.workers + scene.spares :]
    return [
        Recovery(recovery_s(commits, died_at), trace_s)
        for died_at, trace_s in zip(killer.died_at, replacements, strict=True)
    ]


@dataclass(slots=True)
class Killer:
    """Decides when a worker dies: when all are ready, and steps have been undisturbed for a while."""

    scene: Scene
    kill: Callable[[int], None]
    died_at: list[float] = field(default_factory=list)
    _settled_since: float | None = None
    _victim: int = 0
    """Is still reported for a moment."""

    def is_done(self, now_s: float, active: Sequence[int], ready: int) -> bool:
        """Looks at a committed step, and may kill one of the workers that get orders; `ready` are they and the spares.
        Returns whether all kills are done and over."""
        if ready != self.scene.workers + self.scene.spares or self._victim in active:
            self._settled_since = None
            return False
        self._settled_since = self._settled_since or now_s
        if now_s - self._settled_since < SETTLE_S:
            return False
        if len(self.died_at) == self.scene.kills:
            return True
        self._settled_since = None
        self.died_at.append(time.time())
        self._victim = active[len(self.died_at) % len(active)]
        self.kill(self._victim)
        return False


def summary(metric: str, found: Sequence[Recovery]) -> list[Row]:
    """The median, the longest, the 95th percentile of many; and of who was alone, what building and tracing took."""
    seconds = [recovery.seconds for recovery in found]
    values = {metric: median(seconds), f"{metric}_max": max(seconds)}
    if len(found) >= 20:
        values[f"{metric}_p95"] = quantiles(seconds, n=20, method="inclusive")[-1]
    if metric == "recovery_alone":
        values[f"{metric}_trace"] = median(recovery.trace_s for recovery in found)
        values[f"{metric}_rest_max"] = max(recovery.seconds - recovery.trace_s for recovery in found)
    return [_row(name, value, "s") for name, value in values.items()] + [_row(f"{metric}_kills", len(found), "kills")]


def _row(metric: str, value: float, unit: str) -> Row:
    return Row(
        model=MODEL, system="gradwire", transport=TRANSPORT, input=FEED, metric=metric, value=value, unit=unit
    )  # fmt: skip
