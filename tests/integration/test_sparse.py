"""Jobs whose tables have sparse gradients: one digest, whoever computes, and the one of dense gradients."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from gradwire.spec.job import JobSpec
from tests.integration.cases import recommender, spec_of, write_npz
from tests.integration.lab import Result, lab, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

STEPS = 21
"""Three epochs of 200 rows in batches of 32: every seventh batch has 8 rows, which leaves shards empty."""
OPTIMIZERS = {
    "sgd": {"name": "SGD", "config": {"learning_rate": 0.05}},
    "adam": {"name": "Adam", "config": {"learning_rate": 0.01}},
    "adagrad": {"name": "Adagrad", "config": {"learning_rate": 0.1}},
}
SPARSE = "of users/embeddings, items/embeddings"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sparse")
    write_npz(recommender(), made / "recommender.npz")
    return made


def spec(optimizer: str, sparse: str = "exact", *, min_workers: int = 1, shards: int = 4) -> JobSpec:
    training = {"steps": STEPS, "checkpoint": {"everySteps": 5}, "sparse": sparse, "shards": shards}
    return spec_of(
        recommender(),
        "server:recommender.npz",
        optimizer=OPTIMIZERS[optimizer],
        training=training,
        resources={"workers": 4, "minWorkers": min_workers},
    )


@cache
def undisturbed(optimizer: str, sparse: str, folder: Path) -> Result:
    return succeeded(run(spec(optimizer, sparse), folder, workers=2))


def succeeded(result: Result) -> Result:
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result


def make_all_dense() -> None:
    """What a worker does before it takes its role."""
    from workers import sparse

    sparse.DENSE_BELOW = 10**9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_exact_has_the_digest_of_dense_gradients(optimizer: str, folder: Path) -> None:
    with lab(spec(optimizer), folder, workers=0) as job:
        for _ in range(2):
            job.add_worker(make_all_dense)
        dense = succeeded(job.result())
    found = undisturbed(optimizer, "exact", folder)
    assert found.digest == dense.digest
    assert not any("gradients" in event.message for event in dense.progress.events)
    assert any("sparse gradients (exact) of" in event.message for event in found.progress.events)


@pytest.mark.parametrize("sparse", ["exact", "lazy"])
def test_the_number_of_workers_and_how_they_exchange_change_no_bit(sparse: str, folder: Path) -> None:
    expected = undisturbed("adam", sparse, folder).digest
    assert succeeded(run(spec("adam", sparse), folder, workers=1)).digest == expected
    with lab(spec("adam", sparse, min_workers=3), folder, workers=2, is_remote=True) as job:
        job.add_worker(is_remote=False)
        assert succeeded(job.result()).digest == expected


def test_a_relay_adds_slices_as_well(folder: Path) -> None:
    """With four shards on two workers of one node, their sum crosses the network."""
    with lab(spec("adam", min_workers=2), folder, workers=2, is_remote=True, shares_stream=True) as job:
        assert succeeded(job.result()).digest == undisturbed("adam", "exact", folder).digest


def test_lazy_is_another_optimiser_than_exact(folder: Path) -> None:
    assert undisturbed("adam", "lazy", folder).digest != undisturbed("adam", "exact", folder).digest


def copy_tables_late() -> None:
    """What a trainer does before it takes its role: its small tables are copied beside the steps, in many pieces."""
    from service.training import late_copy

    late_copy.LARGE_BYTES, late_copy.PIECE_BYTES = 1, 256


@pytest.mark.parametrize("sparse", ["exact", "lazy"])
def test_a_killed_worker_and_a_killed_trainer_change_no_bit(sparse: str, folder: Path) -> None:
    with lab(spec("adam", sparse, min_workers=2), folder, workers=1, prepare=copy_tables_late) as first:
        os.kill(first.hold_up(), signal.SIGKILL)
        first.wait_for(lambda progress: progress.snapshot.checkpoint_step >= 5)
        assert first.trainer is not None and first.trainer.process.pid is not None
        os.kill(first.trainer.process.pid, signal.SIGKILL)
        first.trainer.process.join(10)
    with lab(spec("adam", sparse), folder, workers=1, job_id=first.job_id, generation=2) as second:
        result = succeeded(second.result())
    assert any("goes on from" in event.message for event in result.progress.events)
    assert result.digest == undisturbed("adam", sparse, folder).digest


def bad(folder: Path, name: str, value: int, *, xla: str) -> JobSpec:
    """The recommender with one id that a table does not have, in row 150."""
    case = recommender()
    inputs = {key: array.copy() for key, array in case.inputs.items()}
    inputs[name][150, -1] = value
    write_npz(replace(case, inputs=inputs), folder / f"bad_{name}.npz")
    return spec_of(case, f"server:bad_{name}.npz", training={"steps": 7, "xla": xla})


@pytest.mark.parametrize(
    ("name", "value", "xla", "table"),
    [("item", 2000, "off", "items"), ("pair", -1, "off", "users"), ("words", 9, "on", "words_table")],
)
def test_an_id_that_a_table_does_not_have_fails_the_job_by_name(
    name: str, value: int, xla: str, table: str, folder: Path
) -> None:
    result = run(bad(folder, name, value, xla=xla), folder, workers=1)
    assert result.outcome.state == "FAILED" and result.outcome.error is not None
    assert result.outcome.error.code == "id_out_of_range"
    for part in (f"input '{name}'", f"id {value} in row 150", f"'{table}/embeddings'"):
        assert part in result.outcome.error.message


def test_an_id_of_the_validation_data_that_a_table_does_not_have_fails_the_job_by_name(folder: Path) -> None:
    wrong = bad(folder, "item", 2000, xla="off").data.train
    document = spec("adam").model_dump(mode="json", by_alias=True)
    document["data"]["validation"] = {"source": wrong.model_dump(mode="json", by_alias=True)}
    result = run(JobSpec.model_validate(document), folder, workers=1)
    assert result.outcome.state == "FAILED" and result.outcome.error is not None
    assert result.outcome.error.code == "id_out_of_range"
    for part in ("bad_item.npz", "input 'item'", "id 2000 in row 150", "'items/embeddings'"):
        assert part in result.outcome.error.message
