"""The exported model, as it is without Gradwire."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from gradwire.storage import Storage
from service.training.export import export_model

LOADER = """
import sys
import numpy as np
import keras
import tensorflow as tf

assert not any(name.split(".")[0] in ("gradwire", "service", "workers") for name in sys.modules)
for folder in sys.argv[1:]:
    with np.load(folder + "/inputs.npz") as file:
        inputs = {name: file[name] for name in file.files}
    inputs = inputs.get("only", inputs)
    model = keras.models.load_model(folder + "/model.keras")
    saved = tf.saved_model.load(folder + "/saved_model")
    assert set(saved.signatures) == {"serve", "serving_default"}, list(saved.signatures)
    for name, predict in (("keras", lambda x: model(x, training=False)), ("saved_model", saved.serve)):
        outputs = predict(inputs)
        outputs = outputs if isinstance(outputs, dict) else {"only": outputs}
        np.savez(folder + "/" + name + ".npz", **{key: np.asarray(value) for key, value in outputs.items()})
"""


def convolutional() -> keras.Model:
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.5, seed=1)(hidden)
    return keras.Model(image, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(hidden)))


def two_inputs_two_heads() -> keras.Model:
    inputs = {"wide": keras.Input((5,), name="wide"), "ids": keras.Input((3,), dtype="int32", name="ids")}
    embedded = keras.layers.Flatten()(keras.layers.Embedding(7, 4)(inputs["ids"]))
    hidden = keras.layers.Dense(6, activation="tanh")(keras.layers.Concatenate()([inputs["wide"], embedded]))
    outputs = {
        "label": keras.layers.Dense(3, name="label")(hidden),
        "score": keras.layers.Dense(1, name="score")(hidden),
    }
    return keras.Model(inputs, outputs)


def shift_weights(model: keras.Model) -> None:
    """Weights and moving statistics as training would leave them: not those of a new model."""
    generator = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(generator.uniform(0.1, 0.9, variable.shape).astype(np.float32))


def unpack(storage: Storage, folder: Path) -> None:
    (folder / "model.keras").write_bytes(storage.read("jobs/j1/export/model.keras"))
    with tarfile.open(fileobj=io.BytesIO(storage.read("jobs/j1/export/saved_model.tar"))) as archive:
        archive.extractall(folder, filter="data")


MODELS: dict[str, tuple[Callable[[], keras.Model], dict[str, np.ndarray]]] = {
    "convolutional": (convolutional, {"only": np.linspace(0, 1, 192, dtype=np.float32).reshape(3, 8, 8, 1)}),
    "two_inputs_two_heads": (
        two_inputs_two_heads,
        {
            "wide": np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5),
            "ids": np.arange(12, dtype=np.int32).reshape(4, 3) % 7,
        },
    ),
}
"""By name, with inputs; of a model with a single one it is `only`."""


def exported(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, np.ndarray]:
    """Puts both exports and the inputs into the folder; returns what the model predicts."""
    build, inputs = MODELS[name]
    model = build()
    shift_weights(model)
    outputs = model(inputs.get("only", inputs), training=False)
    storage = Storage(str(folder / "storage"))
    capfd.readouterr()
    exports = export_model(model, storage, "j1")
    assert capfd.readouterr() == ("", "")
    assert exports.formats == ("keras", "saved_model")
    assert exports.warnings == ()
    unpack(storage, folder)
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    named = outputs if isinstance(outputs, dict) else {"only": outputs}
    return {name: np.asarray(values) for name, values in named.items()}


@pytest.mark.timeout(180)
def test_exported_models_predict_the_same_without_gradwire(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folders = {name: tmp_path / name for name in MODELS}
    expected = {name: exported(name, folder, capfd) for name, folder in folders.items()}
    (tmp_path / "load.py").write_text(LOADER)
    command = [sys.executable, str(tmp_path / "load.py"), *map(str, folders.values())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, folder in folders.items():
        for format_name in ("keras", "saved_model"):
            with np.load(folder / f"{format_name}.npz") as outputs:
                assert set(outputs.files) == set(expected[name])
                for head in outputs.files:
                    np.testing.assert_allclose(outputs[head], expected[name][head], rtol=1e-6, atol=1e-6)


def test_the_tar_has_one_folder_in_order_and_no_traces_of_its_maker(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    export_model(convolutional(), storage, "j1")
    assert storage.names("jobs/j1/export") == ["model.keras", "saved_model.tar"]
    with tarfile.open(fileobj=io.BytesIO(storage.read("jobs/j1/export/saved_model.tar"))) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {"saved_model"}
    assert "saved_model/saved_model.pb" in names
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.mode == (0o755 if member.isdir() else 0o644)


def test_one_format_that_fails_leaves_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsaveable(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: object) -> object:
            return inputs

        def get_config(self) -> dict[str, object]:
            raise NotImplementedError("this layer has no config\nsecond line")

    scratch = tmp_path / "scratch"
    for name in ("gradwire-export-j1-killed", "gradwire-export-j2-at-work"):
        (scratch / name / "saved_model").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    image = keras.Input((4,))
    storage = Storage(str(tmp_path / "storage"))
    exports = export_model(keras.Model(image, Unsaveable()(image)), storage, "j1")
    assert exports.formats == ("saved_model",)
    (warning,) = exports.warnings
    assert "export of job j1 as keras failed: NotImplementedError: this layer has no config;" in warning
    assert storage.names("jobs/j1/export") == ["saved_model.tar"]
    assert [path.name for path in scratch.iterdir()] == ["gradwire-export-j2-at-work"], "what this job left is removed"


def test_a_storage_without_room_is_a_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "storage"
    blocked.mkdir()
    (blocked / "jobs").write_text("a file where a folder should be")
    exports = export_model(convolutional(), Storage(str(blocked)), "j1")
    assert exports.formats == ()
    assert len(exports.warnings) == 2
