"""A specification as protobuf and back, without loss: Keras configs travel as JSON text, so that 32 stays 32.

In a message that another client made, a field at protobuf's zero is one that was not set wherever zero is no value of
the field; it takes the default. A loss's `weight` that is not set is 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from gradwire.errors import InvalidSpec, Violation
from gradwire.spec import job
from gradwire.spec.check import validate
from gradwire.spec.translation import path
from protos.gradwire.v1 import spec_pb2 as pb


def to_proto(spec: job.JobSpec) -> pb.JobSpec:
    """The message of a specification. Raises `InvalidSpec` if it names a file of this machine: upload those first."""
    return pb.JobSpec(
        name=spec.name,
        model=_model(spec.model),
        data=_data(spec.data),
        loss={key: pb.LossSpec(object=_keras_object(loss), weight=loss.weight) for key, loss in spec.loss.items()},
        optimizer=_keras_object(spec.optimizer),
        metrics={
            key: pb.MetricList(items=[_keras_object(metric) for metric in metrics])
            for key, metrics in spec.metrics.items()
        },
        training=_training(spec.training),
        resources=pb.ResourceSpec(**dict(spec.resources)),
        reporting=pb.ReportingSpec(**_given(**dict(spec.reporting))),
    )


def from_proto(message: pb.JobSpec) -> job.JobSpec:
    """The specification in a message, defaults filled in. Raises `InvalidSpec` with every violation."""
    found: list[Violation] = []
    document: dict[str, Any] = {
        "name": message.name,
        "loss": {
            key: {**_read_object(loss.object, ("loss", key), found), **_weight(loss)}
            for key, loss in message.loss.items()
        },
        "metrics": {
            key: [_read_object(item, ("metrics", key, index), found) for index, item in enumerate(metrics.items)]
            for key, metrics in message.metrics.items()
        },
    }
    if message.HasField("model"):
        document["model"] = _read_model(message.model, found)
    if message.HasField("data"):
        document["data"] = _read_data(message.data, found)
    if message.HasField("optimizer"):
        document["optimizer"] = _read_object(message.optimizer, ("optimizer",), found)
    for part in ("training", "resources", "reporting"):
        if message.HasField(part):
            document[part] = _fields(getattr(message, part))
    return validate(document, found)


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value; the others stay unset in the message."""
    return {name: value for name, value in fields.items() if value is not None}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) if value else ""


def _keras_object(item: job.KerasObjectSpec) -> pb.KerasObject:
    return pb.KerasObject(name=item.name, config_json=_json(item.config))


def _file(field: str, file: job.FileRef | None) -> pb.FileRef | None:
    if file is None:
        return None
    if file.path is not None:
        raise InvalidSpec([Violation(field, f"{file.label or file.path} is a file of this machine; upload it first")])
    return pb.FileRef(**_given(artifact=file.artifact, server_path=file.server_path), label=file.label)


def _model(model: job.ModelSpec) -> pb.ModelSpec:
    python = model.python and _python("model.python", model.python)
    return pb.ModelSpec(**_given(keras_json=model.keras, archive=_file("model.archive", model.archive), python=python))


def _python(field: str, python: job.PythonFunction) -> pb.PythonFunction:
    return pb.PythonFunction(
        function=python.function,
        arguments_json=_json(python.arguments),
        source=_file(f"{field}.source", python.source),
    )


def _data(data: job.DataSpec) -> pb.DataSpec:
    validation = None
    if data.validation is not None:
        source = data.validation.source
        validation = pb.ValidationSpec(
            **_given(split=data.validation.split, source=source and _source("data.validation.source", source))
        )
    return pb.DataSpec(
        train=_source("data.train", data.train),
        inputs=data.inputs,
        labels=data.labels,
        sample_weights=data.sample_weights,
        validation=validation,
        shuffle=data.shuffle,
        padding={name: pb.PaddingSpec(**_given(**dict(rule))) for name, rule in data.padding.items()},
    )


def _source(field: str, source: job.DataSource) -> pb.DataSource:
    python = source.python and _python(f"{field}.python", source.python)
    return pb.DataSource(**_given(builtin=source.builtin, npz=_file(f"{field}.npz", source.npz), python=python))


def _training(training: job.TrainingSpec) -> pb.TrainingSpec:
    clip, stopping, average = training.gradient_clip, training.early_stopping, training.moving_average
    parts = {
        "gradient_clip": clip and pb.GradientClip(**dict(clip)),
        "moving_average": average and pb.MovingAverage(**dict(average)),
        "early_stopping": stopping and pb.EarlyStopping(**dict(stopping)),
        "checkpoint": pb.CheckpointSpec(**dict(training.checkpoint)),
    }
    return pb.TrainingSpec(**_given(**{**dict(training), **parts}))


def _fields(message: Message) -> dict[str, Any]:
    """The fields that are set, by name; messages in them likewise."""
    return {field.name: _plain(value) for field, value in message.ListFields()}


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return _fields(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _read_json(text: str, field: str, found: list[Violation]) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        found.append(Violation(field, f"must be a JSON object: {error}"))
        return {}
    if isinstance(value, dict):
        return value
    found.append(Violation(field, "must be a JSON object"))
    return {}


def _read_object(item: pb.KerasObject, location: tuple[int | str, ...], found: list[Violation]) -> dict[str, Any]:
    return {"name": item.name, "config": _read_json(item.config_json, path((*location, "config")), found)}


def _read_file(message: pb.FileRef) -> dict[str, Any]:
    return {**_fields(message), "label": message.label}


def _read_model(model: pb.ModelSpec, found: list[Violation]) -> dict[str, Any]:
    match model.WhichOneof("source"):
        case "keras_json":
            return {"keras": model.keras_json}
        case "archive":
            return {"archive": _read_file(model.archive)}
        case "python":
            return {"python": _read_python("model.python", model.python, found)}
        case None:
            return {}


def _read_python(field: str, python: pb.PythonFunction, found: list[Violation]) -> dict[str, Any]:
    arguments = _read_json(python.arguments_json, f"{field}.arguments", found)
    document: dict[str, Any] = {"function": python.function, "arguments": arguments}
    if python.HasField("source"):
        document["source"] = _read_file(python.source)
    return document


def _read_data(data: pb.DataSpec, found: list[Violation]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "inputs": dict(data.inputs),
        "labels": dict(data.labels),
        "sample_weights": dict(data.sample_weights),
        "padding": {name: _fields(rule) for name, rule in data.padding.items()},
    }
    if data.HasField("shuffle"):
        document["shuffle"] = data.shuffle
    if data.HasField("train"):
        document["train"] = _read_source("data.train", data.train, found)
    if data.HasField("validation"):
        kind = data.validation.WhichOneof("kind")
        split, source = data.validation.split, data.validation.source
        document["validation"] = {"split": split} if kind == "split" else {}
        if kind == "source":
            document["validation"] = {"source": _read_source("data.validation.source", source, found)}
        if kind is None:
            document["validation"] = {}
    return document


def _read_source(field: str, source: pb.DataSource, found: list[Violation]) -> dict[str, Any]:
    match source.WhichOneof("source"):
        case "builtin":
            return {"builtin": source.builtin}
        case "npz":
            return {"npz": _read_file(source.npz)}
        case "python":
            return {"python": _read_python(f"{field}.python", source.python, found)}
        case None:
            return {}


def _weight(loss: pb.LossSpec) -> dict[str, float]:
    return {"weight": loss.weight} if loss.HasField("weight") else {}
