"""The dtype that layers compute in. Weights stay float32 under every policy that a job may ask for."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.models.functional import Functional

FLOATS = ("float16", "bfloat16", "float32", "float64")


def with_policy(config: Any, policy: str) -> Any:
    """A model's config in which layers that have the policy float32 have another.

    A config holds the policy of each layer, so that Keras's global policy does not reach them. Input layers keep their
    dtype: it is that of the data. So do layers with another policy, which somebody chose for them.
    """
    if isinstance(config, list):
        return [with_policy(item, policy) for item in config]
    if not isinstance(config, dict):
        return config
    made = {key: with_policy(value, policy) for key, value in config.items()}
    inner = made.get("config")
    if made.get("class_name") in (None, "InputLayer") or not isinstance(inner, dict) or "name" not in inner:
        return made
    if _policy_name(inner.get("dtype")) == "float32":
        made["config"] = {**inner, "dtype": policy}
    return made


def _policy_name(dtype: Any) -> str | None:
    """The name of a policy in a layer's config, as Keras 3 writes it, or as a text."""
    if isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicy":
        dtype = (dtype.get("config") or {}).get("name")
    return dtype if isinstance(dtype, str) else None


def exceptions(model: keras.Model, policy: str) -> list[str]:
    """The layers that compute in another floating dtype than the policy says, each as `name (dtype)`.

    Graphs of layers compute nothing themselves.
    """
    wanted = keras.DTypePolicy(policy).compute_dtype
    return [
        f"{layer.name} ({layer.compute_dtype})"
        for layer in model._flatten_layers(include_self=False)
        if not isinstance(layer, keras.layers.InputLayer | keras.Sequential | Functional)
        and layer.compute_dtype != wanted
        and layer.compute_dtype in FLOATS
    ]
