"""Whether model, data and losses fit each other, before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras.src import backend

from gradwire.errors import JobFailed
from gradwire.keras_vocabulary import canonical, near
from gradwire.spec.job import JobSpec, LossSpec, is_own
from gradwire.spec.part import ONLY
from workers.data.source import ArrayInfo
from workers.models.heads import Heads, InputSpec, input_specs, pack_inputs, unpack_outputs
from workers.models.names import MISMATCH, resolve
from workers.models.objects import Shape, make_loss
from workers.source_code import failure_within

SPARSE = ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy")
CLASSES = (
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalHinge",
    "CategoricalGeneralizedCrossEntropy",
    "KLDivergence",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "kl_divergence",
)
FREE = ("CTC", "Circle", "CategoricalGeneralizedCrossEntropy", "ctc", "circle")
"""Losses whose labels need not have the output's shape."""


def check_fit(model: keras.Model, heads: Heads, spec: JobSpec, arrays: Mapping[str, ArrayInfo]) -> None:
    """Runs model and losses on symbols of the data's shapes.

    Args:
        arrays: of the training data; shapes without the row axis.

    Raises:
        JobFailed: `model_data_mismatch`, naming the field, and both shapes where shapes are at fault; `loss_config`.
    """
    inputs = _inputs(heads, spec, arrays)
    labels = _labels(heads, spec, arrays)
    specs = input_specs(model)
    for name, array in inputs.items():
        _check_input(name, specs[name], array, arrays[array])
    outputs = _outputs(model, specs, {name: arrays[array] for name, array in inputs.items()})
    weights = _sample_weights(heads, spec, arrays)
    for name, loss in resolve(spec.loss, heads.output_names, field="loss", what="output").items():
        _check_label(name, loss, tuple(outputs[name].shape), labels[name], arrays[labels[name]])
        weight = arrays[weights[name]] if name in weights else None
        if weight is not None and not _is_free(loss):
            _check_weight(name, tuple(outputs[name].shape), weights[name], weight)
        _check_loss(name, loss, outputs[name], arrays[labels[name]], weight)


def _inputs(heads: Heads, spec: JobSpec, arrays: Mapping[str, ArrayInfo]) -> dict[str, str]:
    inputs = resolve(spec.data.inputs, heads.input_names, field="data.inputs", what="input")
    missing = [name for name in heads.input_names if name not in inputs]
    if missing:
        has = near(missing[0], [name for name in arrays if name not in inputs.values()])
        raise JobFailed(f"data.inputs gives no array for the model's input {missing[0]!r}{has}", code=MISMATCH)
    _check_arrays("data.inputs", inputs, arrays)
    return inputs


def _labels(heads: Heads, spec: JobSpec, arrays: Mapping[str, ArrayInfo]) -> dict[str, str]:
    labels = resolve(spec.data.labels, heads.output_names, field="data.labels", what="output")
    _check_arrays("data.labels", labels, arrays)
    resolve(spec.metrics, heads.output_names, field="metrics", what="output")
    return labels


def _sample_weights(heads: Heads, spec: JobSpec, arrays: Mapping[str, ArrayInfo]) -> dict[str, str]:
    """Output name to array; the key "" is for every output that is not named."""
    given = dict(spec.data.sample_weights)
    everywhere = [given.pop(ONLY)] if ONLY in given else []
    weights = {name: array for array in everywhere for name in heads.output_names}
    weights |= resolve(given, heads.output_names, field="data.sampleWeights", what="output")
    _check_arrays("data.sampleWeights", weights, arrays)
    return weights


def _check_arrays(field: str, given: Mapping[str, str], arrays: Mapping[str, ArrayInfo]) -> None:
    for name, array in given.items():
        if array not in arrays:
            raise JobFailed(f"{field}.{name}: the data has no array {array!r}{near(array, arrays)}", code=MISMATCH)


def _check_input(name: str, spec: InputSpec, array: str, info: ArrayInfo) -> None:
    wanted, given = spec.shape[1:], info.shape
    if info.dtype.kind in "OSUV":
        raise JobFailed(f"data.inputs.{name}: array {array!r} has dtype {info.dtype}, no numbers", code=MISMATCH)
    if _fits(wanted, given):
        _check_open(f"data.inputs.{name}: the model's input {name!r} takes", wanted, array, info)
        return
    raise JobFailed(
        f"data.inputs.{name}: the model's input {name!r} takes {_text(wanted)}, array {array!r} has {_text(given)}",
        code=MISMATCH,
    )


def _check_open(what: str, wanted: Shape, array: str, info: ArrayInfo) -> None:
    """Rows of several lengths need an axis that is open."""
    if info.is_ragged and len(wanted) == len(info.shape) and wanted[0] is not None:
        raise JobFailed(
            f"{what} {_text(wanted)}, but array {array!r} is padded to several lengths: give its axis no size "
            f"(None), or pad to that one length, as data.padding.{array}: {{buckets: [{wanted[0]}]}}",
            code=MISMATCH,
        )


def _agrees(wanted: Shape, given: Shape) -> bool:
    if len(wanted) != len(given):
        return False
    return all(a is None or b is None or a == b for a, b in zip(wanted, given, strict=True))


def _outputs(
    model: keras.Model, specs: Mapping[str, InputSpec], arrays: Mapping[str, ArrayInfo]
) -> dict[str, keras.KerasTensor]:
    tensors = {
        name: keras.KerasTensor(_met(spec.shape, arrays[name].shape), spec.dtype) for name, spec in specs.items()
    }
    try:
        return unpack_outputs(model, model.compute_output_spec(pack_inputs(model, tensors)))
    except Exception as error:
        if own := failure_within(error):
            raise own from error
        given = ", ".join(f"{name} {_text(info.shape)}" for name, info in arrays.items())
        raise JobFailed(
            f"the model {model.name!r} cannot take the data ({given}): {_first_line(error)}",
            code=MISMATCH,
            details=str(error)[:8000],
        ) from error


def _met(wanted: Shape, given: Shape) -> Shape:
    """The model's shape, with the data's sizes where the model leaves them open."""
    sizes = given if len(given) == len(wanted) - 1 else (None,) * (len(wanted) - 1)
    return (None, *[size if size is not None else other for size, other in zip(wanted[1:], sizes, strict=True)])


def _check_label(name: str, loss: LossSpec, output: Shape, array: str, info: ArrayInfo) -> None:
    """Keras broadcasts what should not be; its usual losses take labels of one shape only."""
    label, wanted = (None, *info.shape), output
    where = f"labels {array!r} of output {name!r} have {_text(info.shape)}, the output has {_text(output[1:])}"
    known, is_free = canonical("loss", loss.name), _is_free(loss)
    if info.dtype.kind in "OSUV":
        raise JobFailed(f"data.labels.{name}: array {array!r} has dtype {info.dtype}, no numbers", code=MISMATCH)
    if known in SPARSE:
        wanted = output[:-1]
        if len(output) > 1 and not _fits(wanted, label) and _agrees(output, label):
            raise JobFailed(
                f"{where}; {loss.name} takes class numbers: use categorical_crossentropy for one-hot labels",
                code=MISMATCH,
            )
    elif known in CLASSES and not _fits(wanted, label) and _fits(output[:-1], label):
        raise JobFailed(
            f"{where}; {loss.name} takes one-hot labels: use sparse_categorical_crossentropy for class numbers",
            code=MISMATCH,
        )
    if not is_free and not _fits(wanted, label):
        raise JobFailed(f"{where}; {loss.name} takes labels of {_text(wanted[1:])}", code=MISMATCH)
    if not is_free:
        _check_open(f"data.labels.{name}: {loss.name} takes labels of", wanted[1:], array, info)


def _is_free(loss: LossSpec) -> bool:
    return (
        ">" in loss.name
        or is_own(loss.name)
        or canonical("loss", loss.name) in FREE
        or loss.config.get("axis", -1) != -1
    )


def _fits(wanted: Shape, given: Shape) -> bool:
    """Whether shapes agree, but for a last axis of one element, which Keras drops or adds."""
    if len(given) == len(wanted) + 1:
        return given[-1] == 1 and _agrees(wanted, given[:-1])
    if len(given) == len(wanted) - 1:
        return wanted[-1] == 1 and _agrees(wanted[:-1], given)
    return _agrees(wanted, given)


def _check_weight(name: str, output: Shape, array: str, info: ArrayInfo) -> None:
    """A usual loss has one value for each row, or each position of a row: the output's shape but its last axis."""
    values = output[:-1]
    if (info.shape in ((), (1,)) and len(values) <= 2) or _fits(values, (None, *info.shape)):
        return
    raise JobFailed(
        f"data.sampleWeights.{name}: sample weights {array!r} have {_text(info.shape)}, the loss has values of "
        f"{_text(values[1:])}",
        code=MISMATCH,
    )


def _check_loss(
    name: str, spec: LossSpec, output: keras.KerasTensor, label: ArrayInfo, weight: ArrayInfo | None
) -> None:
    loss = make_loss(spec)
    dtype = "float32" if label.dtype.kind == "f" else str(label.dtype)
    y_true = keras.KerasTensor((None, *label.shape), dtype)
    arguments: list[Any] = [y_true, output]
    if weight is not None:
        arguments.append(keras.KerasTensor((None, *weight.shape), "float32"))
    try:
        backend.compute_output_spec(loss.__call__, *arguments)
    except Exception as error:
        if own := failure_within(error):
            raise own from error
        weights = f", sample weights of {_text(weight.shape)}" if weight is not None else ""
        raise JobFailed(
            f"loss {spec.name} of output {name!r} cannot take labels of {_text(label.shape)} for an output of "
            f"{_text(tuple(output.shape)[1:])}{weights}: {_first_line(error)}",
            code=MISMATCH,
            details=str(error)[:8000],
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _text(shape: Shape) -> str:
    return f"shape ({', '.join('any' if size is None else str(size) for size in shape)}) per row"
