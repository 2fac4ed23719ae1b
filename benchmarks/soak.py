"""`python -m benchmarks.soak`: submits jobs to a service for an hour, and looks what its coordinator's memory does."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, TextIO

import click
import psutil

from benchmarks import meters
from benchmarks.service import NEVER, Service, serving
from gradwire.errors import GradwireError, NotPossible
from protos.gradwire.v1 import service_pb2 as pb

SAMPLE_S = 60.0
SCRAPE_S = 15.0
TICK_S = 0.1
QUIET_TIMEOUT_S = 240.0
QUEUED = 30
"""Jobs that wait for more CPUs than there are, at the same time; the oldest are cancelled."""
AT_WORK = 2
CANCEL_AFTER_STEP = 3
ENDED = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})
ENDS = ("succeeds", "fails", "is cancelled")
"""What becomes of the jobs that run, in turn."""
WAITS = "waits"


def spec(what: str) -> dict[str, Any]:
    """The fields of a job file: one layer on the built-in digits, so that a job is little more than its processes."""
    layers = [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 1], "dtype": "float32", "name": "image"}},
        {"class_name": "Flatten", "config": {"name": "flat"}},
        {"class_name": "Dense", "config": {"units": 10, "name": "digit"}},
    ]
    model = {"class_name": "Sequential", "module": "keras", "config": {"name": "small", "layers": [
        {"module": "keras.layers", **layer} for layer in layers
    ]}}  # fmt: skip
    too_many = psutil.cpu_count() or 1
    workers = {"workers": 2 * too_many, "minWorkers": 2 * too_many} if what == WAITS else {"workers": 1}
    return {
        "name": f"soak-{what.replace(' ', '-')}",
        "model": {"keras": model},
        "data": {"train": {"builtin": "digits"}, "inputs": {"image": "image"}, "labels": "label"},
        "loss": {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}},
        "optimizer": {"name": "SGD", "config": {"learning_rate": 1e38 if what == "fails" else 0.01}},
        "metrics": "accuracy",
        "training": {"globalBatch": 128, "steps": NEVER if what == "is cancelled" else 10, "shards": 2 * too_many},
        "resources": {"cpusPerWorker": 0.5 if what != WAITS else 1, **workers},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen at one moment; memory is the coordinator's, in MB."""

    minutes: float
    rss_mb: float
    anonymous_mb: float
    threads: int
    files: int
    submitted: int
    ended: dict[str, int]
    stored: int


@dataclass(slots=True)
class Soak:
    """Submits a job every so many seconds: one that runs where there is room for it, else one that waits."""

    service: Service
    every_s: float
    started_s: float = field(default_factory=time.monotonic)
    submitted: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    _ends: Iterator[str] = field(default_factory=lambda: cycle(ENDS))
    _at_work: int = 0
    _waiting: list[str] = field(default_factory=list)

    def run(self, until_s: float, watchers: ThreadPoolExecutor) -> Iterator[Sample]:
        """Samples, until so many seconds have passed."""
        due_s = {"submit": 0.0, "sample": 0.0, "scrape": 0.0}
        pauses_s = {"submit": self.every_s, "sample": SAMPLE_S, "scrape": SCRAPE_S}
        while (now_s := time.monotonic() - self.started_s) < until_s:
            for what in [what for what in due_s if now_s >= due_s[what]]:
                due_s[what] += pauses_s[what]
                if what == "submit":
                    self._submit(watchers)
                elif what == "scrape":
                    self._scrape()
                else:
                    yield self.sample()
            time.sleep(TICK_S)
        yield self.sample()

    def _submit(self, watchers: ThreadPoolExecutor) -> None:
        is_for_work = self._at_work < AT_WORK
        what = next(self._ends) if is_for_work else WAITS
        job = self.service.client.submit(spec(what))
        self.submitted += 1
        if is_for_work:
            self._at_work += 1
            watchers.submit(self._watch, job.id, what)
            return
        self._waiting.append(job.id)
        if len(self._waiting) > QUEUED:
            self.service.client.cancel(self._waiting[0])
            self._end(self._waiting.pop(0))

    def _watch(self, job_id: str, what: str) -> None:
        """As `gradwire watch` does, on a thread of its own, to the job's end."""
        try:
            for event in self.service.client.watch(job_id):
                if what == "is cancelled" and event.kind == "progress" and event.step >= CANCEL_AFTER_STEP:
                    self.service.client.cancel(job_id)
        except GradwireError as error:
            self.ended[f"lost: {error.message}"] += 1
        finally:
            self._end(job_id)
            self._at_work -= 1

    def _end(self, job_id: str) -> None:
        self.ended[pb.JobState.Name(self.service.client.get(job_id).state).removeprefix("JOB_STATE_")] += 1

    def _scrape(self) -> None:
        with urllib.request.urlopen(f"http://{self.service.metrics}/metrics", timeout=10) as answer:
            answer.read()

    def sample(self) -> Sample:
        """What there is now."""
        process = self.service.process
        return Sample(
            minutes=round((time.monotonic() - self.started_s) / 60, 1),
            rss_mb=round(process.memory_info().rss / meters.MEGABYTE, 1),
            anonymous_mb=round(meters.anonymous_mb(process.pid), 1),
            threads=process.num_threads(),
            files=process.num_fds(),
            submitted=self.submitted,
            ended=dict(sorted(self.ended.items())),
            stored=len(self.service.client.list()),
        )


def growth_mb_per_hour(samples: list[Sample]) -> float:
    """The slope of a straight line through the second half, when everything was done before."""
    late = samples[len(samples) // 2 :]
    mean_x = sum(one.minutes for one in late) / len(late)
    mean_y = sum(one.rss_mb for one in late) / len(late)
    spread = sum((one.minutes - mean_x) ** 2 for one in late)
    slope = sum((one.minutes - mean_x) * (one.rss_mb - mean_y) for one in late) / spread if spread else 0.0
    return 60 * slope


@contextmanager
def soaking(every_s: float) -> Iterator[tuple[Soak, ThreadPoolExecutor]]:
    """A service of its own; what still runs at the end is cancelled, and everything is removed."""
    with (
        tempfile.TemporaryDirectory(prefix="gw-soak-", dir="/tmp") as folder,
        serving(Path(folder), warm=2, refill=True) as service,
        ThreadPoolExecutor(AT_WORK) as watchers,
    ):
        service.wait_until_quiet(QUIET_TIMEOUT_S)
        try:
            yield Soak(service, every_s), watchers
        finally:  # those who watch come to an end
            for job in service.client.list():
                if job.state not in ENDED:
                    with contextlib.suppress(NotPossible):  # it has ended meanwhile
                        service.client.cancel(job)


def tell(sample: Sample, file: TextIO | None) -> None:
    ended = " ".join(f"{state}={count}" for state, count in sample.ended.items())
    print(
        f"{sample.minutes:5.1f} min  rss {sample.rss_mb:6.1f} MB  anonymous {sample.anonymous_mb:6.1f} MB  "
        f"threads {sample.threads}  files {sample.files}  "
        f"submitted {sample.submitted}  stored {sample.stored}  {ended}",
        flush=True,
    )
    if file is not None:
        print(json.dumps(asdict(sample)), file=file, flush=True)


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="How long.")
@click.option(
    "--every", type=click.FloatRange(min=0.05), default=2.5, show_default=True, help="Seconds from job to job."
)
@click.option("--limit", type=float, default=250.0, show_default=True, help="MB that the coordinator may take.")
@click.option("--output", type=click.File("w"), help="A file for the samples, a JSON document a line.")
def main(minutes: float, every: float, limit: float, output: TextIO | None) -> None:
    """Submit jobs to a service of its own, and print each minute how much memory its coordinator takes.

    They succeed, fail, are cancelled, or wait for more CPUs than there are; all stay in the store, 1,440 after an hour.
    The exit code is 1 where the coordinator took more than the limit.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    samples: list[Sample] = []
    with soaking(every) as (soak, watchers):
        for sample in soak.run(60 * minutes, watchers):
            samples.append(sample)
            tell(sample, output)
    most = max(sample.rss_mb for sample in samples)
    print(f"at most {most:.1f} MB; in the second half it grew by {growth_mb_per_hour(samples):.1f} MB an hour")
    sys.exit(most > limit)


if __name__ == "__main__":
    main()
