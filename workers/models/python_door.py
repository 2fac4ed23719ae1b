"""The door for models made by Python code: `module:function` of a source folder, on servers that allow code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS

from gradwire.assignment import Assignment
from gradwire.errors import JobFailed
from gradwire.spec.job import JobSpec, is_own
from gradwire.storage import Storage
from workers.source_code import CodePlace, attribute, call, source_folder

FIELD = "model.python"


def call_function(spec: JobSpec, assignment: Assignment, storage: Storage) -> keras.Model:
    """The model that the user's function returns; the job's own losses and metrics are registered, too.

    Raises:
        JobFailed: `code_not_allowed` without --allow-code; `code_missing` if the source is not to be had; `model_code`
            for what the user's code raises, with its traceback as details, and for anything but a `keras.Model`.
    """
    python, place = spec.model.python, CodePlace.of(assignment, storage)
    assert python is not None  # the caller looked
    model = call(python, place, FIELD)
    if not isinstance(model, keras.Model):
        raise JobFailed(
            f"{FIELD}: {python.function} returned a {type(model).__name__}; return a keras.Model", code="model_code"
        )
    _register(spec, source_folder(python.source, place, FIELD))
    return model


def _register(spec: JobSpec, folder: Path) -> None:
    """Makes losses and metrics of the source folder known to Keras by the names that the specification has for them."""
    for field, name in _own_names(spec):
        GLOBAL_CUSTOM_OBJECTS[name] = attribute(name, folder, field)


def _own_names(spec: JobSpec) -> Iterator[tuple[str, str]]:
    losses = ((f"loss.{output}", loss.name) for output, loss in spec.loss.items())
    metrics = ((f"metrics.{output}", item.name) for output, items in spec.metrics.items() for item in items)
    for field, name in (*losses, *metrics):
        if is_own(name):
            yield field.rstrip("."), name
