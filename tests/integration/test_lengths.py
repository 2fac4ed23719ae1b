"""Rows of several lengths: two workers give what Keras gives on whole padded batches, with few traces."""

from __future__ import annotations

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


def ran(spec: JobSpec, folder: Path, workers: int) -> tuple[Result, dict[str, np.ndarray]]:
    with lab(spec, folder, workers) as job:
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", (result.outcome.error, result.outcome.error.details)
    checkpoint = CheckpointFolder(Storage(str(folder / "storage")), job.job_id).restore_latest().checkpoint
    assert checkpoint is not None
    return result, {key.partition("/")[2]: values for key, values in checkpoint.tensors.items()}


def trained_by_keras(spec: JobSpec, train: Any) -> dict[str, np.ndarray]:
    """Keras's losses on whole batches, each padded to the multiple that holds its longest row."""
    keras.utils.set_random_seed(spec.training.seed)
    model = keras.models.model_from_json(spec.model.keras)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = Schedule.of(spec.training, train.rows)
    for step in range(STEPS):
        shards = [train.file_rows(schedule.ids(step, shard)) for shard in range(spec.training.shards)]
        ids = np.concatenate(shards)
        length = -(-max(len(WORDS[row]) for row in ids) // MULTIPLE) * MULTIPLE
        words, tags = (
            keras.utils.pad_sequences([rows[row] for row in ids], length, padding="post") for rows in (WORDS, TAGS)
        )
        with tf.GradientTape() as tape:
            tag, score, plain = model(words, training=True)
            loss = sparse(tags, tag) + keras.losses.MeanSquaredError()(SCORE[ids], score) + sparse(tags, plain)
        gradients = tape.gradient(loss, [variable._value for variable in model.trainable_variables])
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], model.trainable_variables)
    return {variable.path: np.asarray(variable) for variable in model.trainable_variables}


def test_padded_rows_train_as_keras_does_on_whole_batches(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    result, ours = ran(spec, tmp_path, 2)
    place = Place(tmp_path)
    rows = Rows.open(spec, place.assignment(spec, data_root=str(tmp_path)))
    for path, expected in trained_by_keras(spec, rows.train).items():
        np.testing.assert_allclose(ours[path], expected, atol=1e-5, err_msg=path)
    told = result.progress.telemetry
    # Up to 4 lengths, full and partial shards, the program and its count of denominators, for each of two workers.
    assert 0 < told.start_traces + told.step_traces <= 2 * 2 * 2 * 4
    cut = spec_of(tmp_path, training={"accumulation": 2})
    assert ran(cut, tmp_path, 1)[0].digest == ran(cut, tmp_path, 2)[0].digest
    assert ran(spec, tmp_path, 1)[0].digest == result.digest
    checked = result.progress.snapshot.eval_metrics
    assert np.isfinite(checked["tag_loss"])


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
