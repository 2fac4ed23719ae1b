"""Weights of classes as weights of samples, as `keras.Model.fit` understands them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwire.errors import InvalidSpec, Violation
from gradwire.notebook.ends import Ends


def sample_weights(class_weight: Mapping[int, float], y: Any, outputs: Ends) -> np.ndarray:
    """Each row's weight by its class: a number, or the place of the largest value of a one-hot row.

    Args:
        class_weight: class to weight; a class that is not there weighs 1.
        y: labels of the only output: [rows] or [rows, 1] numbers of classes, or [rows, classes].

    Returns:
        float32 [rows].

    Raises:
        InvalidSpec: the model has several outputs, or the labels are no classes.
    """
    if not outputs.is_only:
        raise _refused(f"is for models of one output, and this one has {', '.join(outputs.names)}; give sample_weight")
    (given,) = outputs.values(y, "y").values()
    labels = np.asarray(given)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    classes = labels.argmax(axis=1) if labels.ndim == 2 else labels
    if classes.ndim != 1 or classes.dtype.kind not in "biuf" or not np.array_equal(classes, classes.astype(np.int64)):
        raise _refused(f"wants labels that are classes, and y has {labels.dtype} {list(labels.shape)}")
    known = {int(name): float(weight) for name, weight in class_weight.items()}
    return np.asarray([known.get(int(value), 1.0) for value in classes], np.float32)


def _refused(message: str) -> InvalidSpec:
    return InvalidSpec([Violation("class_weight", message)])
