import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread, get_native_id
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.storage import Storage
from service.training.checkpoint import Checkpoint, CheckpointFolder
from service.training.finite import CHUNK_ELEMENTS
from service.training.priority import LOWEST
from service.training.writer import FIRST_BACKOFF_S, MAX_ATTEMPTS, CheckpointWriter

WAIT_S = 20.0


def checkpoint(step: int, *, loss: float = 1.0) -> Checkpoint:
    return Checkpoint(
        step=step,
        generation=1,
        spec_digest="",
        fingerprint={},
        metrics={"loss": loss},
        tensors={"weights/kernel": np.full(10, step, np.float32)},
    )


class SlowFolder(CheckpointFolder):
    """A folder whose next write waits for a word, and whose writes can be made to fail."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, "j1")
        self.has_begun = Event()
        self.may_go_on = Event()
        self.may_go_on.set()
        self.errors: list[Exception] = []
        self.prune_error: JobFailed | None = None
        self.observe: Callable[[], object] = lambda: None

    def write(self, checkpoint: Checkpoint) -> int:
        self.has_begun.set()
        self.observe()
        assert self.may_go_on.wait(WAIT_S)
        if self.errors:
            raise self.errors.pop(0)
        return super().write(checkpoint)

    def prune(self, **arguments: object) -> list[int]:
        if self.prune_error is not None:
            raise self.prune_error
        return super().prune(**arguments)  # type: ignore[arg-type]

    def hold(self) -> None:
        self.has_begun.clear()
        self.may_go_on.clear()


@pytest.fixture
def folder(tmp_path: Path) -> SlowFolder:
    return SlowFolder(Storage(str(tmp_path)))


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def writer(folder: SlowFolder, slept: list[float]) -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(folder, keep=2, monitor="loss", mode="min", sleep=slept.append)
    yield writer
    folder.may_go_on.set()
    writer.close()


def begin(folder: SlowFolder, writer: CheckpointWriter, step: int) -> None:
    """Leaves the writer in the middle of writing a step."""
    folder.hold()
    assert writer.submit(checkpoint(step))
    assert folder.has_begun.wait(WAIT_S)


def full(times: int) -> list[Exception]:
    return [JobFailed("no room", code="storage_full") for _ in range(times)]


def test_what_is_submitted_is_written_and_surplus_removed(folder: SlowFolder, writer: CheckpointWriter) -> None:
    assert writer.status().step is None
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3)):
        assert writer.submit(checkpoint(step, loss=loss))
        writer.flush(WAIT_S)
        assert writer.status().step == step
    assert folder.steps() == [2, 3, 4]
    status = writer.status()
    assert status.count == 4
    assert status.size_bytes > 40
    assert status.duration_s > 0
    assert status.error is None
    assert status.warning == ""


def test_a_newer_one_replaces_the_one_that_waits(folder: SlowFolder, writer: CheckpointWriter) -> None:
    begin(folder, writer, 1)
    assert writer.submit(checkpoint(2))
    assert writer.submit(checkpoint(3))
    folder.may_go_on.set()
    writer.flush(WAIT_S)
    assert folder.steps() == [1, 3]


def test_a_forced_one_is_not_replaced(folder: SlowFolder, writer: CheckpointWriter) -> None:
    begin(folder, writer, 1)
    assert writer.submit(checkpoint(2), is_forced=True)
    assert not writer.submit(checkpoint(3))
    accepted: list[bool] = []
    second = Thread(target=lambda: accepted.append(writer.submit(checkpoint(4), is_forced=True)))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    folder.may_go_on.set()
    second.join(WAIT_S)
    assert accepted == [True]
    writer.flush(WAIT_S)
    assert writer.status().count == 3
    assert folder.steps() == [1, 2, 4]


def test_a_passing_failure_is_retried(folder: SlowFolder, writer: CheckpointWriter, slept: list[float]) -> None:
    folder.errors = full(MAX_ATTEMPTS - 1)
    writer.submit(checkpoint(1))
    writer.flush(WAIT_S)
    assert folder.steps() == [1]
    assert slept == [FIRST_BACKOFF_S * 2**attempt for attempt in range(MAX_ATTEMPTS - 1)]


def test_a_lasting_failure_reaches_flush_alone_until_one_is_written(
    folder: SlowFolder, writer: CheckpointWriter
) -> None:
    writer.submit(checkpoint(1))
    writer.flush(WAIT_S)
    folder.errors = full(MAX_ATTEMPTS)
    writer.submit(checkpoint(2))
    for _ in range(2):
        with pytest.raises(JobFailed, match="no room") as caught:
            writer.flush(WAIT_S)
        assert caught.value.code == "storage_full"
    status = writer.status()
    assert status.step == 1
    assert status.error is not None
    assert status.error.code == "storage_full"
    writer.submit(checkpoint(3))
    writer.flush(WAIT_S)
    assert writer.status().error is None
    assert folder.steps() == [1, 3]


@pytest.mark.parametrize(
    ("error", "code"), [(JobFailed("old", code="superseded"), "superseded"), (TypeError("odd"), "checkpoint_failed")]
)
def test_what_would_fail_again_is_not_retried(
    folder: SlowFolder, writer: CheckpointWriter, slept: list[float], error: Exception, code: str
) -> None:
    folder.errors = [error]
    writer.submit(checkpoint(1))
    with pytest.raises(JobFailed) as caught:
        writer.flush(WAIT_S)
    assert caught.value.code == code
    assert slept == []


def test_failing_to_remove_the_surplus_is_a_warning(folder: SlowFolder, writer: CheckpointWriter) -> None:
    folder.prune_error = JobFailed("cannot remove", code="storage_unavailable")
    writer.submit(checkpoint(1))
    writer.flush(WAIT_S)
    assert writer.status().warning == "cannot remove"
    assert writer.status().step == 1


def test_flush_gives_up_after_its_time(folder: SlowFolder, writer: CheckpointWriter) -> None:
    begin(folder, writer, 1)
    with pytest.raises(JobFailed, match=r"not written after 0\.01 s"):
        writer.flush(0.01)


def test_close_writes_what_waits_and_takes_no_more(folder: SlowFolder, writer: CheckpointWriter) -> None:
    begin(folder, writer, 1)
    writer.submit(checkpoint(2))
    folder.may_go_on.set()
    writer.close()
    writer.close()
    assert folder.steps() == [1, 2]
    assert not writer.submit(checkpoint(3))
    assert folder.steps() == [1, 2]


@pytest.mark.parametrize("failures", [0, MAX_ATTEMPTS])
def test_a_snapshot_is_let_go_when_it_is_written_or_given_up(
    folder: SlowFolder, writer: CheckpointWriter, failures: int
) -> None:
    folder.errors = full(failures)
    snapshot = np.zeros(1000, np.float32)
    gone = weakref.ref(snapshot)
    writer.submit(replace(checkpoint(1), tensors={"weights/kernel": snapshot}))
    del snapshot
    if failures:
        with pytest.raises(JobFailed):
            writer.flush(WAIT_S)
    else:
        writer.flush(WAIT_S)
    # The writer's thread returns from the write just after flush is woken.
    begin(folder, writer, 2)
    gc.collect()
    assert gone() is None


def test_memory_is_released_once_whatever_becomes_of_a_snapshot(folder: SlowFolder, writer: CheckpointWriter) -> None:
    released: list[int] = []

    def submit(step: int, *, is_forced: bool = False) -> bool:
        return writer.submit(checkpoint(step), is_forced=is_forced, release=lambda: released.append(step))

    folder.hold()
    assert submit(1)
    assert folder.has_begun.wait(WAIT_S)
    assert submit(2)
    assert submit(3) and released == [2], "the one that waited is replaced"
    assert submit(4, is_forced=True) and released == [2, 3]
    assert not submit(5) and released == [2, 3, 5], "nothing replaces a forced one"
    folder.may_go_on.set()
    writer.flush(WAIT_S)
    assert sorted(released) == [1, 2, 3, 4, 5]
    folder.errors = full(MAX_ATTEMPTS)
    assert submit(6)
    with pytest.raises(JobFailed):
        writer.flush(WAIT_S)
    writer.close()
    assert not submit(7)
    assert sorted(released) == list(range(1, 8))
    assert folder.steps() == [1, 4]


def test_only_an_ordinary_snapshot_that_waits_is_retracted(folder: SlowFolder, writer: CheckpointWriter) -> None:
    released: list[int] = []
    assert not writer.retract()
    begin(folder, writer, 1)
    assert not writer.retract(), "it is being written"
    writer.submit(checkpoint(2), release=lambda: released.append(2))
    assert writer.retract()
    assert released == [2]
    writer.submit(checkpoint(3), is_forced=True)
    assert not writer.retract()
    folder.may_go_on.set()
    writer.flush(WAIT_S)
    assert folder.steps() == [1, 3]


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.nan, np.float32), (np.inf, ml_dtypes.bfloat16), (-np.inf, np.complex64)]
)
def test_what_is_not_finite_is_not_written_and_nothing_after_it(
    folder: SlowFolder, writer: CheckpointWriter, value: float, dtype: Any
) -> None:
    writer.submit(checkpoint(1))
    writer.flush(WAIT_S)
    last = np.zeros(CHUNK_ELEMENTS + 3, dtype)
    last[-1] = value
    tensors = {"state/step": np.array(2), "optimizer/empty": np.zeros(0, dtype), "optimizer/v": last}
    writer.submit(replace(checkpoint(2), tensors=tensors))
    with pytest.raises(JobFailed, match="after step 2 optimizer/v is not finite") as caught:
        writer.flush(WAIT_S)
    assert caught.value.code == "nonfinite"
    writer.submit(checkpoint(3))
    with pytest.raises(JobFailed, match="after step 2"):
        writer.flush(WAIT_S)
    assert folder.steps() == [1]
    status = writer.status()
    assert status.step == 1 and status.error is not None and status.error.code == "nonfinite"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_the_writing_thread_alone_has_the_lowest_priority(folder: SlowFolder, writer: CheckpointWriter) -> None:
    found: list[int] = []
    folder.observe = lambda: found.append(os.getpriority(os.PRIO_PROCESS, get_native_id()))
    writer.submit(checkpoint(1))
    writer.flush(WAIT_S)
    assert found == [LOWEST]
    assert os.getpriority(os.PRIO_PROCESS, get_native_id()) < LOWEST
