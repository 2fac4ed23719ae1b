"""A process that outlives its coordinator does not outlive its use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
PROGRAM = """
import sys, threading, time
from service.cluster import outliving

outliving.LEASE_S, outliving.WATCH_S = 0.3, 0.02
process = outliving.OutlivingProcess()
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    process.renew()
    time.sleep(0.05)
print("renewed", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("renewed_s", [0.0, 1.0])
def test_an_idle_process_ends_itself_when_nobody_renews_its_lease(renewed_s: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(renewed_s)],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert done.stdout == "renewed\n", "it ended while its lease was renewed"


WITHOUT_COORDINATOR = """
import sys, threading, time
from gradwire.assignment import Assignment
from gradwire.progress import Progress, Snapshot, WorkerView
from service.cluster import outliving

outliving.ABSENT_S, outliving.WATCH_S = 0.3, 0.02


class Share:
    asked = 0

    def __init__(self, name):
        self.name = name

    @classmethod
    def named(cls, name):
        cls.asked += 1
        if cls.asked == 1:
            raise ConnectionError("Ray's books are away for a moment")
        return cls(name)

    def release(self):
        print("released", self.name, flush=True)
        threading.Event().wait()


class Trainer:
    def progress(self, since):
        states = {"w0": "READY", "w1": "DEAD"}
        views = [
            WorkerView(id=name, pid=7, node="n", state=state, phase="idle", transport="flight")
            for name, state in states.items()
        ]
        return Progress(events=(), snapshot=Snapshot(workers=tuple(views)))


outliving.Share = Share
process = outliving.OutlivingProcess()
process._body = Trainer()
process._task = ("trainer", Assignment(
    job_id="j", generation=1, spec_json="", storage_url="", service_id="aa", token="", cache_dir=""))
until = time.monotonic() + 1.0
while time.monotonic() < until:
    process.renew()
    time.sleep(0.05)
print("renewed", flush=True)
sys.stdin.read()
"""


def test_a_trainer_without_a_coordinator_gives_the_shares_of_its_dead_workers_back() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_COORDINATOR],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            said = (line for line in process.stdout if line.startswith(("renewed", "released")))  # between lines of log
            assert next(said) == "renewed\n", "while there is a coordinator, that is its business"
            assert next(said) == "released gradwire-aa-share-w1\n"
        finally:
            process.kill()
