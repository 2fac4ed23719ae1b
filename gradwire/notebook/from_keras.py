"""A job's specification from a Keras model in the caller's process."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from gradwire import keras_gate
from gradwire.errors import InvalidSpec, Violation
from gradwire.keras_vocabulary import near
from gradwire.model_archive import uncompiled
from gradwire.notebook.arrays import Table
from gradwire.notebook.ends import Ends
from gradwire.notebook.objects import loss_fields, metric_fields, optimizer_fields
from gradwire.notebook.own_code import OwnCode
from gradwire.spec.file import parse
from gradwire.spec.job import JobSpec, ReportingSpec, ResourceSpec, TrainingSpec
from gradwire.spec.part import Part

PARTS: Mapping[str, type[Part]] = {
    "training": TrainingSpec,
    "resources": ResourceSpec,
    "reporting": ReportingSpec,
}


def from_keras(  # noqa: PLR0913 - those of keras.Model.compile
    model: Any,
    *,
    data: Any,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    loss_weights: Any = None,
    padding: Mapping[str, Any] | None = None,
    name: str = "",
    trust: tuple[str, ...] = (),
    folder: str | Path | None = None,
    **options: Any,
) -> JobSpec:
    """See `gradwire.JobSpec.from_keras`."""
    inputs, outputs = Ends.inputs(model), Ends.outputs(model)
    folder = Path(folder) if folder is not None else _temporary()
    compiled = _compiled(model)
    config = _config(model)
    own = OwnCode(model, config, trust)
    losses = loss_fields(
        loss if loss is not None else _required(compiled, "loss"),
        loss_weights if loss_weights is not None or loss is not None else compiled.get("loss_weights"),
        outputs,
        own,
    )
    optimizer_said, training = optimizer_fields(
        optimizer if optimizer is not None else _required(compiled, "optimizer")
    )
    metrics = metrics if metrics is not None or loss is not None else compiled.get("metrics")
    metrics_said = metric_fields(metrics, outputs, own)
    parts = _parts(options)
    return parse(
        {
            "name": name or _job_name(model),
            "model": _model(model, config, own, folder, trust),
            "data": _data(data, inputs, outputs, folder, padding),
            "loss": losses,
            "optimizer": optimizer_said,
            "metrics": metrics_said,
            "training": {**training, **parts["training"]},
            "resources": parts["resources"],
            "reporting": parts["reporting"],
        }
    )


def _compiled(model: Any) -> Mapping[str, Any]:
    """What `model.compile` was given; its optimizer as it is now."""
    config = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    if config.get("weighted_metrics"):
        raise InvalidSpec([Violation("metrics", "weighted_metrics are not taken; name them as metrics")])
    return {**config, "optimizer": getattr(model, "optimizer", None)}


def _required(compiled: Mapping[str, Any], field: str) -> Any:
    if compiled.get(field) is None:
        raise InvalidSpec([Violation(field, f"is not given; give {field}=, or compile the model")])
    return compiled[field]


def _config(model: Any) -> Any:
    try:
        return uncompiled(json.loads(model.to_json()))
    except Exception as error:  # a layer without get_config, and whatever else Keras raises
        raise InvalidSpec(
            [
                Violation(
                    "model", f"cannot be saved: {str(error)[:500]}; submit it as model.python, from its source folder"
                )
            ]
        ) from error


def _model(model: Any, config: Any, own: OwnCode, folder: Path, trust: tuple[str, ...]) -> Mapping[str, Any]:
    """`model` of a job file: an archive, or with code of the caller's own a source folder that has it in it."""
    found = keras_gate.violations(config, field="model", trust=trust, kind="model")
    name = f"model-{uuid.uuid4().hex[:8]}"
    if own.is_needed(found):
        return own.write(model, folder / name)
    if found:
        raise InvalidSpec(found)
    model.save(folder / f"{name}.keras")
    return {"archive": str(folder / f"{name}.keras")}


def _data(
    given: Any, inputs: Ends, outputs: Ends, folder: Path, padding: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """`data` of a job file: as it is, or from arrays that are written to the folder."""
    if isinstance(given, Mapping) and "train" in given:
        return given
    path = folder / f"train-{uuid.uuid4().hex[:8]}.npz"
    names = Table.of(given, inputs, outputs, "data", padding).write(path, outputs)
    return {"train": {"npz": str(path)}, **names}


def _parts(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options by the part of the specification that has them; in snake_case or as in a job file."""
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    homes = {to_camel(field): part for part, kind in PARTS.items() for field in kind.model_fields}
    for name, value in options.items():
        field = to_camel(name)
        if field not in homes:
            known = [field for kind in PARTS.values() for field in kind.model_fields]
            raise InvalidSpec([Violation(name, f"is no field of training, resources or reporting{near(name, known)}")])
        found[homes[field]][field] = value
    return found


def _job_name(model: Any) -> str:
    return re.sub(r"^[^A-Za-z0-9]+|[^\w .\-]", "", str(getattr(model, "name", "")))[:100] or "model"


def _temporary() -> Path:
    """A folder that goes with this process: a specification names its files until it is submitted."""
    folder = Path(tempfile.mkdtemp(prefix="gradwire-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
