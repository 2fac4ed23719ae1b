"""Losses, metrics and optimizers of Keras from their names and configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS

from gradwire.errors import JobFailed
from gradwire.keras_vocabulary import BY_SHAPES, accepted_names, accepted_parameters, canonical, near
from gradwire.spec.job import GradientClip, KerasObjectSpec, is_own
from workers.models.rates import multiply_rate

Kind = Literal["loss", "metric", "optimizer", "schedule"]
Shape = tuple[int | None, ...]

CODES: dict[Kind, str] = {
    "loss": "loss_config",
    "metric": "metric_config",
    "optimizer": "optimizer_config",
    "schedule": "optimizer_config",
}
CLIPS = {"value": "clipvalue", "norm": "clipnorm", "global_norm": "global_clipnorm"}


def make_loss(spec: KerasObjectSpec) -> keras.losses.Loss:
    """A loss by class name, function name or alias; functions are wrapped as `Model.compile` does.

    Raises:
        JobFailed: `loss_config` for an unknown name, an unknown parameter, or a value that Keras refuses.
    """
    found: Any = _find("loss", spec.name, keras.losses)
    if isinstance(found, type):
        loss = _made("loss", spec.name, found, dict(spec.config))
    else:
        _check_parameters("loss", spec.name, spec.config)
        options = {"name": spec.name.rpartition(":")[2], **spec.config}
        loss = _guarded("loss", spec.name, lambda: LossFunctionWrapper(found, **options))
    return _expect(loss, keras.losses.Loss, "loss", spec.name)


def make_metric(spec: KerasObjectSpec, *, output_shape: Shape, label_shape: Shape) -> keras.metrics.Metric:
    """A metric, named as `Model.compile` names it.

    Args:
        output_shape, label_shape: with the batch axis; "accuracy" and "crossentropy" are chosen by them.

    Raises:
        JobFailed: `metric_config` for an unknown name, an unknown parameter, or a value that Keras refuses.
    """
    if spec.name in BY_SHAPES:
        found: Any = _by_shapes(spec.name, output_shape, label_shape)
    else:
        found = _find("metric", spec.name, keras.metrics)
    if isinstance(found, type):
        metric = _made("metric", spec.name, found, dict(spec.config))
    else:
        options = {"name": spec.name.rpartition(":")[2], **spec.config} if is_own(spec.name) else spec.config
        metric = _guarded("metric", spec.name, lambda: keras.metrics.MeanMetricWrapper(found, **options))
    metric = _expect(metric, keras.metrics.Metric, "metric", spec.name)
    if not spec.config and not is_own(spec.name):  # which has a name of its own
        metric.name = spec.name
    return metric


def make_optimizer(
    spec: KerasObjectSpec, gradient_clip: GradientClip | None, factor: float = 1.0
) -> keras.optimizers.Optimizer:
    """An optimizer; `learning_rate` may be a schedule: `{"name": "CosineDecay", "config": {...}}`.

    `factor` multiplies the learning rate, whoever gives it.

    Raises:
        JobFailed: `optimizer_config` for an unknown name, an unknown parameter, or a value that Keras refuses.
    """
    config = dict(spec.config)
    if isinstance(config.get("learning_rate"), dict):
        config["learning_rate"] = _schedule(config["learning_rate"])
    if gradient_clip is not None:
        config[CLIPS[gradient_clip.kind]] = gradient_clip.limit
    found = _find("optimizer", spec.name, keras.optimizers)
    optimizer = _made("optimizer", spec.name, found, config)
    if factor != 1.0:
        multiply_rate(optimizer, factor)
    return _expect(optimizer, keras.optimizers.Optimizer, "optimizer", spec.name)


def _schedule(value: dict[str, Any]) -> Any:
    name, config = value.get("class_name", value.get("name")), value.get("config") or {}
    if not isinstance(name, str) or not isinstance(config, dict):
        raise JobFailed(
            "optimizer.config.learning_rate is a number, or a schedule's name and config", code="optimizer_config"
        )
    found = _find("schedule", name, keras.optimizers.schedules)
    return _made("schedule", name, found, dict(config))


def _find(kind: Kind, name: str, module: Any) -> Any:
    """The class or function of that name, which the gate would let through."""
    if _is_registered(name):  # by a trusted package or the source folder, which building the model imported
        found = GLOBAL_CUSTOM_OBJECTS.get(name)
        if found is None:
            fix = "; give the model as model.python, with it in the source folder" if is_own(name) else ""
            raise JobFailed(f"no trusted package registers the {kind} {name!r}{fix}", code=CODES[kind])
        return found
    if name not in accepted_names(kind):
        raise JobFailed(f"Keras has no {kind} {name!r}{near(name, accepted_names(kind))}", code=CODES[kind])
    return getattr(module, canonical(kind, name))


def _is_registered(name: str) -> bool:
    return ">" in name or is_own(name)


def _by_shapes(name: str, output: Shape, label: Shape) -> type[keras.metrics.Metric]:
    """As keras.src.trainers.compile_utils.get_metric decides."""
    if output[-1:] == (1,):
        family = "Binary"
    elif len(label) < len(output) or (label[-1:] == (1,) and (output[-1] or 0) > 1):
        family = "SparseCategorical"
    else:
        family = "Categorical"
    suffix = "Accuracy" if name in ("accuracy", "acc") else "Crossentropy"
    found: type[keras.metrics.Metric] = getattr(keras.metrics, family + suffix)
    return found


def _made(kind: Kind, name: str, make: Callable[..., Any], config: dict[str, Any]) -> Any:
    _check_parameters(kind, name, config)
    if ">" in name:  # a class of its own may read its config in its own way
        return _guarded(kind, name, lambda: make.from_config(config))  # type: ignore[attr-defined]
    return _guarded(kind, name, lambda: make(**config))


def _check_parameters(kind: Kind, name: str, config: dict[str, Any]) -> None:
    accepted = None if _is_registered(name) else accepted_parameters(kind, name)
    for key in config:
        if accepted is not None and key not in accepted:
            hint = near(key, accepted)
            takes = "" if "; known" in hint else f"; it takes {', '.join(accepted)}"
            raise JobFailed(f"{kind} {name} has no parameter {key!r}{hint}{takes}", code=CODES[kind])


def _guarded(kind: Kind, name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except JobFailed:
        raise
    except Exception as error:  # whatever Keras raises for a value, it is the specification's fault
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise JobFailed(f"{kind} {name}: {reason[-1][:500]}", code=CODES[kind], details=str(error)[:4000]) from error


def _expect(made: Any, base: Any, kind: Kind, name: str) -> Any:
    if not isinstance(made, base):
        raise JobFailed(f"{name} is a {type(made).__name__}, no {kind} of Keras", code=CODES[kind])
    return made
