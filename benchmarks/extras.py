"""What Gradwire is measured for beside its steps: how soon it starts, how it recovers, what a checkpoint costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.commits import costs_ms, longest_stall_ms, stalls_ms, usual_step_s
from benchmarks.models import ADAM, MODELS
from benchmarks.order import SHARDS
from benchmarks.recovery import MODEL as RECOVERY_MODEL
from benchmarks.recovery import Recoveries
from benchmarks.results import Row
from benchmarks.rounds import Failures, Tell
from benchmarks.service import Service, Watched, serving, time_s
from benchmarks.system import SystemFailed

PROCESSES = 1 + SHARDS
"""Of a job: the trainer and its workers."""
QUIET_TIMEOUT_S = 240.0
JOB_TIMEOUT_S = 120.0
TRANSPORT = "shared_memory"
START_MODEL = "mlp_small"
SAVE_MODEL = "mlp_large"
TABLE_MODEL = "recommender"
NEEDED_MODELS = (START_MODEL, RECOVERY_MODEL, SAVE_MODEL, TABLE_MODEL)

SAVE_EVERY = 20
SAVED = 3
"""Checkpoints that are measured."""
TABLE_STEPS = 1000
"""Of so many epochs, which are a step each, a job reports every one."""
TABLE_SAVE_AT = 500
TABLE_WATCHED = 400
"""Steps after the checkpoint; the copy takes less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Measures all of it, each on a service of its own; what fails is noted, and the rest goes on."""

    folder: Path
    tell: Tell
    starts: int
    kills: int
    failures: Failures

    def measure(self) -> list[Row]:
        rows: list[Row] = []
        for model, act in ((START_MODEL, self.cold), (START_MODEL, self.warm), (RECOVERY_MODEL, self.recovery),
                           (SAVE_MODEL, self.checkpoints), (TABLE_MODEL, self.table_checkpoint)):  # fmt: skip
            with self._noting(model):
                rows += act()
        return rows

    def cold(self) -> list[Row]:
        """A job for a server that has just started, and has no process ready."""
        found = []
        for number in range(self.starts):
            self.tell(f"start of a job, cold, {number + 1} of {self.starts}")
            with serving(self.folder, warm=PROCESSES) as service:
                found.append(first_step_s(service))
        return [_row(START_MODEL, "shuffled", "first_step_cold", median(found), "s")]

    def warm(self) -> list[Row]:
        """A job for a server whose processes are ready."""
        found = []
        with serving(self.folder, warm=PROCESSES * self.starts) as service:
            for number in range(self.starts):
                self.tell(f"start of a job, warm, {number + 1} of {self.starts}")
                service.wait_until_quiet(QUIET_TIMEOUT_S)
                found.append(first_step_s(service))
        return [_row(START_MODEL, "shuffled", "first_step_warm", median(found), "s")]

    def recovery(self) -> list[Row]:
        """Workers of a running job are killed, one after the other; each time another takes its place."""
        return Recoveries(folder=self.folder, tell=self.tell, kills=self.kills).measure()

    def checkpoints(self) -> list[Row]:
        """What a checkpoint of the 103 MB model with Adam adds to the step after it, and to all until the next."""
        self.tell("checkpoints")
        with serving(self.folder) as service:
            training = {"checkpoint": {"everySteps": SAVE_EVERY, "keep": 1}}
            spec = service.spec(MODELS[SAVE_MODEL], "constant", TRANSPORT, optimizer=ADAM, training=training)
            job = Watched(service, spec, JOB_TIMEOUT_S)
            commits = {}
            for event in job.events():
                commits[event.step] = time_s(event)
                if event.step > SAVE_EVERY * (SAVED + 1):
                    job.cancel()
        return [
            _row(SAVE_MODEL, "constant", metric, value, "ms")
            for metric, value in (
                ("step_adam", usual_step_s(commits, SAVE_EVERY) * 1e3),
                ("checkpoint_stall", median(stalls_ms(commits, SAVE_EVERY))),
                ("checkpoint_cost", median(costs_ms(commits, SAVE_EVERY))),
            )
        ]

    def table_checkpoint(self) -> list[Row]:
        """What a checkpoint of two large tables with Adam adds to the longest step while they are copied beside."""
        self.tell("a checkpoint of tables")
        training = {"steps": TABLE_STEPS, "sparse": "lazy", "checkpoint": {"everySteps": TABLE_SAVE_AT, "keep": 1}}
        with serving(self.folder) as service:
            spec = service.spec(MODELS[TABLE_MODEL], "constant", TRANSPORT, training=training)
            job = Watched(service, spec, JOB_TIMEOUT_S)
            commits = {}
            for event in job.events():
                commits[event.step] = time_s(event)
                if event.step > TABLE_SAVE_AT + TABLE_WATCHED:
                    job.cancel()
        stall_ms = longest_stall_ms(commits, TABLE_SAVE_AT, TABLE_WATCHED)
        return [_row(TABLE_MODEL, "constant", "checkpoint_stall", stall_ms, "ms")]

    @contextmanager
    def _noting(self, model: str) -> Iterator[None]:
        try:
            yield
        except (SystemFailed, ValueError) as failure:
            self.failures[model, ("gradwire", TRANSPORT)] = str(failure)


def first_step_s(service: Service) -> float:
    """Submits a job; seconds until its first step was committed."""
    job = Watched(service, service.spec(MODELS[START_MODEL], "shuffled", TRANSPORT), JOB_TIMEOUT_S)
    found = 0.0
    for event in job.events():
        found = time_s(event) - job.submitted_at
        job.cancel()
    return found


def _row(model: str, feed: str, metric: str, value: float, unit: str) -> Row:
    return Row(
        model=model, system="gradwire", transport=TRANSPORT, input=feed, metric=metric, value=value, unit=unit
    )  # fmt: skip
