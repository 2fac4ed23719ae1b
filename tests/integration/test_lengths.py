"""Rows of several lengths: two workers give what Keras gives on whole padded batches, with few traces."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradwire
from gradwire.errors import JobFailed
from gradwire.packing import pack
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.checkpoint import CheckpointFolder
from tests.integration.lab import Result, lab
from tests.integration.model_job import Place
from workers.data.schedule import Schedule
from workers.data.source import Source
from workers.objective import make_objective
from workers.rows import Rows

pytestmark = pytest.mark.integration

ROWS, STEPS, MULTIPLE = 50, 8, 4
GENERATOR = np.random.default_rng(4)
WORDS = [GENERATOR.integers(1, 20, length).astype(np.int32) for length in GENERATOR.integers(1, 14, ROWS)]
TAGS = [words % 5 for words in WORDS]
SCORE = np.array([words.mean() / 20 for words in WORDS], np.float32)[:, None]
PADDING = {"multiple": MULTIPLE, "max": 16}

SOURCE = """
import numpy as np

class Growing:
    def __len__(self):
        return 4000

    def arrays(self, rows):
        return {"words": [np.ones(1 + row // 4, np.int32) for row in rows], "tags": np.zeros((len(rows), 1), np.int32)}

    def lengths(self, rows):
        return {"words": 1 + rows // 4}
"""


def tagger(length: int | None = None) -> keras.Model:
    """A recurrent and an attending layer behind masked words; a head by word, one by row, one that sees padding."""
    words = keras.Input((length,), dtype="int32", name="words")
    value = keras.layers.Embedding(20, 8, mask_zero=True, name="embedding")(words)
    value = keras.layers.LSTM(8, return_sequences=True, name="lstm")(value)
    seen = keras.layers.MultiHeadAttention(2, 4, name="attention")(value, value)
    value = keras.layers.Add(name="add")([value, seen])
    tag = keras.layers.Dense(5, name="tag")(value)
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(value)
    unmasked = keras.layers.Embedding(20, 4, name="plain")(words)
    plain = keras.layers.Conv1D(5, 3, padding="same", name="next")(unmasked)
    return keras.Model(words, [tag, keras.layers.Dense(1, name="score")(pooled), plain])


def spec_of(folder: Path, **changes: Any) -> JobSpec:
    np.savez(folder / "rows.npz", score=SCORE, **gradwire.ragged(words=WORDS, tags=TAGS))
    sparse = {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}
    return JobSpec.model_validate(
        {
            "name": "tagger",
            "model": {"keras": changes.pop("model", tagger)().to_json()},
            "data": {
                "train": {"npz": "server:rows.npz"},
                "inputs": "words",
                "labels": {"tag": "tags", "score": "score", "next": "tags"},
                "padding": PADDING,
                "validation": {"split": 0.2},
                **changes.pop("data", {}),
            },
            "loss": {"tag": sparse, "score": "mse", "next": sparse},
            "optimizer": {"name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9}},
            "metrics": {"tag": ["accuracy"]},
            "training": {"globalBatch": 16, "steps": STEPS, "seed": 3, **changes.pop("training", {})},
            **changes,
        }
    )


def ran(spec: JobSpec, folder: Path, workers: int, **values: Any) -> tuple[Result, dict[str, np.ndarray]]:
    with lab(spec, folder, workers, **values) as job:
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", (result.outcome.error, result.outcome.error.details)
    checkpoint = CheckpointFolder(Storage(str(folder / "storage")), job.job_id).restore_latest().checkpoint
    assert checkpoint is not None
    return result, {key.partition("/")[2]: values for key, values in checkpoint.tensors.items()}


def trained_by_keras(spec: JobSpec, train: Source) -> dict[str, np.ndarray]:
    """Keras's losses on whole batches, each padded to the multiple that holds its longest row."""
    keras.utils.set_random_seed(spec.training.seed)
    model = keras.models.model_from_json(spec.model.keras)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = Schedule.of(spec.training, train.rows)
    for step in range(STEPS):
        shards = [train.file_rows(schedule.ids(step, shard)) for shard in range(spec.training.shards)]
        ids = np.concatenate(shards)
        words, tags = padded(ids)
        with tf.GradientTape() as tape:
            tag, score, plain = model(words, training=True)
            loss = sparse(tags, tag) + keras.losses.MeanSquaredError()(SCORE[ids], score) + sparse(tags, plain)
        gradients = tape.gradient(loss, [variable._value for variable in model.trainable_variables])
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], model.trainable_variables)
    return {variable.path: np.asarray(variable) for variable in model.trainable_variables}


def padded(ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """Words and tags of these rows, as long as the multiple that holds the longest."""
    length = -(-max(len(WORDS[row]) for row in ids) // MULTIPLE) * MULTIPLE
    return tuple(
        keras.utils.pad_sequences([part[row] for row in ids], length, padding="post") for part in (WORDS, TAGS)
    )


def loss_of(spec: JobSpec, weights: dict[str, np.ndarray], validation: Source) -> float:
    """Keras's loss of the words' head on the validation rows, which are one batch."""
    model = keras.models.model_from_json(spec.model.keras)
    for variable in model.trainable_variables:
        variable.assign(weights[variable.path])
    words, tags = padded(validation.file_rows(np.arange(validation.rows)))
    return float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(tags, model(words)[0]))


def test_padded_rows_train_as_keras_does_on_whole_batches(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    result, ours = ran(spec, tmp_path, 2, exports=True)
    place = Place(tmp_path)
    rows = Rows.open(spec, place.assignment(spec, data_root=str(tmp_path)))
    for path, expected in trained_by_keras(spec, rows.train).items():
        np.testing.assert_allclose(ours[path], expected, atol=1e-5, err_msg=path)
    told = result.progress.telemetry
    # Up to 4 lengths, full and partial shards, the program and its count of denominators, for each of two workers.
    assert 0 < told.start_traces + told.step_traces <= 2 * 2 * 2 * 4
    cut = spec_of(tmp_path, training={"accumulation": 2})
    assert ran(cut, tmp_path, 1)[0].digest == ran(cut, tmp_path, 2)[0].digest
    assert rows.validation is not None
    assert result.progress.snapshot.eval_metrics["tag_loss"] == pytest.approx(
        loss_of(spec, ours, rows.validation), 1e-5
    )
    assert {"saved_model", "keras"} <= set(result.progress.snapshot.exports)
    assert "each batch pads tags, words to 4, 8, 12 or 16" in " ".join(
        event.message for event in result.progress.events
    )


def test_a_padded_job_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, training={"checkpoint": {"everySteps": 2}})
    with lab(spec, tmp_path, 1) as first:
        first.wait_for(lambda progress: progress.snapshot.checkpoint_step >= 2)
        assert first.trainer is not None and first.trainer.process.pid is not None
        os.kill(first.trainer.process.pid, signal.SIGKILL)
        first.trainer.process.join(10)
    resumed, _ = ran(spec, tmp_path, 2, job_id=first.job_id, generation=2)
    assert any("goes on from" in event.message for event in resumed.progress.events)
    assert resumed.digest == ran(spec, tmp_path, 1)[0].digest


def test_lengths_need_an_open_axis(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for padding, says in (
        (PADDING, "the model's input 'words' takes shape (16) per row, but array 'words' is padded to several lengths"),
        ({"buckets": [14]}, "takes shape (16) per row, array 'words' has shape (14) per row"),
    ):
        spec = spec_of(tmp_path, model=lambda: tagger(16), data={"padding": padding})
        assignment = place.assignment(spec, data_root=str(tmp_path))
        rows = Rows.open(spec, assignment)
        with pytest.raises(JobFailed) as error:
            make_objective(spec, assignment, place.storage, rows.arrays)
        assert error.value.code == "model_data_mismatch"
        assert says in error.value.message


def test_a_job_that_is_traced_without_end_names_the_input_that_changes(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "growing.py").write_text(SOURCE)
    pack(tmp_path / "code", tmp_path / "code.zip")
    words = keras.Input((None,), dtype="int32", name="words")
    value = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 2)(words))
    model = keras.Model(words, keras.layers.Dense(1, name="tag")(value))
    spec = JobSpec.model_validate(
        {
            "name": "growing",
            "model": {"keras": model.to_json()},
            "data": {
                "train": {"python": {"function": "growing:Growing", "source": "server:code.zip"}},
                "inputs": "words",
                "labels": "tags",
                "padding": {"words": {"multiple": 1}},
                "shuffle": False,
            },
            "loss": "mse",
            "optimizer": "sgd",
            "training": {"globalBatch": 4, "shards": 1, "epochs": 1},
        }
    )
    with lab(spec, tmp_path, 1) as job:
        error = job.result().outcome.error
    assert error is not None
    assert error.code == "endless_retracing", error
    for said in ("traced for 64 shapes", "data.inputs.words (array 'words', int32) had 65 shapes", "(4, 64)"):
        assert said in error.message
