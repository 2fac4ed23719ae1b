"""The supervisor while nothing can be stored: jobs stand still in its books, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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


@pytest.fixture
def store() -> FullStore:
    return FullStore()


@pytest.fixture
def lab(tmp_path: Path, store: FullStore) -> Lab:
    made = make_lab(Storage(str(tmp_path)), store)
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
    store.is_full = False
    lab.tick(1.0, times=6)
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
