"""Checkpoints of several starts of a job's trainer: only the newest writes, and what it wrote stays."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from gradwire.errors import JobFailed
from gradwire.storage import Storage
from service.training.checkpoint import CheckpointFolder
from service.training.fence import Fence
from tests.unit.checkpoints import FOLDER, JOB, checkpoint


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{secrets.token_hex(8)}")


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_the_same_step_is_replaced(storage: Storage) -> None:
    folder = CheckpointFolder(storage, JOB)
    folder.write(checkpoint(5, loss=0.3))
    folder.write(checkpoint(5, loss=0.2))
    assert storage.names(FOLDER) == ["step-0000000005-g1"]
    assert folder.read(5).metrics["loss"] == 0.2
    folder.write(checkpoint(5, generation=2))
    assert (folder.steps(), folder.read(5).generation) == ([5], 2)
    assert folder.prune(generation=2, keep=1, monitor="loss", mode="min") == []
    assert storage.names(FOLDER) == ["step-0000000005-g2"], "the older start's goes"


@pytest.mark.parametrize("is_new_there", [True, False])
def test_a_crash_while_replacing_leaves_a_checkpoint(local: Storage, is_new_there: bool) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(5, loss=0.3))
    local.rename(f"{FOLDER}/step-0000000005-g1", f"{FOLDER}/old-step-0000000005-g1")
    local.write(f"{FOLDER}/tmp-step-0000000005-g1-00/weights.safetensors", b"half")
    if is_new_there:
        folder.write(checkpoint(5, loss=0.2))
        local.write(f"{FOLDER}/old-step-0000000005-g1/rest", b"half removed")
    restored = folder.restore_latest()
    assert restored.checkpoint is not None
    assert restored.checkpoint.metrics["loss"] == (0.2 if is_new_there else 0.3)
    assert local.names(FOLDER) == ["step-0000000005-g1"]


def test_what_two_starts_remove_at_once_is_no_failure(local: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older one, that was given up, comes back and cleans up while its successor does."""
    local.write(f"{FOLDER}/tmp-step-0000000005-g1-00/weights.safetensors", b"half")
    remove = local._fs.rm

    def remove_twice(path: str, *, recursive: bool) -> None:
        remove(path, recursive=recursive)
        remove(path, recursive=recursive)

    monkeypatch.setattr(local._fs, "rm", remove_twice)
    assert CheckpointFolder(local, JOB).restore_latest().warnings == ()
    assert local.names(FOLDER) == []


def test_a_trainer_whose_files_its_successor_removes_is_superseded(
    local: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(folder: CheckpointFolder, *arguments: object) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(CheckpointFolder, "_write_files", removed)
    for generation, code in ((1, "storage_unavailable"), (2, "superseded")):
        local.write(f"jobs/{JOB}/generation", str(generation).encode())
        with pytest.raises(JobFailed) as caught:
            CheckpointFolder(local, JOB).write(checkpoint(5, generation=1))
        assert caught.value.code == code


def test_a_trainer_that_comes_back_behind_the_fence_changes_nothing_of_its_successor(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped after it had looked at the fence, and goes on when its successor has written."""
    folder = CheckpointFolder(storage, JOB)
    for step in (3, 6):
        folder.write(checkpoint(step, generation=2))
    monkeypatch.setattr(Fence, "check", lambda fence: None)
    monkeypatch.setattr(CheckpointFolder, "_fence", lambda folder, version: None)
    for step in (3, 9):
        folder.write(checkpoint(step, generation=1))
    assert folder.prune(generation=1, keep=1, monitor="step", mode="max") == []
    assert storage.names(FOLDER) == ["step-0000000003-g2", "step-0000000006-g2", "step-0000000009-g1"]
    assert [folder.read(step).generation for step in (3, 6)] == [2, 2]
    assert folder.prune(generation=2, keep=1, monitor="step", mode="max") == [3, 6]
    assert storage.names(FOLDER) == ["step-0000000009-g1"], "it is whole, and has the same bits"


def test_a_damaged_checkpoint_of_a_newer_start_leaves_the_older_one_s(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    for generation in (1, 2):
        folder.write(checkpoint(5, generation=generation))
    local.delete(f"{FOLDER}/step-0000000005-g2/weights.safetensors")
    restored = folder.restore_latest()
    assert restored.checkpoint is not None and restored.checkpoint.generation == 1
    assert "step-0000000005-g2" in restored.warnings[0]


def test_a_superseded_trainer_changes_nothing(storage: Storage) -> None:
    folder = CheckpointFolder(storage, JOB)
    for step in (1, 2):
        folder.write(checkpoint(step))
    storage.write(f"jobs/{JOB}/generation", b"2\n")
    with pytest.raises(JobFailed, match="start 1 of job j1's trainer is superseded by start 2") as caught:
        folder.write(checkpoint(3))
    assert caught.value.code == "superseded"
    with pytest.raises(JobFailed):
        folder.prune(generation=1, keep=1, monitor="step", mode="max")
    assert storage.names(FOLDER) == ["step-0000000001-g1", "step-0000000002-g1"]
    folder.write(checkpoint(3, generation=2))
    assert folder.prune(generation=2, keep=1, monitor="step", mode="max") == [1, 2]
    assert folder.steps() == [3]


def test_an_older_start_s_checkpoint_never_replaces_a_newer_one_s(storage: Storage) -> None:
    folder = CheckpointFolder(storage, JOB)
    folder.write(checkpoint(3, generation=2))
    with pytest.raises(JobFailed) as caught:
        folder.write(checkpoint(3, generation=1))
    assert caught.value.code == "superseded"
    assert folder.read(3).generation == 2


def test_the_fence_compares_numbers(storage: Storage) -> None:
    Fence(storage, JOB, 1).check()
    storage.write(f"jobs/{JOB}/generation", b"10")
    Fence(storage, JOB, 10).check()
    Fence(storage, JOB, 11).check()
    with pytest.raises(JobFailed, match="superseded by start 10"):
        Fence(storage, JOB, 9).check()
    storage.write(f"jobs/{JOB}/generation", b"ten")
    with pytest.raises(JobFailed, match="not a number") as caught:
        Fence(storage, JOB, 11).check()
    assert caught.value.code == "storage_unavailable"
