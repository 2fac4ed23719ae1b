import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.storage import Storage
from service.training.checkpoint import CheckpointFolder
from service.training.manifest import parse_manifest
from tests.unit.checkpoints import FOLDER, JOB, assert_equal, checkpoint


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{secrets.token_hex(8)}")


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def damage(storage: Storage, step: int, file: str, position: int) -> None:
    name = f"{FOLDER}/step-{step:010d}-g1/{file}"
    content = bytearray(storage.read(name))
    content[position] ^= 1
    storage.write(name, bytes(content))


def test_a_checkpoint_comes_back_as_it_was(storage: Storage) -> None:
    folder = CheckpointFolder(storage, JOB)
    assert folder.steps() == []
    assert folder.latest() is None
    size_bytes = folder.write(checkpoint(120))
    assert_equal(folder.read(120), checkpoint(120))
    assert storage.names(FOLDER) == ["step-0000000120-g1"]
    files = storage.names(f"{FOLDER}/step-0000000120-g1")
    tensors = ["optimizer", "state", "tensors", "totals", "weights"]
    assert files == ["manifest.json", *[f"{name}.safetensors" for name in tensors]]
    sizes = [storage.size_bytes(f"{FOLDER}/step-0000000120-g1/{file}") for file in files[1:]]
    assert size_bytes == sum(sizes)


def test_the_arrays_read_can_be_written_to_and_are_nobody_else_s(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    for tensor in folder.read(1).tensors.values():
        assert tensor.flags.owndata
        assert tensor.flags.writeable
        assert tensor.flags.c_contiguous


def test_the_manifest_names_every_part_with_its_hash(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(7, generation=3))
    content = json.loads(local.read(f"{FOLDER}/step-0000000007-g3/manifest.json"))
    assert content["formatVersion"] == 2
    assert content["step"] == 7
    assert content["generation"] == 3
    assert content["tensors"]["state/bn/moving_mean"]["dtype"] == "BF16"
    assert content["tensors"]["weights/dense/kernel"]["shape"] == [2, 3]
    for file, entry in content["files"].items():
        data = local.read(f"{FOLDER}/step-0000000007-g3/{file}")
        header = data[: 8 + int.from_bytes(data[:8], "little")]
        hashes = [bytes.fromhex(one["sha256"]) for one in content["tensors"].values() if one["file"] == file]
        assert entry["digest"] == hashlib.sha256(header + b"".join(hashes)).hexdigest()


def test_steps_latest_and_best(storage: Storage) -> None:
    folder = CheckpointFolder(storage, JOB)
    for step, loss in ((30, 0.4), (4, 0.2), (2_000_000_000, math.nan), (100, 0.3)):
        folder.write(checkpoint(step, loss=loss))
    assert folder.steps() == [4, 30, 100, 2_000_000_000]
    assert folder.latest() == 2_000_000_000
    assert folder.best("loss", "min") == 4
    assert folder.best("loss", "max") == 30
    assert folder.best("accuracy", "max") is None


def test_pruning_keeps_the_last_and_the_best(storage: Storage) -> None:
    folder = CheckpointFolder(storage, JOB)
    for step, loss in ((1, 0.4), (2, 0.1), (3, 0.3), (4, 0.2)):
        folder.write(checkpoint(step, loss=loss))
    assert folder.prune(generation=1, keep=1, monitor="loss", mode="min") == [1, 3]
    assert folder.steps() == [2, 4]
    assert storage.names(FOLDER) == ["step-0000000002-g1", "step-0000000004-g1"]
    assert_equal(folder.read(2), checkpoint(2, loss=0.1))


@pytest.mark.parametrize("file", ["manifest.json", "weights.safetensors", "totals.safetensors"])
@pytest.mark.parametrize("position", [0, 20, -1, None])
def test_one_wrong_bit_is_found_and_the_checkpoint_before_is_used(
    storage: Storage, file: str, position: int | None
) -> None:
    folder = CheckpointFolder(storage, JOB)
    folder.write(checkpoint(1))
    folder.write(checkpoint(2))
    size_bytes = storage.size_bytes(f"{FOLDER}/step-0000000002-g1/{file}")
    damage(storage, 2, file, size_bytes // 2 if position is None else position)
    with pytest.raises(JobFailed, match=rf"step 2 is damaged: .*step-0000000002-g1/{file}") as caught:
        folder.read(2)
    assert caught.value.code == "checkpoint_damaged"
    restored = folder.restore_latest()
    assert restored.checkpoint is not None
    assert_equal(restored.checkpoint, checkpoint(1))
    assert restored.warnings == (caught.value.message,)
    assert folder.steps() == [1]
    assert storage.names(FOLDER) == ["damaged-step-0000000002-g1", "step-0000000001-g1"]


@pytest.mark.parametrize("file", ["manifest.json", "state.safetensors"])
def test_a_missing_or_cut_file_is_damage(storage: Storage, file: str) -> None:
    folder = CheckpointFolder(storage, JOB)
    for step in (1, 2, 3):
        folder.write(checkpoint(step))
    storage.delete(f"{FOLDER}/step-0000000003-g1/{file}")
    cut = f"{FOLDER}/step-0000000002-g1/{file}"
    storage.write(cut, storage.read(cut)[:-1])
    restored = folder.restore_latest()
    assert restored.checkpoint is not None
    assert restored.checkpoint.step == 1
    assert [warning.split(" is damaged")[0] for warning in restored.warnings] == [
        "the checkpoint of step 3",
        "the checkpoint of step 2",
    ]


def test_a_changed_number_in_the_manifest_is_damage(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    name = f"{FOLDER}/step-0000000001-g1/manifest.json"
    content = local.read(name)
    assert b'"loss": 0.5' in content
    local.write(name, content.replace(b'"loss": 0.5', b'"loss": 0.4'))
    with pytest.raises(JobFailed, match="not have the content that its own sha256 says"):
        folder.read(1)


def test_a_changed_byte_without_meaning_is_damage(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    name = f"{FOLDER}/step-0000000001-g1/weights.safetensors"
    content = local.read(name)
    assert b"}} " in content, "the header has no padding to change"
    local.write(name, content.replace(b"}} ", b"}}\t"))
    with pytest.raises(JobFailed, match="its digest is not that of the manifest"):
        folder.read(1)


def test_the_size_is_compared_first(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    name = f"{FOLDER}/step-0000000001-g1/weights.safetensors"
    size_bytes = local.size_bytes(name)
    local.write(name, local.read(name) + b"x")
    with pytest.raises(JobFailed, match=f"it has {size_bytes + 1} bytes, not {size_bytes}"):
        folder.read(1)


def test_files_of_another_checkpoint_are_damage(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    folder.write(checkpoint(2))
    kernel = "weights.safetensors"
    local.write(f"{FOLDER}/step-0000000002-g1/{kernel}", local.read(f"{FOLDER}/step-0000000001-g1/{kernel}"))
    with pytest.raises(JobFailed, match="weights/dense/kernel has other bytes"):
        folder.read(2)
    manifest = local.read(f"{FOLDER}/step-0000000001-g1/manifest.json")
    local.write(f"{FOLDER}/step-0000000002-g1/manifest.json", manifest)
    with pytest.raises(JobFailed, match="it is that of step 1"):
        folder.read(2)


def test_without_checkpoints_nothing_is_restored(storage: Storage) -> None:
    restored = CheckpointFolder(storage, JOB).restore_latest()
    assert restored.checkpoint is None
    assert restored.warnings == ()


def as_version_1(storage: Storage, step: int) -> None:
    """Rewrites a manifest as version 1 had it: SHA-256 over the whole of each file."""
    name = f"{FOLDER}/step-{step:010d}-g1"
    content = json.loads(storage.read(f"{name}/manifest.json"))
    del content["sha256"]
    content["formatVersion"] = 1
    for file, entry in content["files"].items():
        del entry["digest"]
        entry["sha256"] = storage.sha256(f"{name}/{file}")
    seal = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    storage.write(f"{name}/manifest.json", json.dumps({**content, "sha256": seal}).encode())


def test_a_checkpoint_of_version_1_is_read_and_verified(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    as_version_1(local, 1)
    local.rename(f"{FOLDER}/step-0000000001-g1", f"{FOLDER}/step-0000000001")
    assert_equal(folder.read(1), checkpoint(1))
    local.rename(f"{FOLDER}/step-0000000001", f"{FOLDER}/step-0000000001-g1")
    name = f"{FOLDER}/step-0000000001-g1/weights.safetensors"
    local.write(name, local.read(name).replace(b"}} ", b"}}\t"))
    with pytest.raises(JobFailed, match="its digest is not that of the manifest"):
        folder.read(1)


def test_a_newer_format_version_is_refused_and_not_set_aside(local: Storage) -> None:
    folder = CheckpointFolder(local, JOB)
    folder.write(checkpoint(1))
    name = f"{FOLDER}/step-0000000001-g1/manifest.json"
    newer = parse_manifest(local.read(name)).model_copy(update={"format_version": 3})
    local.write(name, newer.to_json())
    with pytest.raises(JobFailed, match="has format version 3, this server reads up to version 2") as caught:
        folder.restore_latest()
    assert caught.value.code == "checkpoint_format"
    assert folder.steps() == [1]


class Failing(Storage):
    """A folder in which one operation fails."""

    error: OSError | None = None

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[Any]]:
        with super().writing(name) as file:
            yield file
            if self.error is not None and name.endswith("manifest.json"):
                raise self.error

    def read(self, name: str) -> bytes:
        if self.error is not None:
            raise self.error
        return super().read(name)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "storage_full"), (errno.EDQUOT, "storage_full"), (errno.EIO, "storage_unavailable")],
)
def test_a_failing_storage_is_named_and_loses_nothing(tmp_path: Path, number: int, code: str) -> None:
    storage = Failing(str(tmp_path))
    folder = CheckpointFolder(storage, JOB)
    folder.write(checkpoint(1))
    storage.error = OSError(number, os.strerror(number))
    with pytest.raises(JobFailed, match=f"cannot write the checkpoint of step 1.*{tmp_path}/{FOLDER}") as caught:
        folder.write(checkpoint(1, generation=2))
    assert caught.value.code == code
    with pytest.raises(JobFailed) as caught:
        folder.restore_latest()
    assert caught.value.code == code
    storage.error = None
    assert storage.names(FOLDER) == ["step-0000000001-g1"]
    assert_equal(folder.read(1), checkpoint(1))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"totals/loss": np.zeros(1)}, "totals go into Checkpoint.totals"),
        ({"weights/name": np.array(["a"])}, "tensor weights/name: dtype <U1 cannot be stored"),
    ],
)
def test_tensors_that_cannot_be_stored_are_refused(local: Storage, tensors: dict[str, Any], message: str) -> None:
    folder = CheckpointFolder(local, JOB)
    with pytest.raises((TypeError, ValueError), match=message):
        folder.write(replace(checkpoint(1), tensors=tensors))
    assert local.names(FOLDER) == []
