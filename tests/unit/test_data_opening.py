"""From a specification's words to rows, for built-in data, uploads and server files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.spec.job import DataSource, DataSpec
from gradwire.storage import Storage
from workers.data import builtin
from workers.data.opening import DataPlace, open_data, open_source


@pytest.fixture
def place(tmp_path: Path) -> DataPlace:
    (tmp_path / "root").mkdir()
    (tmp_path / "storage").mkdir()
    storage = Storage(os.fspath(tmp_path / "storage"))
    return DataPlace(storage=storage, cache_dir=tmp_path / "cache", data_root=tmp_path / "root")


def save(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def upload(place: DataPlace, tmp_path: Path, **arrays: Any) -> str:
    save(tmp_path / "upload.npz", **arrays)
    content = (tmp_path / "upload.npz").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    place.storage.write(f"artifacts/{sha256}", content)
    return sha256


def failure(place: DataPlace, source: dict[str, Any], *needed: str) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        open_source(DataSource.model_validate(source), place, needed=frozenset(needed))
    return caught.value


@pytest.mark.parametrize(
    ("name", "rows", "arrays"),
    [
        ("digits", 1797, {"image": ((8, 8, 1), "float32"), "label": ((), "int32")}),
        ("breast_cancer", 569, {"features": ((30,), "float32"), "label": ((), "int32")}),
        ("diabetes", 442, {"features": ((10,), "float32"), "target": ((), "float32")}),
    ],
)
def test_built_in_data(place: DataPlace, name: str, rows: int, arrays: dict[str, tuple[tuple[int, ...], str]]) -> None:
    source = open_source(DataSource.model_validate({"builtin": name}), place, needed=frozenset(arrays))
    assert source.rows == rows
    assert {key: (info.shape, str(info.dtype)) for key, info in source.arrays.items()} == arrays


def test_built_in_data_is_scaled_as_documented(place: DataPlace) -> None:
    digits = open_source(DataSource(builtin="digits"), place, needed=frozenset({"image", "label"}))
    everything = digits.take(np.arange(digits.rows))
    assert (everything["image"].min(), everything["image"].max()) == (0.0, 1.0)
    assert set(everything["label"].tolist()) == set(range(10))
    cancer = open_source(DataSource(builtin="breast_cancer"), place, needed=frozenset({"features"}))
    features = cancer.take(np.arange(cancer.rows))["features"].astype(np.float64)
    assert np.allclose(features.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(features.std(axis=0), 1, atol=1e-5)


def test_built_in_data_is_loaded_once_per_node(place: DataPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DataSource(builtin="digits")
    first = open_source(source, place, needed=frozenset({"image"})).take(np.arange(3))
    monkeypatch.setattr(builtin, "_LOADERS", {"digits": (("image", "label"), None)})  # a second load would fail
    again = open_source(source, place, needed=frozenset({"image"})).take(np.arange(3))
    assert np.array_equal(first["image"], again["image"])


def test_an_unknown_array_of_built_in_data_is_named(place: DataPlace) -> None:
    error = failure(place, {"builtin": "digits"}, "images", "label")
    assert error.code == "data_unknown_array"
    assert error.message == "data.train: digits has no array 'images'; did you mean 'image'? it has 'image', 'label'"


def test_an_upload(place: DataPlace, tmp_path: Path) -> None:
    sha256 = upload(place, tmp_path, x=np.arange(6.0))
    source = DataSource.model_validate({"npz": {"artifact": sha256, "label": "mine.npz"}})
    assert open_source(source, place, needed=frozenset({"x"})).take(np.array([5]))["x"].tolist() == [5.0]
    place.storage.delete(f"artifacts/{sha256}")  # the cache has it
    assert open_source(source, place, needed=frozenset({"x"})).rows == 6


def test_a_missing_upload_is_named_as_the_user_named_it(place: DataPlace) -> None:
    error = failure(place, {"npz": {"artifact": "a" * 64, "label": "mine.npz"}}, "x")
    assert (error.code, "data.train: mine.npz" in error.message) == ("data_missing", True)


def test_a_local_path_is_refused(place: DataPlace) -> None:
    error = failure(place, {"npz": "mine.npz"}, "x")
    assert (error.code, "never uploaded" in error.message) == ("data_missing", True)


def test_a_server_file_follows_its_content(place: DataPlace, tmp_path: Path) -> None:
    path = tmp_path / "root" / "sub" / "a.npz"
    path.parent.mkdir()
    source = DataSource.model_validate({"npz": "server:sub/a.npz"})
    for values in ([1.0, 2.0], [3.0, 4.0, 5.0]):
        save(path, x=np.array(values))
        opened = open_source(source, place, needed=frozenset({"x"}))
        assert opened.take(np.arange(opened.rows))["x"].tolist() == values
    assert opened.name == "data.train: server:sub/a.npz"


def test_a_server_file_that_changes_while_it_is_hashed_is_refused(
    place: DataPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "root" / "a.npz"
    save(path, x=np.zeros(3))
    digest = hashlib.file_digest

    def slow_digest(content: Any, name: str) -> Any:
        save(path, x=np.zeros(4))
        return digest(content, name)

    monkeypatch.setattr(hashlib, "file_digest", slow_digest)
    error = failure(place, {"npz": "server:a.npz"}, "x")
    assert (error.code, "changed while it was read" in error.message) == ("data_unreadable", True)
    assert [note.name for note in (place.cache_dir / "remembered").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    "path", ["../outside.npz", "sub/../../outside.npz", "link.npz", "linked/outside.npz", "ABSOLUTE/outside.npz"]
)
def test_server_paths_stay_below_the_root(place: DataPlace, tmp_path: Path, path: str) -> None:
    save(tmp_path / "outside.npz", x=np.zeros(3))
    (tmp_path / "root" / "link.npz").symlink_to(tmp_path / "outside.npz")
    (tmp_path / "root" / "linked").symlink_to(tmp_path)
    error = failure(place, {"npz": "server:" + path.replace("ABSOLUTE", os.fspath(tmp_path))}, "x")
    assert (error.code, "outside the server's data root" in error.message) == ("data_missing", True)


def test_a_link_within_the_root_is_followed(place: DataPlace, tmp_path: Path) -> None:
    save(tmp_path / "root" / "a.npz", x=np.zeros(3))
    (tmp_path / "root" / "link.npz").symlink_to("a.npz")
    source = DataSource.model_validate({"npz": "server:link.npz"})
    assert open_source(source, place, needed=frozenset({"x"})).rows == 3


@pytest.mark.parametrize("path", ["gone.npz", ".", "loop", "nul\0"])
def test_server_paths_that_are_no_files_are_named(place: DataPlace, tmp_path: Path, path: str) -> None:
    (tmp_path / "root" / "loop").symlink_to("loop")
    error = failure(place, {"npz": f"server:{path}"}, "x")
    assert error.code == "data_missing"
    assert error.message.startswith(f"data.train: server:{path} is no")


def test_server_paths_need_a_root(place: DataPlace) -> None:
    rootless = DataPlace(storage=place.storage, cache_dir=place.cache_dir)
    assert "--data-root" in failure(rootless, {"npz": "server:a.npz"}, "x").message


SPEC: dict[str, Any] = {"train": {"npz": "server:a.npz"}, "inputs": "x", "labels": "y", "sampleWeights": "w"}


def data_spec(**changes: Any) -> DataSpec:
    return DataSpec.model_validate(SPEC | changes)


def test_data_with_a_split(place: DataPlace, tmp_path: Path) -> None:
    save(tmp_path / "root" / "a.npz", x=np.arange(10.0), y=np.arange(10), w=np.ones(10), unused=np.zeros(3))
    train, validation = open_data(data_spec(validation={"split": 0.3}), 7, place)
    assert validation is not None
    assert (train.rows, validation.rows) == (7, 3)
    both = [part.take(np.arange(part.rows))["y"] for part in (train, validation)]
    assert sorted(np.concatenate(both).tolist()) == list(range(10))
    assert sorted(train.arrays) == ["w", "x", "y"]


def test_data_with_a_source_for_validation(place: DataPlace, tmp_path: Path) -> None:
    spec = data_spec(validation={"source": {"npz": "server:b.npz"}})
    save(tmp_path / "root" / "a.npz", x=np.zeros((10, 2)), y=np.arange(10), w=np.ones(10))
    save(tmp_path / "root" / "b.npz", x=np.zeros((4, 2)), y=np.arange(4), w=np.ones(4))
    train, validation = open_data(spec, 0, place)
    assert validation is not None
    assert (train.rows, validation.rows) == (10, 4)
    save(tmp_path / "root" / "b.npz", x=np.zeros((4, 3)), y=np.arange(4), w=np.ones(4))
    with pytest.raises(JobFailed, match=r"\(2,\) in data.train.*\(3,\) in data.validation.source"):
        open_data(spec, 0, place)


def test_data_without_validation(place: DataPlace, tmp_path: Path) -> None:
    save(tmp_path / "root" / "a.npz", x=np.zeros(10), y=np.arange(10), w=np.ones(10))
    train, validation = open_data(data_spec(), 0, place)
    assert (train.rows, validation) == (10, None)
