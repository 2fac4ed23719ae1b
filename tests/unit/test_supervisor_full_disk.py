"""The supervisor while nothing can be stored: jobs stand still in its books, and nowhere else.

While the store has room and the storage has none, they start where that is safe, and wait where it is not.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from gradwire.storage import Storage
from service.engine import Death
from service.jobs.states import JobState
from service.store.base import Unwritable
from service.store.memory import MemoryStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab


class FullStore(MemoryStore):
    """Takes nothing while it is full."""

    is_full = False

    def update(self, *arguments: Any) -> Any:
        self.probe()
        return super().update(*arguments)

    def probe(self) -> None:
        if self.is_full:
            raise Unwritable("no room")


class FullStorage(Storage):
    """Takes no new file while it is full."""

    is_full = False

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[Any]]:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        with super().writing(name) as file:
            yield file


@pytest.fixture
def storage(tmp_path: Path) -> FullStorage:
    return FullStorage(str(tmp_path))


@pytest.fixture
def store() -> FullStore:
    return FullStore()


@pytest.fixture
def lab(storage: FullStorage, store: FullStore) -> Lab:
    made = make_lab(storage, store)
    made.supervisor.engine_started()
    return made


def test_a_job_goes_on_and_is_caught_up_with(lab: Lab, store: FullStore) -> None:
    lab.submit()
    lab.run(step=4)
    store.is_full = True
    lab.trainer.emit("warning", "no room for the checkpoint")
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=7)
    lab.tick(1.0, times=20)
    assert lab.job().snapshot.step == 4 and lab.job().state is JobState.RUNNING
    assert not lab.trainer.is_killed and not lab.trainer.is_cancelled
    with pytest.raises(Unwritable):
        lab.ask("cancel")
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=9)
    lab.trainer.end = DONE
    assert lab.supervisor.is_stuck
    store.is_full = False
    lab.tick(1.0, times=6)
    assert not lab.supervisor.is_stuck
    assert lab.job().state is JobState.SUCCEEDED and lab.job().snapshot.step == 9 and lab.job().generation == 1
    assert "no room for the checkpoint" in lab.messages()


def test_deaths_meanwhile_are_dealt_with_afterwards(lab: Lab, store: FullStore) -> None:
    lab.submit()
    lab.run(step=4)
    store.is_full = True
    lab.trainer.end = Death("killed by signal 9")
    lab.tick(1.0, times=20)
    assert lab.job().state is JobState.RUNNING
    store.is_full = False
    lab.tick(1.0, times=3)
    assert lab.job().state is JobState.RECOVERING and lab.job().generation == 2


def test_a_job_starts_without_room_in_the_storage(lab: Lab, storage: FullStorage, tmp_path: Path) -> None:
    storage.is_full = True
    job_id = lab.submit()
    lab.run(step=4)
    assert lab.job().state is JobState.RUNNING
    (warning,) = [message for message in lab.messages() if "no room left" in message]
    assert f"{tmp_path}/jobs/{job_id}" in warning and "takes 4.1 kB, " in warning and "B are free" in warning


def test_a_trainer_that_died_is_replaced_without_room_by_writing_over_its_number(
    lab: Lab, storage: FullStorage
) -> None:
    job_id = lab.submit()
    lab.run(step=4)
    storage.is_full = True
    lab.trainer.end = Death("killed by signal 9")
    lab.tick(times=3)
    assert lab.trainer.assignment.generation == 2 and storage.read(f"jobs/{job_id}/generation") == b"2"


def test_without_a_number_to_write_over_it_waits_and_holds_up_nobody(lab: Lab, storage: FullStorage) -> None:
    storage.is_full = True
    job_id = lab.submit(workers=2)
    lab.run(step=4)
    lab.trainer.end = Death("killed by signal 9")
    lab.tick(times=3)
    assert lab.job().state is JobState.RECOVERING and len(lab.engine.trainers) == 1
    assert "waits: no room left" in lab.job().state_reason and "older trainer" in lab.job().state_reason
    other = lab.submit("cd34cd34cd34", workers=2, min_workers=2)
    lab.tick(times=3)
    assert lab.trainer.assignment.job_id == other, "nothing of the waiting job's share is held"
    lab.trainer.end = DONE
    storage.is_full = False
    lab.tick(2.0, times=9)
    assert lab.trainer.assignment.job_id == job_id and storage.read(f"jobs/{job_id}/generation") == b"2"


def test_what_a_trainer_waits_for_before_its_first_step_is_the_jobs_reason(lab: Lab) -> None:
    lab.submit()
    lab.tick()
    lab.trainer.address = "/dev/shm/x"
    lab.trainer.snapshot = replace(lab.trainer.snapshot, phase="waiting for room for the data")
    lab.tick(times=3)
    assert lab.job().state_reason == "waiting for room for the data"
    assert lab.messages().count("waiting for room for the data") == 1
    lab.run(step=2)
    lab.trainer.snapshot = replace(lab.trainer.snapshot, phase="evaluating")
    lab.tick(times=3)
    assert lab.job().state_reason == "training with 2 workers"
