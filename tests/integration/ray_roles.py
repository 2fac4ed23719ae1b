"""Roles for tests of processes in Ray: they talk as trainers and workers do, and end in every way."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

from gradwire.assignment import Assignment
from gradwire.errors import JobFailed
from gradwire.progress import Event, Outcome, Progress, Snapshot


class FakeTrainer:
    """Does what `assignment.spec_json` says in a word."""

    def __init__(self, assignment: Assignment) -> None:
        if assignment.spec_json == "refuse":
            raise ValueError("no such model")
        self._what = assignment.spec_json
        self._cancelled = threading.Event()
        self.exchange_address = f"/tmp/exchange of {assignment.job_id}"

    def run(self) -> Outcome:
        outcome: Outcome = getattr(self, f"_{self._what}")()
        return outcome

    def progress(self, since: int) -> Progress:
        import tensorflow as tf

        threads = tf.config.threading.get_intra_op_parallelism_threads()
        metrics = {"threads": float(threads), "sum": float(tf.reduce_sum(tf.ones(3))), "pid": float(os.getpid())}
        names = ("KERAS_BACKEND", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        message = " ".join(f"<{os.environ[name]}>" for name in names)
        event = Event(cursor=since + 1, time_s=time.time(), kind="progress", message=message)
        return Progress(events=(event,), snapshot=Snapshot(is_running=True, metrics=metrics))

    def cancel(self) -> None:
        self._cancelled.set()

    def _work(self) -> Outcome:
        self._cancelled.wait()
        return Outcome(state="CANCELLED")

    def _succeed(self) -> Outcome:
        return Outcome(state="SUCCEEDED")

    def _kill(self) -> Outcome:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def _terminate(self) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        self._cancelled.wait()
        raise AssertionError

    def _abort(self) -> Outcome:
        os.abort()

    def _segfault(self) -> Outcome:
        ctypes.string_at(0)
        raise AssertionError

    def _leave(self) -> Outcome:
        os._exit(3)

    def _raise(self) -> Outcome:
        raise ZeroDivisionError("by nothing")

    def _raise_foreign(self) -> Outcome:
        import tensorflow as tf

        tf.ones(3) + tf.ones(4)
        raise AssertionError

    def _fail(self) -> Outcome:
        raise JobFailed("the loss is NaN", code="nonfinite", details="step 3")


class FakeWorker(FakeTrainer):
    """A worker has nowhere to listen."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(assignment)
        self.exchange_address = ""


def assignment(what: str, **changes: Any) -> Assignment:
    """What tells a fake role what to do."""
    values: dict[str, Any] = {
        "job_id": f"job-{what}",
        "generation": 1,
        "spec_json": what,
        "storage_url": "",
        "service_id": "test",
        "token": "",
        "cache_dir": "",
        "threads": 3,
    }
    return Assignment(**values | changes)


if __name__ == "__main__":
    sys.exit("import it")
