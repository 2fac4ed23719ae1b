"""Whether a specification is one, and whether a server may take it; both without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from gradwire import keras_gate
from gradwire.errors import InvalidSpec, Violation
from gradwire.keras_vocabulary import Kind
from gradwire.spec.file_refs import file_refs
from gradwire.spec.job import FileRef, JobSpec, KerasObjectSpec, ResourceSpec, TrainingSpec, is_own
from gradwire.spec.part import Part
from gradwire.spec.translation import path, violation_of

MAX_VIOLATIONS = 100
MAX_DEPTH = 100

Location = tuple[int | str, ...]


def validate(data: object, found: Sequence[Violation] = ()) -> JobSpec:
    """The specification that a document of plain values (as JSON has them) describes, defaults filled in.

    `found` is what the reader of the document has found wrong before. Raises `InvalidSpec` with everything that is
    wrong, each with its field path.
    """
    violations = [*found, *_not_plain(data, ())]
    known = {violation.field for violation in violations}
    try:
        spec = JobSpec.model_validate(data)
    except ValidationError as error:
        translated = [violation_of(one) for one in error.errors() if "[key]" not in one["loc"]]
        if isinstance(data, Mapping):
            translated += _held_back(data)
        violations += [one for one in dict.fromkeys(translated) if one.field not in known]
    else:
        if not violations:
            return spec
    if (more := len(violations) - MAX_VIOLATIONS) > 0:
        violations[MAX_VIOLATIONS:] = [Violation("", f"and {more} more")]
    raise InvalidSpec(violations)


def violations(
    spec: JobSpec, *, trust: tuple[str, ...] = (), allow_code: bool = False, has_data_root: bool = False
) -> list[Violation]:
    """What a server refuses in a specification before it starts TensorFlow; empty if it takes it.

    `trust` names packages besides Keras whose classes a Keras config may name; `allow_code` and `has_data_root` say
    whether the server runs with --allow-code and --data-root.
    """
    found = [*_model(spec, trust), *_code(spec, allow_code)]
    for field, file in file_refs(spec):
        found += _file(field, file, has_data_root)
    for output, loss in spec.loss.items():
        found += _head_object(spec, path(("loss", output)), loss, "loss", trust)
    found += _keras_object("optimizer", spec.optimizer, "optimizer", trust)
    for output, metrics in spec.metrics.items():
        for index, metric in enumerate(metrics):
            found += _head_object(spec, path(("metrics", output, index)), metric, "metric", trust)
    return found


def _model(spec: JobSpec, trust: tuple[str, ...]) -> Iterator[Violation]:
    if spec.model.keras is not None:
        yield from keras_gate.violations_of_text(spec.model.keras, field="model.keras", trust=trust)


def _code(spec: JobSpec, allow_code: bool) -> Iterator[Violation]:
    """Functions of a source folder, on a server that runs none."""
    if allow_code:
        return
    validation = spec.data.validation.source if spec.data.validation else None
    places = {
        "model.python": (spec.model.python, "model as keras"),
        "data.train.python": (spec.data.train.python, "data as npz"),
        "data.validation.source.python": (validation and validation.python, "data as npz"),
    }
    for field, (function, instead) in places.items():
        if function is not None:
            yield Violation(
                field,
                f"this server runs no code of its clients; give the {instead}, or ask the operator to start the "
                "server with --allow-code",
            )


def _head_object(
    spec: JobSpec, field: str, item: KerasObjectSpec, kind: Kind, trust: tuple[str, ...]
) -> list[Violation]:
    """A loss or a metric, which may be of the model's source folder."""
    if not is_own(item.name):
        return _keras_object(field, item, kind, trust)
    if spec.model.python is not None:
        return []
    return [Violation(field, f"{item.name} is of a source folder, which only model.python has; give the model as that")]


def _keras_object(field: str, item: KerasObjectSpec, kind: Kind, trust: tuple[str, ...]) -> list[Violation]:
    config = {"class_name": item.name, "config": item.config}
    return keras_gate.violations(config, field=field, trust=trust, kind=kind)


def _file(field: str, file: FileRef, has_data_root: bool) -> Iterator[Violation]:
    if file.path is not None:
        yield Violation(field, f"{file.label or file.path} was not uploaded; upload it and name the artifact's SHA-256")
    if file.server_path is None:
        return
    if not has_data_root:
        yield Violation(
            field, f"server:{file.server_path} needs a server with --data-root; upload the file, or ask the operator"
        )
    parts = file.server_path.split("/")
    if file.server_path.startswith("/") or ".." in parts or "\\" in file.server_path or "\0" in file.server_path:
        yield Violation(field, f"server:{file.server_path} must be a path below the data root, without ..")


def _not_plain(value: object, location: Location) -> Iterator[Violation]:
    """Values that JSON does not have, which would be lost or changed on the way."""
    if isinstance(value, Mapping | list) and len(location) >= MAX_DEPTH:
        yield Violation(path(location[:4]), f"is nested more than {MAX_DEPTH} deep")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _not_plain(key, (*location, key))
                yield from _not_plain(item, (*location, key))
            else:
                yield Violation(path((*location, str(key))), f"the key must be text: write it in quotes, as '{key}'")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_plain(item, (*location, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Violation(path(location), f"must be a finite number, not {value}")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            yield Violation(path(location), "holds half of a surrogate pair, which is not Unicode text")
    elif not (value is None or isinstance(value, bool | int | float | BaseModel)):
        yield Violation(path(location), f"must be plain data as in JSON, not {type(value).__name__}")


def _held_back(data: Mapping[Any, Any]) -> Iterator[Violation]:
    """Rules over several fields that pydantic skips when any other field is wrong, or stops at the first of."""
    training, resources, optimizer = (data.get(part) for part in ("training", "resources", "optimizer"))
    if isinstance(training, Mapping):
        yield from _rules(
            TrainingSpec, {**_only(training, "globalBatch", "shards", "accumulation"), "epochs": 1}, ("training",)
        )
        yield from _rules(TrainingSpec, {**_only(training, "epochs", "steps"), "globalBatch": 4}, ("training",))
    if isinstance(resources, Mapping):
        yield from _rules(ResourceSpec, _only(resources, "workers", "minWorkers"), ("resources",))
        shards = _only(training, "shards") if isinstance(training, Mapping) else {}
        one_batch = {"globalBatch": shards.get("shards", 4), **shards, "epochs": 1}
        yield from _rules(JobSpec, _filled(training=one_batch, resources=_only(resources, "workers", "minWorkers")), ())
    config = optimizer.get("config") if isinstance(optimizer, Mapping) else None
    for key, value in config.items() if isinstance(config, Mapping) else ():
        yield from _rules(JobSpec, _filled(optimizer={"name": "sgd", "config": {key: value}}), ())
    source = data.get("data")
    if isinstance(source, Mapping) and "labels" in source and "loss" in data:
        labelled = {"train": {"builtin": "digits"}, "inputs": "x", "labels": source["labels"]}
        yield from _rules(JobSpec, _filled(data=labelled, loss=data["loss"]), ())


def _rules(kind: type[Part], document: Mapping[str, Any], location: Location) -> list[Violation]:
    """The violations of a part's own rules; its fields' are left out."""
    try:
        kind.model_validate(document)
    except ValidationError as error:
        rules = [one for one in error.errors() if one["type"] == "value_error" and not one["loc"]]
        return [violation_of({**one, "loc": location}) for one in rules]
    return []


def _only(part: Mapping[Any, Any], *names: str) -> dict[str, Any]:
    named = {to_camel(key): value for key, value in part.items() if isinstance(key, str)}
    return {name: named[name] for name in names if name in named}


def _filled(**parts: object) -> dict[str, Any]:
    """A valid document around the parts to look at."""
    return {
        "name": "x",
        "model": {"keras": "{}"},
        "data": {"train": {"builtin": "digits"}, "inputs": "x", "labels": "y"},
        "loss": "mse",
        "optimizer": "sgd",
        "training": {"globalBatch": 4, "epochs": 1},
        **parts,
    }
