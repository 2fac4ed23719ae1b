"""Every metric, declared: its name, what it means, its unit, type and labels.

A job goes by the label `job_id`: Prometheus itself puts a label `job` on everything, the name of what it scrapes.

`python -m service.metrics.page` writes docs/metrics.md from this file. A metric that is not here cannot be exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradwire.telemetry import BUCKETS_S

Kind = Literal["gauge", "counter", "histogram", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One metric, under the name by which one asks for it."""

    name: str
    help: str
    unit: str
    """Of its values; empty for plain numbers."""
    kind: Kind = "gauge"
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram; one more bucket is of what is beyond."""


RPC_BUCKETS_S = (0.002, 0.01, 0.05, 0.25, 1.0, 5.0)
STORE_BUCKETS_S = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
WAIT_BUCKETS_S = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
RECOVERY_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0)

# Of the service.
BUILD = Declared(name="gradwire_build_info", help="The program", unit="", kind="info", labels=("version",))
JOBS = Declared(name="gradwire_jobs", help="Jobs by state, all that the store has", unit="jobs", labels=("state",))
QUEUE_WAIT = Declared(
    name="gradwire_queue_wait_seconds", unit="seconds", kind="histogram", buckets=WAIT_BUCKETS_S,
    help="How long jobs that were started had waited in the queue",
)  # fmt: skip
QUEUE_OLDEST = Declared(
    name="gradwire_queue_oldest_wait_seconds", unit="seconds",
    help="How long the queued job that has waited longest waits; 0 if none waits",
)  # fmt: skip
FAILURES = Declared(
    name="gradwire_job_failures_total", unit="jobs", kind="counter", labels=("code",),
    help="Jobs that failed, by the code of their error",
)  # fmt: skip
RECOVERY = Declared(
    name="gradwire_recovery_duration_seconds", unit="seconds", kind="histogram", buckets=RECOVERY_BUCKETS_S,
    help="From the loss of a job's trainer to the next step: how long jobs recovered",
)  # fmt: skip
RPCS = Declared(
    name="gradwire_rpc_total", help="Calls of the API that ended", unit="calls", kind="counter",
    labels=("method", "code"),
)  # fmt: skip
RPC_DURATION = Declared(
    name="gradwire_rpc_duration_seconds", unit="seconds", kind="histogram", labels=("method",), buckets=RPC_BUCKETS_S,
    help="How long calls of the API took; streams last as long as their client wants",
)  # fmt: skip
STORE_WRITE = Declared(
    name="gradwire_store_write_duration_seconds", unit="seconds", kind="histogram", buckets=STORE_BUCKETS_S,
    help="How long writes of a job's record and events to the store took",
)  # fmt: skip
STORE_WRITABLE = Declared(
    name="gradwire_store_is_writable", unit="",
    help="1; 0 while the store takes nothing, as on a full disk: then jobs train, and none is moved on",
)  # fmt: skip
STORE_SIZE = Declared(name="gradwire_store_size_bytes", help="Size of the store's files", unit="bytes")
STORAGE_SIZE = Declared(
    name="gradwire_storage_size_bytes", help="Size of the file system that holds the storage", unit="bytes"
)
STORAGE_FREE = Declared(
    name="gradwire_storage_free_bytes", unit="bytes",
    help="Room left for the service in the file system that holds the storage",
)  # fmt: skip

# Of a job, kept for a while after its end.
JOB_INFO = Declared(
    name="gradwire_job_info", help="1; the name that its user has given the job", unit="", labels=("job_id", "name")
)
JOB_STATE = Declared(
    name="gradwire_job_state", help="1, with the job's present state", unit="", labels=("job_id", "state")
)  # fmt: skip
JOB_STEP = Declared(name="gradwire_job_step", help="The job's last committed step", unit="steps", labels=("job_id",))
JOB_STEPS_PLANNED = Declared(
    name="gradwire_job_steps_planned", help="Steps that the job has in all", unit="steps", labels=("job_id",)
)
JOB_EPOCH = Declared(
    name="gradwire_job_epoch", help="The epoch of the last committed step, from 1", unit="epochs", labels=("job_id",)
)
JOB_LOSS = Declared(
    name="gradwire_job_loss", unit="", labels=("job_id", "set"),
    help="Loss: of the epoch so far (set train), of the last evaluation (set validation)",
)  # fmt: skip
JOB_METRIC = Declared(
    name="gradwire_job_metric", unit="", labels=("job_id", "set", "metric"),
    help="The metrics that the job's file names, and the losses of single outputs, likewise",
)  # fmt: skip
JOB_FINITE = Declared(
    name="gradwire_job_is_finite", unit="", labels=("job_id",),
    help="1 if all losses and metrics are finite numbers, 0 if one is not",
)  # fmt: skip
JOB_SPEED = Declared(
    name="gradwire_job_examples_per_second", unit="examples per second", labels=("job_id",),
    help="Examples that the job trained on in a second, since its trainer began",
)  # fmt: skip
JOB_NORM = Declared(
    name="gradwire_job_gradient_norm", unit="", labels=("job_id",),
    help="Euclidean norm of all gradients of a step before clipping, looked at every half second or less often",
)  # fmt: skip
JOB_LEARNING_RATE = Declared(
    name="gradwire_job_learning_rate", help="The optimiser's learning rate", unit="", labels=("job_id",)
)
JOB_STARTS = Declared(
    name="gradwire_job_generation", help="Starts of the job's trainer so far", unit="starts", labels=("job_id",)
)
JOB_CHECKPOINT_STEP = Declared(
    name="gradwire_job_checkpoint_step", help="The step of the last checkpoint", unit="steps", labels=("job_id",)
)
JOB_CHECKPOINT_SIZE = Declared(
    name="gradwire_job_checkpoint_size_bytes", help="Size of the last checkpoint", unit="bytes", labels=("job_id",)
)
JOB_CHECKPOINT_DURATION = Declared(
    name="gradwire_job_checkpoint_duration_seconds", unit="seconds", labels=("job_id",),
    help="How long writing the last checkpoint took, beside training",
)  # fmt: skip

# Of a job that has not ended.
JOB_WORKERS = Declared(
    name="gradwire_job_workers", unit="workers", labels=("job_id", "state"),
    help="Workers by state: starting, ready, slow (they live and work, far slower than the others), spare",
)  # fmt: skip
JOB_WORKERS_WANTED = Declared(
    name="gradwire_job_workers_wanted", help="Workers that the job shall have", unit="workers", labels=("job_id",)
)
JOB_CHECKPOINT_AGE = Declared(
    name="gradwire_job_checkpoint_age_seconds", unit="seconds", labels=("job_id",),
    help="While the job runs: since when its last checkpoint is written, or since when it runs without one",
)  # fmt: skip
JOB_STEPS = Declared(
    name="gradwire_job_steps_total", unit="steps", kind="counter", labels=("job_id",),
    help="Steps that were computed, those among them that were computed again after a recovery",
)  # fmt: skip
JOB_EXAMPLES = Declared(
    name="gradwire_job_examples_total", unit="examples", kind="counter", labels=("job_id",),
    help="Examples that were computed, likewise",
)  # fmt: skip
JOB_COMMITTED = Declared(
    name="gradwire_job_committed_step_seconds_total", unit="seconds", kind="counter", labels=("job_id",),
    help="Time of the steps that took the job further than ever before; its rate is the goodput",
)  # fmt: skip
JOB_NONFINITE = Declared(
    name="gradwire_job_nonfinite_contributions_total", unit="contributions", kind="counter", labels=("job_id",),
    help="Workers' contributions with a loss or gradient that was not finite",
)  # fmt: skip
JOB_TRACES = Declared(
    name="gradwire_job_traces_total", unit="traces", kind="counter", labels=("job_id", "when"),
    help="How often workers have traced the gradient program: at their start, or later, in a step's way",
)  # fmt: skip
JOB_DEATHS = Declared(
    name="gradwire_job_worker_deaths_total", unit="deaths", kind="counter", labels=("job_id",),
    help="Workers that were lost: they ended, were killed, or were dropped because they hung",
)  # fmt: skip
JOB_RECOVERIES = Declared(
    name="gradwire_job_recoveries_total", unit="recoveries", kind="counter", labels=("job_id",),
    help="How often the job lost its trainer, and went on from its last checkpoint",
)  # fmt: skip
JOB_RECOVERY_TIME = Declared(
    name="gradwire_job_recovery_seconds_total", unit="seconds", kind="counter", labels=("job_id",),
    help="How long that took, all in all",
)  # fmt: skip
JOB_REFUSED = Declared(
    name="gradwire_job_refused_contributions_total", unit="contributions", kind="counter", labels=("job_id",),
    help="Contributions that came too late: somebody else had computed the shard",
)  # fmt: skip
JOB_STRAGGLERS = Declared(
    name="gradwire_job_stragglers_total", unit="workers", kind="counter", labels=("job_id",),
    help="How often a worker became slow",
)  # fmt: skip
JOB_EXCHANGED = Declared(
    name="gradwire_job_exchanged_bytes_total", unit="bytes", kind="counter",
    labels=("job_id", "transport", "direction"),
    help="Gradients that workers handed over, and weights that were sent to them; in shared memory weights do not move",
)  # fmt: skip
JOB_CHECKPOINTS = Declared(
    name="gradwire_job_checkpoints_total", unit="checkpoints", kind="counter", labels=("job_id",),
    help="Checkpoints that were written",
)  # fmt: skip

JOB_CHECKPOINT_FAILURES = Declared(
    name="gradwire_job_checkpoint_failures_total", unit="checkpoints", kind="counter", labels=("job_id",),
    help="Checkpoints that could not be written; training goes on, and the next is tried",
)  # fmt: skip

# Of a job that has a trainer.
JOB_PHASE = Declared(
    name="gradwire_job_phase_seconds", unit="seconds", kind="histogram", labels=("job_id", "phase"), buckets=BUCKETS_S,
    help="A step's time by phase. The slowest worker's data (waiting for its batch) and compute; exchange: the rest of "
    "the wait for workers; sum; apply; and checkpoint: the copy that a checkpoint makes the loop wait for",
)  # fmt: skip

SERVICE = (
    BUILD, JOBS, QUEUE_WAIT, QUEUE_OLDEST, FAILURES, RECOVERY, RPCS, RPC_DURATION, STORE_WRITE,
    STORE_WRITABLE, STORE_SIZE, STORAGE_SIZE, STORAGE_FREE,
)  # fmt: skip
JOB = (
    JOB_INFO, JOB_STATE, JOB_STEP, JOB_STEPS_PLANNED, JOB_EPOCH, JOB_LOSS, JOB_METRIC, JOB_FINITE, JOB_SPEED, JOB_NORM,
    JOB_LEARNING_RATE, JOB_STARTS, JOB_CHECKPOINT_STEP, JOB_CHECKPOINT_SIZE, JOB_CHECKPOINT_DURATION,
)  # fmt: skip
LIVE_JOB = (
    JOB_WORKERS, JOB_WORKERS_WANTED, JOB_CHECKPOINT_AGE, JOB_STEPS, JOB_EXAMPLES, JOB_COMMITTED, JOB_NONFINITE,
    JOB_TRACES, JOB_DEATHS, JOB_RECOVERIES, JOB_RECOVERY_TIME, JOB_REFUSED, JOB_STRAGGLERS, JOB_EXCHANGED,
    JOB_CHECKPOINTS, JOB_CHECKPOINT_FAILURES,
)  # fmt: skip
RUNNING_JOB = (JOB_PHASE,)

PROCESS = (
    Declared(name="process_cpu_seconds_total", help="CPU time of the coordinator", unit="seconds", kind="counter"),
    Declared(name="process_resident_memory_bytes", help="Memory of the coordinator", unit="bytes"),
    Declared(name="process_virtual_memory_bytes", help="Address space of the coordinator", unit="bytes"),
    Declared(name="process_start_time_seconds", help="When the coordinator was started", unit="seconds"),
    Declared(name="process_open_fds", help="Open files of the coordinator", unit="files"),
    Declared(name="process_max_fds", help="Files that the coordinator may open", unit="files"),
    Declared(
        name="python_info", help="The coordinator's Python", unit="", labels=("implementation", "major", "minor",
        "patchlevel", "version"),
    ),
)  # fmt: skip
"""Exported by prometheus-client itself."""
