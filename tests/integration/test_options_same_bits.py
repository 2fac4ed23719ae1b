"""Options of `training` change the result in one way only: whatever workers there are, and with a break between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.checkpoint import Checkpoint, CheckpointFolder
from tests.integration.cases import Case, convolutional, recommender, several_heads, spec_of, write_npz
from tests.integration.lab import Result, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

STEPS = 9
"""The seventh batch has 8 rows, which leaves shards empty."""

OPTIONS: dict[str, dict[str, Any]] = {
    "accumulation": {"accumulation": 3},
    "moving_average": {"movingAverage": {"momentum": 0.9}},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
    "skip": {"onNonfinite": "skip"},
    "tables": {"accumulation": 3, "precision": "mixed_float16", "movingAverage": {}, "sparse": "lazy"},
    "groups": {"learningRateMultipliers": {"first": 0.5, "digit": 2.0}, "weightDecayExclude": ["bias", "norm"]},
}
ADAMW = {"name": "AdamW", "config": {"weight_decay": 0.01}}


LARGE_LOSS = 300.0
"""By so much that float16 overflows at first, until the loss scale has been halved a few times."""


def case_of(option: str) -> Case:
    if option == "tables":
        return recommender()
    case = convolutional(has_state=True)
    if option == "float16":
        return replace(case, name="float16", loss={"digit": {**case.loss["digit"], "weight": LARGE_LOSS}})
    if option == "skip":
        case.inputs["image"][17] = 3e38  # a finite number, with which nothing else stays finite
        return replace(case, name="skip")
    return case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("options_same_bits")
    for option in ("", "float16", "skip", "tables"):
        write_npz(case_of(option), made / f"{case_of(option).name}.npz")
    write_npz(several_heads(), made / "several_heads.npz")
    return made


def trained(
    folder: Path, workers: int, steps: int, job_id: str, *, generation: int = 1, exports: bool = False, **spec: Any
) -> Result:
    training = {"steps": steps, **spec.pop("training")}
    case = spec.pop("case", None) or convolutional(has_state=True)
    made = spec_of(case, f"server:{case.name}.npz", training=training, **spec)
    result = run(made, folder, workers, job_id=job_id, generation=generation, exports=exports)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result


def last_checkpoint(folder: Path, job_id: str) -> Checkpoint:
    found = CheckpointFolder(Storage(str(folder / "storage")), job_id).restore_latest().checkpoint
    assert found is not None
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_has_one_result_for_1_2_and_4_workers_and_a_resume(option: str, folder: Path) -> None:
    def start(workers: int, steps: int, job_id: str, generation: int = 1) -> Result:
        spec: dict[str, Any] = {"case": case_of(option), "training": OPTIONS[option], "optimizer": ADAMW}
        return trained(folder, workers, steps, job_id, generation=generation, **spec)

    whole = start(1, STEPS, f"{option}whole")
    start(2, 4, f"{option}parts")
    resumed = start(4, STEPS, f"{option}parts", generation=2)
    assert whole.digest == resumed.digest
    assert whole.progress.snapshot.metrics == resumed.progress.snapshot.metrics
    ours, theirs = (last_checkpoint(folder, f"{option}{kind}").tensors for kind in ("whole", "parts"))
    assert [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()] == []
    assert ours.keys() == theirs.keys()
    skipped = [event.message for event in whole.progress.events if "skipped so far" in event.message]
    assert bool(skipped) == (option in ("float16", "skip"))
    sparse = [event.message for event in whole.progress.events if "sparse gradients (lazy)" in event.message]
    assert bool(sparse) == (option == "tables")


def test_a_mixed_precision_is_near_to_float32_and_not_it(folder: Path) -> None:
    """Layers of a config compute in it; weights, optimiser and loss do not."""
    exact = trained(folder, 1, STEPS, "exact", training={})
    mixed = trained(folder, 1, STEPS, "mixed", training=OPTIONS["bfloat16"])
    assert mixed.digest != exact.digest
    assert mixed.progress.snapshot.metrics == pytest.approx(exact.progress.snapshot.metrics, rel=0.02)
    tensors = last_checkpoint(folder, "mixed").tensors
    assert {value.dtype.name for value in tensors.values()} == {"float32", "int64"}
    assert not [event.message for event in mixed.progress.events if event.kind == "warning"]


def test_xla_is_measured_once_and_kept_by_every_start_of_the_job(folder: Path) -> None:
    training = {"xla": "auto"}
    first = trained(folder, 2, 4, "auto", training=training)
    choice = first.progress.snapshot.fingerprint["xla"]
    assert f"xla is {choice} for the rest of the job" in " ".join(event.message for event in first.progress.events)
    assert (folder / "storage/jobs/auto/xla").read_text() == choice
    again = trained(folder, 1, STEPS, "auto", generation=2, training=training)
    assert "xla is" not in " ".join(event.message for event in again.progress.events)
    said = trained(folder, 1, STEPS, f"said{choice}", training={"xla": choice})
    assert again.digest == said.digest
    other = "off" if choice == "on" else "on"
    (folder / "storage/jobs/kept").mkdir(parents=True)
    (folder / "storage/jobs/kept/xla").write_text(other)
    kept = trained(folder, 1, 4, "kept", training=training)
    assert kept.progress.snapshot.fingerprint["xla"] == other


def test_a_step_that_is_not_finite_fails_a_job_that_does_not_skip(folder: Path) -> None:
    result = run(spec_of(case_of("skip"), "server:skip.npz", training={"steps": STEPS}), folder, 1)
    assert result.outcome.error is not None
    assert result.outcome.error.code == "nonfinite"


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
    result = trained(folder, 1, STEPS, job_id, exports=True, training=OPTIONS["moving_average"], optimizer=optimizer)
    tensors = last_checkpoint(folder, job_id).tensors
    model = keras.models.load_model(folder / f"storage/jobs/{job_id}/export/model.keras", compile=False)
    for variable in model.trainable_variables:
        assert np.asarray(variable).tobytes() == tensors[f"average/{variable.path}"].tobytes(), variable.path
        assert np.asarray(variable).tobytes() != tensors[f"weights/{variable.path}"].tobytes(), variable.path
    assert result.digest


@pytest.mark.parametrize(("average", "restores"), [(None, True), ({"momentum": 0.5}, True), (None, False)])
def test_the_best_evaluation_is_exported_also_by_a_later_start(average: Any, restores: bool, folder: Path) -> None:
    """The first evaluation is the best, since nothing improves by so much; its checkpoint stays though one is kept."""
    kind = ("average" if average else "plain") + ("restored" if restores else "beside")
    rule = {"patience": 2, "minDelta": 1e6, "restoreBest": restores}
    checkpoint = {"everySteps": 1, "keep": 1}
    training = {"evaluateEvery": 2, "earlyStopping": rule, "movingAverage": average, "checkpoint": checkpoint}

    def spec_with(**options: Any) -> JobSpec:
        return spec_of(case_of(""), "server:convolutional.npz", training={**training, **options}, validation=0.25)

    spec = spec_with(steps=50)
    run(spec_with(steps=2, earlyStopping=None), folder, 1, job_id=f"short{kind}")
    wanted = last_checkpoint(folder, f"short{kind}").tensors
    for generation in (1, 2):
        result = run(spec, folder, 1, job_id=f"best{kind}", generation=generation, exports=True)
        assert result.outcome.state == "SUCCEEDED", result.outcome.error
        assert result.progress.snapshot.step == 6
        best = result.progress.snapshot.best
        assert best is not None and best.step == 2 and best.exports == ("keras", "saved_model")
        assert CheckpointFolder(Storage(str(folder / "storage")), f"best{kind}").steps() == [2, 6]
        export = folder / f"storage/jobs/best{kind}/export"
        assert (export / "best").exists() != restores
        model = keras.models.load_model(export / ("" if restores else "best") / "model.keras", compile=False)
        values = {variable.path: np.asarray(variable).tobytes() for variable in model.variables}
        trained = {name.removeprefix("average/" if average else "weights/"): value for name, value in wanted.items()}
        for variable in model.trainable_variables:
            assert values[variable.path] == trained[variable.path].tobytes(), variable.path
        assert values["norm/moving_mean"] == wanted["state/norm/moving_mean"].tobytes()
