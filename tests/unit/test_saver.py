"""Snapshots: memory that is touched once, and a loop that never waits for it but at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.progress import Progress
from gradwire.storage import Storage
from service.training import snapshots as snapshots_module
from service.training.blocks import ALONE_ELEMENTS, Blocks
from service.training.checkpoint import Checkpoint, CheckpointFolder
from service.training.in_place import is_too_large
from service.training.late_copy import LateCopies
from service.training.reporter import Reporter
from service.training.saver import Saver
from service.training.snapshots import EVALUATED, MAX_BUFFERS, Snapshots
from service.training.writer import MAX_ATTEMPTS, CheckpointWriter
from tests.unit.checkpoints import checkpoint
from workers.exchange.room import Room
from workers.full_disk import RETRY_S
from workers.layout import Layout, Tensor

WAIT_S = 20.0
LAYOUT = Layout.of([Tensor("weights/w", (3, 5), "float32"), Tensor("optimizer/count", (), "int64")])


class State:
    """Weights that all have one value."""

    def __init__(self) -> None:
        self.value = 0.0

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Callable[[np.ndarray, np.ndarray], None]) -> None:
        for tensor in target.values():
            copy(tensor, np.full(tensor.shape, self.value).astype(tensor.dtype))


class HeldFolder(CheckpointFolder):
    """A folder that writes while it may."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, "j1")
        self.may_write, self.has_begun = Event(), Event()
        self.error: JobFailed | None = None

    def write(self, checkpoint: Checkpoint) -> int:
        self.has_begun.set()
        assert self.may_write.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return super().write(checkpoint)


class Bench:
    """A saver with all that belongs to it."""

    def __init__(self, folder: HeldFolder) -> None:
        self.folder = folder
        self.state = State()
        self.reporter = Reporter()
        self.snapshots = Snapshots(LAYOUT)
        self.writer = CheckpointWriter(folder, keep=99, monitor="loss", mode="min", sleep=lambda seconds: None)
        self.saver = Saver(
            writer=self.writer, snapshots=self.snapshots, sources=(self.state,), copies=LateCopies((), np.copyto),
            reporter=self.reporter, spec_digest="", generation=1, fingerprint={}, every_steps=1,
        )  # fmt: skip

    def save(self, step: int, *, is_last: bool = False, is_best: bool = False) -> bool:
        self.state.value = step
        return self.saved(step, is_last=is_last, is_best=is_best)

    def saved(self, step: int, *, is_last: bool = False, is_best: bool = False) -> bool:
        """Saves the state as it is."""
        held = self.saver.hold(step) if is_last or is_best else self.saver.try_to_hold(step)
        return held is not None and self.saver.write(held, {}, {}, is_last=is_last, is_best=is_best, best_step=step)

    def wait_for_memory(self) -> None:
        tensors = self.snapshots.take(waits=True)
        assert tensors is not None
        self.snapshots.give_back(tensors)

    def progress(self) -> Progress:
        return self.reporter.progress(0)


@pytest.fixture
def bench(tmp_path: Any) -> Iterator[Bench]:
    made = Bench(HeldFolder(Storage(str(tmp_path))))
    yield made
    made.folder.may_write.set()
    made.writer.close()


def values(folder: CheckpointFolder) -> dict[int, list[float]]:
    """By step, the different values in its checkpoint."""
    steps = {step: folder.read(step).tensors for step in folder.steps()}
    return {step: sorted({float(v) for tensor in found.values() for v in tensor.flat}) for step, found in steps.items()}


def test_snapshots_hold_the_state_of_their_step_though_memory_is_used_again(bench: Bench) -> None:
    bench.folder.may_write.set()
    bench.wait_for_memory()
    for step in range(1, 6):
        assert bench.save(step)
        bench.writer.flush(WAIT_S)
    assert values(bench.folder) == {step: [step] for step in range(1, 6)}
    assert bench.snapshots._made == 1, "one buffer is enough where nothing waits"


def test_the_loop_never_waits_and_the_newest_snapshot_replaces_the_one_that_waits(bench: Bench) -> None:
    bench.wait_for_memory()
    assert bench.save(1)
    assert bench.folder.has_begun.wait(WAIT_S)
    assert not bench.save(2), "the only buffer is being written: this save is for the next step"
    bench.wait_for_memory()  # of the second buffer, which was wanted
    assert bench.save(3)
    assert bench.save(4) and bench.save(5), "they take the place of the one that waits"
    bench.folder.may_write.set()
    bench.saver.finish()
    assert values(bench.folder) == {1: [1], 5: [5]}
    assert bench.snapshots._made == MAX_BUFFERS
    assert bench.progress().snapshot.checkpoint_step == 5


def test_the_best_evaluation_s_snapshot_gives_way_to_a_better_one_only(bench: Bench) -> None:
    bench.snapshots = bench.saver.snapshots = Snapshots(LAYOUT, MAX_BUFFERS + EVALUATED)
    bench.wait_for_memory()
    assert bench.save(1)
    assert bench.folder.has_begun.wait(WAIT_S)
    assert bench.save(2, is_best=True)
    assert not bench.save(3), "it would replace the best one's"
    assert bench.save(4, is_best=True)
    last = Thread(target=lambda: bench.save(5, is_last=True))
    last.start()
    bench.folder.may_write.set()
    last.join(WAIT_S)
    bench.saver.finish()
    assert values(bench.folder) == {1: [1], 4: [4], 5: [5]}


def test_the_checkpoint_of_the_best_evaluation_stays(bench: Bench) -> None:
    bench.folder.may_write.set()
    bench.wait_for_memory()
    writer = CheckpointWriter(bench.folder, keep=1, monitor="loss", mode="min")
    for step in (1, 2, 3):
        writer.submit(replace(checkpoint(step, loss=1 / step), best_step=min(step, 2)))
        writer.flush(WAIT_S)
    writer.close()
    assert bench.folder.steps() == [2, 3]


def test_the_last_snapshot_waits_for_memory_and_is_not_lost(bench: Bench) -> None:
    bench.wait_for_memory()
    assert bench.save(1)
    assert bench.folder.has_begun.wait(WAIT_S)
    last = Thread(target=lambda: bench.save(2, is_last=True))
    last.start()
    bench.folder.may_write.set()
    last.join(WAIT_S)
    bench.saver.finish()
    assert values(bench.folder) == {1: [1], 2: [2]}


@pytest.mark.parametrize("is_seen_by", ["tell", "save", "finish"])
def test_a_state_that_is_not_finite_ends_the_job_and_the_checkpoint_before_stays(bench: Bench, is_seen_by: str) -> None:
    bench.folder.may_write.set()
    bench.wait_for_memory()
    bench.save(1)
    bench.writer.flush(WAIT_S)
    bench.state.value = float("nan")
    with np.errstate(invalid="ignore"):
        assert bench.saved(2)
    if is_seen_by != "finish":
        with pytest.raises(JobFailed):
            bench.writer.flush(WAIT_S)
    look = {"tell": bench.saver.tell, "save": lambda: bench.save(3), "finish": bench.saver.finish}[is_seen_by]
    with pytest.raises(JobFailed, match="after step 2 weights/w is not finite") as caught:
        look()
    assert caught.value.code == "nonfinite"
    assert values(bench.folder) == {1: [1]}


def test_a_storage_that_fails_costs_a_checkpoint_and_a_warning_but_no_memory(bench: Bench) -> None:
    bench.folder.may_write.set()
    bench.folder.error = JobFailed("no room", code="storage_full")
    for step in range(1, MAX_ATTEMPTS):
        bench.wait_for_memory()
        assert bench.save(step)
        bench.saver.finish()
    assert [event.message for event in bench.progress().events] == ["no room"]
    assert bench.reporter.meter.checkpoint_failures == MAX_ATTEMPTS * (MAX_ATTEMPTS - 1)
    bench.folder.error = None
    bench.wait_for_memory()
    assert bench.save(9)
    bench.saver.finish()
    assert values(bench.folder) == {9: [9]}


def test_a_checkpoint_that_was_not_stored_is_tried_again_off_the_usual_times(bench: Bench) -> None:
    now = 100.0
    bench.saver.clock = lambda: now
    bench.folder.may_write.set()
    bench.wait_for_memory()
    bench.save(1)
    bench.saver.finish()
    now += 2 * RETRY_S
    assert not bench.saver.is_retry_due(), "it was stored"
    bench.folder.error = JobFailed("no room", code="storage_full")
    bench.save(2)
    bench.saver.finish()
    assert not bench.saver.is_retry_due(), "not at once"
    now += RETRY_S
    assert bench.saver.is_retry_due()
    bench.folder.error = None
    bench.wait_for_memory()
    bench.save(3)
    bench.saver.finish()
    now += RETRY_S
    assert not bench.saver.is_retry_due()
    assert values(bench.folder) == {1: [1], 3: [3]}


def test_without_memory_for_any_snapshot_the_job_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(layout: Layout) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(snapshots_module, "_touched", fail)
    snapshots = Snapshots(LAYOUT)
    with pytest.raises(JobFailed, match="no memory for a snapshot of 128 bytes") as caught:
        snapshots.take(waits=True)
    assert caught.value.code == "memory_full"


def test_without_room_for_another_snapshot_the_first_one_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "now", lambda: Room(0, "the machine's memory"))
    snapshots = Snapshots(LAYOUT)
    first = snapshots.take(waits=True)
    assert first is not None and snapshots.take() is None
    Thread(target=snapshots.give_back, args=(first,)).start()
    assert snapshots.take(waits=True) is first


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("elements", [0, 1, ALONE_ELEMENTS, ALONE_ELEMENTS + 1, 3 * ALONE_ELEMENTS + 7])
def test_a_copy_is_whole_however_many_threads_make_it(threads: int, elements: int) -> None:
    source = np.arange(elements, dtype=np.int64).reshape(1, -1)
    target = np.zeros_like(source)
    blocks = Blocks(threads)
    blocks.copy(target, source)
    blocks.close()
    assert np.array_equal(target, source)


class Parts:
    """A state of one array and one number, as sources are."""

    def __init__(self) -> None:
        self.w = np.zeros((3, 5), np.float32)
        self.count = 0

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Callable[[np.ndarray, np.ndarray], None]) -> None:
        target["optimizer/count"][...] = self.count
        copy(target["weights/w"], self.w)


def test_a_state_too_large_to_be_copied_is_written_from_where_it_lies(bench: Bench) -> None:
    parts = Parts()
    bench.saver.sources, bench.saver.snapshots = (parts,), None
    bench.folder.may_write.set()
    for step in range(1, 4):
        parts.w[...] = parts.count = step
        assert bench.saved(step)
        assert bench.folder.steps()[-1] == step, "it is written when the loop goes on"
    assert values(bench.folder) == {step: [step] for step in range(1, 4)}


def test_a_state_is_too_large_where_its_copy_would_leave_too_little() -> None:
    room = Room(1000, "the machine's memory")
    assert not is_too_large(500, room)
    assert is_too_large(501, room)
