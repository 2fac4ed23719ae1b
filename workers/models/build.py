"""The model of a job, built from its specification alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS

from gradwire.assignment import Assignment
from gradwire.errors import JobFailed
from gradwire.keras_gate import violations_of_text
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from workers.models.archive_door import archive_config, load_archive
from workers.models.precision import with_policy
from workers.models.python_door import call_function

OWN_STEP = ("train_step", "compute_loss")
"""Methods that say a step of their own, which the gradient program would pass over in silence."""


def build_model(spec: JobSpec, assignment: Assignment, storage: Storage) -> keras.Model:
    """The job's model, built, with initial weights that depend on the specification alone.

    Seeds Python's, NumPy's and TensorFlow's generators, from which Keras's initialisers draw their seeds.

    Raises:
        JobFailed: `model_config` for a config that is no data or that Keras refuses; `code_not_allowed`, `code_missing`
            and `model_code` for a Python function; `model_not_built` without an input shape; `model_own_step` for a
            model that overrides train_step or compute_loss; `model_archive` for an archive that is none.
    """
    keras.utils.set_random_seed(spec.training.seed)
    policy = spec.training.precision
    keras.config.set_dtype_policy(policy)
    _import_trusted(assignment.trust)
    if spec.model.keras is not None:
        model = _from_config(spec.model.keras, assignment.trust, "model.keras", policy)
    elif spec.model.archive is not None:
        config = archive_config(spec.model.archive, assignment, storage)
        model = _from_config(config, assignment.trust, "model.archive", policy)
    elif spec.model.python is not None:
        model = call_function(spec, assignment, storage)
    else:
        raise ValueError("a model is keras, archive or python")  # the specification's own check makes sure of it
    _check_built(model)
    _check_step(model)
    # Workers read the trainer's weights; what their models start with is overwritten.
    if spec.model.archive is not None and not assignment.worker_id:
        load_archive(model, spec.model.archive, assignment, storage)
    return model


def _from_config(text: str, trust: tuple[str, ...], field: str, policy: str) -> keras.Model:
    found = violations_of_text(text, field=field, trust=trust)
    if found:
        lines = [f"{violation.field}: {violation.description}" for violation in found]
        raise JobFailed(lines[0], code="model_config", details="\n".join(lines))
    config = json.loads(text)
    _check_registered(config, trust)
    if policy != "float32":
        config = with_policy(config, policy)
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # Keras raises many kinds, all of which blame the config
        raise JobFailed(f"{field}: {_reason(error)}", code="model_config", details=str(error)[:8000]) from error
    if not isinstance(model, keras.Model):
        raise JobFailed(f"{field} is a {type(model).__name__}, no keras.Model", code="model_config")
    return model


def _reason(error: Exception) -> str:
    """The last of the reasons that Keras wraps around each other, each with the whole config."""
    text = str(error).rpartition("Exception encountered: ")[2].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


def _import_trusted(trust: tuple[str, ...]) -> None:
    """Imports the packages, which registers their classes with Keras."""
    for package in trust:
        try:
            importlib.import_module(package)
        except Exception as error:
            raise JobFailed(
                f"the package {package}, which the operator trusts, cannot be imported: {error}", code="trusted_package"
            ) from error


def _check_registered(config: Any, trust: tuple[str, ...]) -> None:
    """Objects outside Keras must be made by trusted packages, whatever names they are registered under."""
    for module, name in _foreign(config):
        if module and module.split(".")[0] in trust:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise JobFailed(f"model.keras: {module} cannot be imported: {error}", code="model_config") from error
        found = GLOBAL_CUSTOM_OBJECTS.get(name)
        if found is None:
            raise JobFailed(
                f"model.keras: {name} is not registered; decorate it with @keras.saving.register_keras_serializable()",
                code="model_config",
            )
        if found.__module__.split(".")[0] not in trust:
            raise JobFailed(f"model.keras: {name} is of {found.__module__}, which is not trusted", code="model_config")


def _foreign(config: Any) -> Iterator[tuple[str, str]]:
    """Module and registered name of each object in a config that is not Keras's own."""
    if isinstance(config, dict):
        is_function = config.get("class_name") == "function"
        name = str(config.get("config") if is_function else config.get("registered_name") or config.get("class_name"))
        module = str(config.get("module") or "")
        is_foreign = ">" in name or module.split(".", maxsplit=1)[0] not in ("", "keras", "builtins")
        if "class_name" in config and is_foreign:
            yield module, name
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list):
        for value in config:
            yield from _foreign(value)


def _check_built(model: keras.Model) -> None:
    if isinstance(model, keras.Sequential) and not model.built:
        raise JobFailed(
            f"the Sequential model {model.name!r} has no input shape; make keras.Input(shape=...) its first layer",
            code="model_not_built",
        )
    for layer in model._flatten_layers():
        # `build` of a subclassed model says that it is built, and leaves its layers as they are.
        if not layer.built:
            raise JobFailed(
                f"{layer.name!r} of {type(model).__name__} is not built; call the model on a batch of zeros before "
                "returning it, and leave out layers that it does not use",
                code="model_not_built",
            )


def _check_step(model: keras.Model) -> None:
    for method in OWN_STEP:
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise JobFailed(
                f"{type(model).__name__} overrides {method}, which Gradwire does not run: gradients come from the "
                "job's losses and from add_loss; move the loss there",
                code="model_own_step",
            )
