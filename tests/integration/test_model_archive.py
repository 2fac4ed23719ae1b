"""Models from `.keras` archives: their starting weights, and what hostile ones would do."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.model_archive import violations
from tests.integration.model_job import Place, job

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def a_model() -> keras.Model:
    x = keras.Input((4,), name="x")
    base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu", name="inner")], name="base")
    base.trainable = False
    value = keras.layers.BatchNormalization(name="norm")(base(x))
    model = keras.Model(x, keras.layers.Dense(2, name="y")(value))
    model.compile("adam", "mse")  # an archive of a compiled model holds its optimizer, too
    model.fit(np.ones((8, 4), np.float32), np.ones((8, 2), np.float32), verbose=0)
    return model


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "model.keras"
    a_model().save(path)
    return path.read_bytes()


def build(place: Place, content: bytes, **more: Any) -> keras.Model:
    digest = hashlib.sha256(content).hexdigest()
    place.storage.write(f"artifacts/{digest}", content)
    return place.build(job({"archive": {"artifact": digest, "label": "model.keras"}}), **more)


def test_a_model_starts_with_the_weights_of_its_archive(place: Place, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(archive)
    expected = keras.models.load_model(tmp_path / "model.keras")
    model = build(place, archive)
    for mine, theirs in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs), err_msg=mine.path)
    assert [variable.path for variable in model.trainable_variables] == [
        "norm/gamma", "norm/beta", "y/kernel", "y/bias",
    ]  # fmt: skip
    assert violations(io.BytesIO(archive), ()) == []


def test_workers_leave_the_weights_alone(place: Place, archive: bytes) -> None:
    members = unpacked(archive)
    model = build(place, packed({**members, "model.weights.h5": b"not looked at"}), worker_id="w1")
    assert model.count_params() == 90


def unpacked(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


def with_member(name: str, data: bytes) -> Callable[[bytes], bytes]:
    return lambda archive: packed({**unpacked(archive), name: data}, zipfile.ZIP_DEFLATED)


def without(name: str) -> Callable[[bytes], bytes]:
    return lambda archive: packed({key: data for key, data in unpacked(archive).items() if key != name})


def with_layer(layer: dict[str, Any]) -> Callable[[bytes], bytes]:
    def change(archive: bytes) -> bytes:
        members = unpacked(archive)
        config = json.loads(members["config.json"])
        config["config"]["layers"].append({"module": "keras.layers", "registered_name": None, **layer})
        return packed({**members, "config.json": json.dumps(config).encode()})

    return change


def with_weights(change: Callable[[h5py.File], None]) -> Callable[[bytes], bytes]:
    """The archive after a change of its weights' file."""

    def changed(archive: bytes) -> bytes:
        members = unpacked(archive)
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "r+") as file:
            change(file)
        return packed({**members, "model.weights.h5": content.getvalue()})

    return changed


KERNEL = "layers/dense/vars/0"


def external_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/secret")


def soft_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/layers/batch_normalization/vars/0")


def external_data(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (8, 2), "float32", external=[("/etc/passwd", 0, 64)])


def virtual_data(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((8, 2), "float32")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "secret", (8, 2))
    file.create_virtual_dataset(KERNEL, layout)


def circle(file: h5py.File) -> None:
    file["layers/dense/again"] = file["layers"]


def huge(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (1 << 40,), "float32", chunks=(1024,), compression="gzip")


def texts(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = ["text"]


def other_shape(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = np.zeros((3, 2), np.float32)


def filtered(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, data=np.zeros((8, 2), np.float32), chunks=(8, 2), compression="lzf")


def twice(archive: bytes) -> bytes:
    content = io.BytesIO(archive)
    with zipfile.ZipFile(content, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("config.json", "{}")
    return content.getvalue()


def all_directory(archive: bytes) -> bytes:
    """A file that says that it is a directory of 512 MiB."""
    end = archive.rindex(b"PK\x05\x06")
    return archive[: end + 12] + (1 << 29).to_bytes(4, "little") + archive[end + 16 :]


LAMBDA = {"class_name": "Lambda", "config": {"name": "evil", "function": {"class_name": "__lambda__", "config": {}}}}
FOREIGN = {"class_name": "Mine", "module": "os", "registered_name": "os>Mine", "config": {}}
HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no zip": (lambda _: b"PK not at all", "no sound .keras archive"),
    "cut": (lambda archive: archive[:-100], "no sound .keras archive"),
    "all directory": (all_directory, "no sound .keras archive"),
    "a path that escapes": (with_member("../../evil.py", b"x"), "is no part of a Keras model"),
    "an absolute path": (with_member("/etc/cron.d/evil", b"x"), "is no part of a Keras model"),
    "assets": (with_member("assets/lookup/vocabulary.txt", b"x"), "preprocess the data"),
    "shards": (with_member("model.weights.json", b"{}"), "sharded weights"),
    "one name twice": (twice, "'config.json' twice"),
    "no config": (without("config.json"), "has no config.json"),
    "no weights": (without("model.weights.h5"), "has no model.weights.h5"),
    "a bomb of a config": (with_member("config.json", b" " * (33 << 20)), "unpacks to more than 32 MiB"),
    "a bomb of weights": (with_member("model.weights.h5", bytes(80 << 20)), "unpacks to 83,886,080 bytes"),
    "a config that is no JSON": (with_member("config.json", b"{"), "not JSON"),
    "a deep config": (with_member("config.json", b"[" * 100_000), "not JSON that can be read"),
    "a Lambda": (with_layer(LAMBDA), "Lambda runs Python code"),
    "a foreign class": (with_layer(FOREIGN), "--trust os"),
    "an external link": (with_weights(external_link), "link to another place"),
    "a soft link": (with_weights(soft_link), "link to another place"),
    "external data": (with_weights(external_data), "reads another file"),
    "virtual data": (with_weights(virtual_data), "other files' arrays"),
    "a circle": (with_weights(circle), "has two names"),
    "a huge array": (with_weights(huge), "declares more than"),
    "texts": (with_weights(texts), "holds no numbers"),
    "another shape": (with_weights(other_shape), "the weights do not fit the config"),
    "a filter of a plug-in": (with_weights(filtered), "filter 32000"),
    "no HDF5": (with_member("model.weights.h5", b"text"), "no HDF5 file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(place: Place, archive: bytes, name: str) -> None:
    change, says = HOSTILE[name]
    with pytest.raises(JobFailed) as caught:
        build(place, change(archive))
    assert says in caught.value.message
    assert caught.value.code in ("model_archive", "model_config")
