"""The thread that writes checkpoints while the steps go on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Condition, Thread

from gradwire.errors import JobFailed
from service.training.checkpoint import Checkpoint, CheckpointFolder
from service.training.finite import require_finite
from service.training.priority import take_what_is_left
from service.training.retention import Mode

MAX_ATTEMPTS = 5
FIRST_BACKOFF_S = 0.5
"""Doubled after each attempt: 7.5 seconds in all."""

FATAL = frozenset({"nonfinite", "superseded"})
"""After these nothing more is written, and the job has to end."""

WORTH_RETRYING = frozenset({"storage_full", "storage_unavailable"})
"""Somebody may make room, or bring the storage back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStatus:
    """The last checkpoint written, and what went wrong since."""

    step: int | None = None
    size_bytes: int = 0
    duration_s: float = 0.0
    """From the start of writing to the rename, retries included."""
    written_at_s: float = 0.0
    """In seconds since the epoch."""
    count: int = 0
    """Checkpoints written so far."""
    error: JobFailed | None = None
    """Why the last attempt failed for good; None again once a checkpoint is written, which no `FATAL` one allows."""
    failures: int = 0
    """Attempts that failed, in all."""
    warning: str = ""
    """Why the surplus checkpoints could not be removed after the last one was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    checkpoint: Checkpoint
    is_forced: bool
    is_best: bool
    release: Callable[[], None] = field(repr=False)

    def gives_way_to(self, other: _Item) -> bool:
        """Whether the other may be written instead of this one, which waits."""
        return not self.is_forced and (other.is_best or not self.is_best)


class CheckpointWriter:
    """Writes checkpoints in the background, one at a time, and removes those that need not stay.

    At most one is being written and one waits, so that no more than two snapshots are alive besides the caller's. Its
    thread takes only what training leaves of the cores; it looks for numbers that are not finite before it writes any.
    The step loop learns of errors by `status`, and by `flush`, which alone raises.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        *,
        keep: int,
        monitor: str,
        mode: Mode,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._monitor = monitor
        self._mode: Mode = mode
        self._sleep = sleep
        self._changed = Condition()
        self._waiting: _Item | None = None
        self._is_busy = False
        self._is_closed = False
        self._status = WriterStatus()
        self._thread = Thread(target=self._serve, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def submit(
        self, checkpoint: Checkpoint, *, is_forced: bool = False, is_best: bool = False,
        release: Callable[[], None] = lambda: None,
    ) -> bool:  # fmt: skip
        """Hands over a snapshot whose arrays nobody else writes to; says whether it will be written.

        It replaces one that waits. A forced one is not replaced, and that of the best evaluation only by that of a
        better one: a forced one after them waits here until there is room, and an ordinary one after them is not taken.
        Nothing is taken after `close`. `release` is called once, as soon as the arrays are not needed any more,
        whatever became of them.
        """
        item = _Item(checkpoint=checkpoint, is_forced=is_forced, is_best=is_best, release=release)
        with self._changed:
            if is_forced:
                self._changed.wait_for(lambda: self._waiting is None or self._waiting.gives_way_to(item))
            is_taken = not self._is_closed and (self._waiting is None or self._waiting.gives_way_to(item))
            unwanted: _Item | None = item
            if is_taken:
                unwanted, self._waiting = self._waiting, item
            self._changed.notify_all()
        if unwanted is not None:
            unwanted.release()
        return is_taken

    @property
    def is_reserved(self) -> bool:
        """Whether one waits that an ordinary one cannot replace; false at any time from now on."""
        waiting = self._waiting
        return waiting is not None and (waiting.is_forced or waiting.is_best)

    def retract(self) -> bool:
        """Gives up the snapshot that waits, if there is an ordinary one; says whether it did."""
        with self._changed:
            if self._waiting is None or self._waiting.is_forced or self._waiting.is_best:
                return False
            item, self._waiting = self._waiting, None
            self._changed.notify_all()
        item.release()
        return True

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until nothing is being written or waits; raises the last error if no checkpoint was written since.

        Errors: those of `CheckpointFolder.write`; `JobFailed` with code storage_unavailable after `timeout_s`,
        checkpoint_failed for anything unforeseen.
        """
        with self._changed:
            is_done = self._changed.wait_for(lambda: self._waiting is None and not self._is_busy, timeout_s)
            error = self._status.error
        if not is_done:
            message = f"the checkpoint is not written after {timeout_s} s; look at the storage's speed and room"
            raise JobFailed(message, code="storage_unavailable")
        if error is not None:
            raise JobFailed(error.message, code=error.code, details=error.details)

    def status(self) -> WriterStatus:
        """The present state; never waits."""
        return self._status  # replaced as a whole: no lock, which a thread of low priority might hold

    def close(self) -> None:
        """Writes what waits, then ends the thread. Raises nothing; may be called twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _serve(self) -> None:
        take_what_is_left()
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Writes the next checkpoint; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
            item, self._waiting = self._waiting, None
            if item is None:
                return False
            self._is_busy = True
            self._changed.notify_all()
        status = self._write(item.checkpoint)
        item.release()
        with self._changed:
            self._status = status
            self._is_busy = False
            self._changed.notify_all()
        return True

    def _write(self, checkpoint: Checkpoint) -> WriterStatus:
        before = self.status()
        if before.error is not None and before.error.code in FATAL:
            return before
        start_s = time.monotonic()
        failures = before.failures
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                require_finite(checkpoint.step, checkpoint.tensors)
                size_bytes = self._folder.write(checkpoint)
                break
            except Exception as error:
                failure = _failure(error, checkpoint.step)
            failures += 1
            if failure.code not in WORTH_RETRYING or attempt == MAX_ATTEMPTS:
                return replace(before, error=failure, failures=failures)
            self._status = replace(before, failures=failures)
            self._sleep(FIRST_BACKOFF_S * 2 ** (attempt - 1))
        return WriterStatus(
            step=checkpoint.step,
            size_bytes=size_bytes,
            duration_s=time.monotonic() - start_s,
            written_at_s=time.time(),
            count=before.count + 1,
            failures=failures,
            warning=self._prune(checkpoint),
        )

    def _prune(self, checkpoint: Checkpoint) -> str:
        """Removes surplus checkpoints; a sentence if that failed, since the new checkpoint is written all the same."""
        try:
            self._folder.prune(
                generation=checkpoint.generation,
                keep=self._keep,
                monitor=self._monitor,
                mode=self._mode,
                best=checkpoint.best_step or None,
            )
        except JobFailed as error:
            return error.message
        return ""


def _failure(error: Exception, step: int) -> JobFailed:
    """The error as `JobFailed`, without the traceback, whose frames would keep the checkpoint's arrays alive."""
    if isinstance(error, JobFailed):
        return JobFailed(error.message, code=error.code, details=error.details)
    details = "".join(traceback.format_exception(error))
    message = f"cannot write the checkpoint of step {step}: {error}; see the details"
    return JobFailed(message, code="checkpoint_failed", details=details)
