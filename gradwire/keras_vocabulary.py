"""The words of Keras: which losses, metrics, optimizers, classes and functions there are, without importing it."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Literal

from gradwire import keras_names

Kind = Literal["model", "loss", "metric", "optimizer", "schedule"]

BY_SHAPES = ("accuracy", "acc", "crossentropy", "ce")
"""Metrics that are chosen by the shapes of labels and output."""

NESTED: Mapping[Kind, tuple[str, ...]] = {
    "model": ("model", "part"),
    "loss": ("loss",),
    "metric": ("metric",),
    "optimizer": ("schedule",),
    "schedule": ("schedule",),
}
"""Kind of config to the groups of classes that it may hold."""


@functools.cache
def accepted_names(kind: Kind) -> tuple[str, ...]:
    """Every name of a loss, metric, optimizer or schedule, aliases included."""
    special = BY_SHAPES if kind == "metric" else ()
    return tuple(sorted({*keras_names.PARAMETERS[kind], *_aliases(kind), *special}))


def accepted_parameters(kind: Kind, name: str) -> tuple[str, ...] | None:
    """The parameters of a loss, metric, optimizer or schedule; None if Keras or the shapes decide."""
    parameters = keras_names.PARAMETERS[kind].get(_aliases(kind).get(name, name))
    return None if parameters is None or name in BY_SHAPES else tuple(parameters.split())


def near(name: str, names: Iterable[str]) -> str:
    """A hint to append to a message: the known names most like an unknown one, or all if they are few."""
    names = sorted(set(names))
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(lower[item] for item in close) + "?"
    return f"; known: {', '.join(names) or 'none'}" if len(names) <= 20 else ""


@functools.cache
def _aliases(kind: Kind) -> dict[str, str]:
    return dict(pair.split("=") for pair in keras_names.ALIASES[kind].split())


@functools.cache
def classes(kind: Kind) -> frozenset[tuple[str, str]]:
    """The classes, by module and name, that a config of this kind may hold."""
    groups = [keras_names.CLASSES[group] for group in NESTED[kind]]
    return frozenset((module, name) for group in groups for module, names in group.items() for name in names.split())


@functools.cache
def functions() -> frozenset[tuple[str, str]]:
    """The functions of tensors, by module and name, that a config may name."""
    found = {(module, name) for module, names in keras_names.FUNCTIONS.items() for name in names.split()}
    # Where a config says "builtins", Keras looks in these modules.
    return frozenset(found | {("builtins", name) for module, name in found if module != "keras.ops"})


@functools.cache
def bare() -> frozenset[str]:
    """Initialisers, regularisers, constraints and dtype policies that Keras finds without a module."""
    return frozenset(keras_names.BARE.split())


def canonical(kind: Kind, name: str) -> str:
    """The name in Keras's module that an accepted name stands for."""
    return _aliases(kind).get(name, name)
