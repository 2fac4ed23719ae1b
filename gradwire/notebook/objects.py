"""Losses, metrics and optimizers of the caller's Keras as a job names them: by name and config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradwire.errors import InvalidSpec, Violation
from gradwire.keras_vocabulary import Kind, accepted_names, accepted_parameters
from gradwire.notebook.ends import Ends, caller_keras
from gradwire.notebook.own_code import OwnCode
from gradwire.spec.job import KerasObjectSpec, is_own
from gradwire.spec.part import ONLY

CLIPS = {"clipvalue": "value", "clipnorm": "norm", "global_clipnorm": "global_norm"}
OWN_FIELDS = ("use_ema", "ema_momentum", "ema_overwrite_frequency", "gradient_accumulation_steps", *CLIPS)
HOW = "take one of Keras's, with a schedule of Keras's as its learning rate"

Fields = dict[str, Any]


def loss_fields(given: Any, weights: Any, ends: Ends, own: OwnCode) -> Fields:
    """By output: the loss and its weight. An output without a loss (None) is left out."""
    losses = _each(given, ends, "loss")
    factors = ends.values(weights, "loss_weights") if weights is not None else {}
    found = {}
    for name, loss in losses.items():
        if loss is not None:
            found[name] = object_fields(loss, "loss", own)
            if factors.get(name) is not None:
                found[name]["weight"] = float(factors[name])
    return _only(found, ends)


def metric_fields(given: Any, ends: Ends, own: OwnCode) -> Fields:
    """By output: a list of metrics."""
    if not given:
        return {}
    is_flat = ends.is_only and not isinstance(given, Mapping)
    by_name = {ends.names[0]: given} if is_flat else ends.values(given, "metrics")
    lists = {name: item if isinstance(item, list | tuple) else [item] for name, item in by_name.items()}
    if is_flat:
        lists = {name: [one for item in items for one in _flat(item)] for name, items in lists.items()}
    found = {
        name: [object_fields(one, "metric", own) for one in items if one is not None] for name, items in lists.items()
    }
    return _only({name: items for name, items in found.items() if items}, ends)


def optimizer_fields(given: Any) -> tuple[Fields, Fields]:
    """The optimizer, and what its config says of training: clipping and accumulation."""
    fields = object_fields(given, "optimizer")
    config, training = dict(fields.get("config", {})), {}
    for name, kind in CLIPS.items():
        if config.get(name) is not None:
            training["gradientClip"] = {"kind": kind, "limit": float(config[name])}
    if config.get("gradient_accumulation_steps"):
        training["accumulation"] = config["gradient_accumulation_steps"]
    if config.get("use_ema"):
        raise InvalidSpec([Violation("optimizer", "use_ema is not taken; make the optimizer without it")])
    return {**fields, "config": {key: value for key, value in config.items() if key not in OWN_FIELDS}}, training


def object_fields(given: Any, kind: Kind, own: OwnCode | None = None) -> Fields:
    """One object's name and config: of a name, a class, a function or an instance, of Keras or the caller's own."""
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, KerasObjectSpec):
        return given.model_dump()
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, type):
        return {"name": _known(given.__name__, given, kind, own)}
    if not hasattr(given, "get_config"):
        return {"name": _known(getattr(given, "__name__", str(given)), given, kind, own)}
    if type(given).__name__ in ("MeanMetricWrapper", "LossFunctionWrapper"):  # of a function
        function = given._fn if hasattr(given, "_fn") else given.fn
        return {"name": _known(function.__name__, function, kind, own)}
    name = _known(type(given).__name__, given, kind, own)
    config = caller_keras().saving.serialize_keras_object(given)["config"]
    takes = None if is_own(name) or ">" in name else accepted_parameters(kind, name)
    kept = {key: value for key, value in config.items() if value is not None and (takes is None or key in takes)}
    if not isinstance(kept.get("dtype", ""), str):
        del kept["dtype"]
    said = config if kind == "optimizer" else {}
    return {"name": name, "config": {**{key: said[key] for key in OWN_FIELDS if said.get(key)}, **kept}}


def _known(name: str, given: Any, kind: Kind, own: OwnCode | None) -> str:
    """The name, if it is one of Keras's own; otherwise the name by which the caller's own code has it."""
    module = str(getattr(given, "__module__", type(given).__module__))
    if module.split(".", maxsplit=1)[0] == "keras" and name in accepted_names(kind):
        return name
    if own is None:
        raise InvalidSpec([Violation(kind, f"{name} is none of Keras's own; {HOW}")])
    return own.reference(given if hasattr(given, "__name__") else type(given), name)


def _each(given: Any, ends: Ends, field: str) -> dict[str, Any]:
    """One loss may stand for all outputs."""
    if not isinstance(given, Mapping | list | tuple) or (isinstance(given, Mapping) and "name" in given):
        return dict.fromkeys(ends.names, given)
    return ends.values(given, field)


def _flat(item: Any) -> list[Any]:
    return list(item) if isinstance(item, list | tuple) else [item]


def _only(found: Fields, ends: Ends) -> Fields:
    return {ONLY if ends.is_only else name: value for name, value in found.items()}
