"""The data sets of scikit-learn that need no download.

digits          image (8, 8, 1) float32 in [0, 1], label int32 0-9; 1,797 rows
breast_cancer   features (30,) float32, standardised to mean 0 and variance 1, label int32 0-1; 569 rows
diabetes        features (10,) float32, as scikit-learn scales them, target float32; 442 rows
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import numpy as np

from workers.data import faults
from workers.data.cache import Cache, Writing
from workers.data.source import ArraySource

REVISION = 1
"""Rises whenever a loader below gives other arrays, so that no cache of the old ones is used."""

Arrays = dict[str, np.ndarray]


def _digits(datasets: ModuleType) -> Arrays:
    bunch = datasets.load_digits()
    image = (bunch.images / 16.0).astype(np.float32)[..., np.newaxis]
    return {"image": image, "label": bunch.target.astype(np.int32)}


def _breast_cancer(datasets: ModuleType) -> Arrays:
    bunch = datasets.load_breast_cancer()
    features = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    return {"features": features.astype(np.float32), "label": bunch.target.astype(np.int32)}


def _diabetes(datasets: ModuleType) -> Arrays:
    bunch = datasets.load_diabetes()
    return {"features": bunch.data.astype(np.float32), "target": bunch.target.astype(np.float32)}


_LOADERS: Mapping[str, tuple[tuple[str, ...], Callable[[ModuleType], Arrays]]] = {
    "digits": (("image", "label"), _digits),
    "breast_cancer": (("features", "label"), _breast_cancer),
    "diabetes": (("features", "target"), _diabetes),
}


def open_builtin(dataset: str, cache: Cache, needed: Collection[str], *, name: str) -> ArraySource:
    """A data set by its name in the specification; `name` is for messages.

    Raises:
        JobFailed: `data_unknown_array`; `data_missing` if scikit-learn is not installed; `data_cache`.
    """
    known, load = _LOADERS[dataset]
    if not set(needed) <= set(known):
        raise faults.unknown_array(name, needed, known)

    def make(lacking: Collection[str], writing: Writing) -> None:
        from sklearn import datasets  # noqa: PLC0415 - it takes a second, and is needed only when a cache is made

        arrays = load(datasets)
        for key in lacking:
            with writing(key, arrays[key].shape, arrays[key].dtype) as target:
                target[...] = arrays[key]

    return ArraySource(name, cache.load(_key(dataset, name), needed, make))


def _key(dataset: str, name: str) -> str:
    try:
        library = version("scikit-learn")
    except PackageNotFoundError as error:
        raise faults.missing(
            f"{name} comes with scikit-learn, which this node lacks; install gradwire[compute]"
        ) from error
    return "builtin-" + hashlib.sha256(f"{dataset}/{REVISION}/scikit-learn {library}".encode()).hexdigest()
