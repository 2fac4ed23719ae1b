"""Options of `training` change the result in one way only: whatever workers there are, and with a break between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwire.storage import Storage
from service.training.checkpoint import Checkpoint, CheckpointFolder
from tests.integration.cases import convolutional, several_heads, spec_of, write_npz
from tests.integration.lab import Result, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

STEPS = 9
"""The seventh batch has 8 rows, which leaves shards empty."""

OPTIONS: dict[str, dict[str, Any]] = {
    "accumulation": {"accumulation": 3},
    "moving_average": {"movingAverage": {"momentum": 0.9}},
    "groups": {"learningRateMultipliers": {"first": 0.5, "digit": 2.0}, "weightDecayExclude": ["bias", "norm"]},
}
ADAMW = {"name": "AdamW", "config": {"weight_decay": 0.01}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("options_same_bits")
    write_npz(convolutional(has_state=True), made / "convolutional.npz")
    write_npz(several_heads(), made / "several_heads.npz")
    return made


def trained(folder: Path, workers: int, steps: int, job_id: str, *, generation: int = 1, **spec: Any) -> Result:
    training = {"steps": steps, **spec.pop("training")}
    case = spec.pop("case", None) or convolutional(has_state=True)
    made = spec_of(case, f"server:{case.name}.npz", training=training, **spec)
    result = run(made, folder, workers, job_id=job_id, generation=generation)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result


def last_checkpoint(folder: Path, job_id: str) -> Checkpoint:
    found = CheckpointFolder(Storage(str(folder / "storage")), job_id).restore_latest().checkpoint
    assert found is not None
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_has_one_result_for_1_2_and_4_workers_and_a_resume(option: str, folder: Path) -> None:
    def start(workers: int, steps: int, job_id: str, generation: int = 1) -> Result:
        return trained(folder, workers, steps, job_id, generation=generation, training=OPTIONS[option], optimizer=ADAMW)

    whole = start(1, STEPS, f"{option}whole")
    start(2, 4, f"{option}parts")
    resumed = start(4, STEPS, f"{option}parts", generation=2)
    assert whole.digest == resumed.digest
    assert whole.progress.snapshot.metrics == resumed.progress.snapshot.metrics
    ours, theirs = (last_checkpoint(folder, f"{option}{kind}").tensors for kind in ("whole", "parts"))
    assert [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()] == []
    assert ours.keys() == theirs.keys()


def test_micro_batches_add_up_to_their_shard(folder: Path) -> None:
    """With masks, weights and two heads, whose denominators differ."""
    for accumulation in (1, 3):
        training = {"accumulation": accumulation}
        trained(folder, 2, STEPS, f"in{accumulation}", training=training, case=several_heads(), optimizer="sgd")
    one, three = (last_checkpoint(folder, f"in{accumulation}").tensors for accumulation in (1, 3))
    for name, value in one.items():
        np.testing.assert_allclose(value, three[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_the_moving_average_is_what_is_evaluated_and_exported(optimizer: str, folder: Path) -> None:
    """SGD is updated in the weights buffer, Adagrad by Keras in variables of its own."""
    job_id = f"exported{optimizer}"
    result = trained(folder, 1, STEPS, job_id, training=OPTIONS["moving_average"], optimizer=optimizer)
    tensors = last_checkpoint(folder, job_id).tensors
    model = keras.models.load_model(folder / f"storage/jobs/{job_id}/export/model.keras", compile=False)
    for variable in model.trainable_variables:
        assert np.asarray(variable).tobytes() == tensors[f"average/{variable.path}"].tobytes(), variable.path
        assert np.asarray(variable).tobytes() != tensors[f"weights/{variable.path}"].tobytes(), variable.path
    assert result.digest
