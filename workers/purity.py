"""Whether a traced function depends on its inputs alone.

A step is a pure function of weights, optimiser state and step number. What breaks that shows in the traced graph:
stateful random ops, variables that nobody bound, writes to variables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from gradwire.errors import JobFailed

RANDOM_OP = re.compile(
    r"^(Random(?!Dataset)|Stateful(?!PartitionedCall)|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|Rng)"
)
WRITE_OP = re.compile(r"^(Assign|Resource(Scatter|Apply|SparseApply)|StridedSliceAssign)")
PYTHON_OP = re.compile(r"^(Eager)?PyFunc")


def check_pure(concrete: Any, known: Iterable[Any], layers: Collection[str]) -> None:
    """Looks through a concrete function's graph and the functions it calls.

    Args:
        concrete: a `tf.types.experimental.ConcreteFunction`.
        known: the `tf.Variable`s that the job binds or hands in.
        layers: the names of the model's layers.

    Raises:
        JobFailed: code `impure_model`, naming the place and the fix.
    """
    handles = {id(variable) for variable in known}
    for variable in concrete.graph.variables:
        if id(variable) not in handles:
            raise JobFailed(_unbound(variable.name), code="impure_model")
    for kind, op_name in _ops(concrete.graph):
        place = _place(op_name, layers) if _is_suspect(kind) else ""
        if RANDOM_OP.match(kind):
            raise JobFailed(
                f"{place} draws random numbers by {kind}, which no seed of the job reaches, so that every worker would "
                "draw others. Use a keras.random function with seed=keras.random.SeedGenerator(), made in the layer's "
                "__init__",
                code="impure_model",
            )
        if WRITE_OP.match(kind):
            raise JobFailed(
                f"{place} writes a variable by {kind} inside the step; keep the value in a Keras variable "
                "(add_weight(trainable=False)) and assign it with variable.assign",
                code="impure_model",
            )
        if PYTHON_OP.match(kind):
            raise JobFailed(
                f"{place} calls back into Python ({kind}), whose results a job cannot reproduce; use TensorFlow ops",
                code="impure_model",
            )


def _unbound(name: str) -> str:
    if "seed_generator" in name:
        return (
            "the model draws from Keras's global random generator, which every worker has for itself; pass "
            "seed=keras.random.SeedGenerator(), made in the layer's __init__, to the keras.random function"
        )
    return (
        f"the model uses the variable '{name}', which is none of the model's weights, so no worker would see it "
        "change; make it with add_weight in a layer"
    )


def _is_suspect(kind: str) -> bool:
    return any(pattern.match(kind) for pattern in (RANDOM_OP, WRITE_OP, PYTHON_OP))


def _ops(graph: Any) -> Iterator[tuple[str, str]]:
    """(op type, op name) of a graph and of its function library."""
    for op in graph.get_operations():
        yield op.type, op.name
    for function in graph.as_graph_def().library.function:
        for node in function.node_def:
            yield node.op, node.name


def _place(op_name: str, layers: Collection[str]) -> str:
    """The innermost layer of an op's name; TensorFlow numbers name scopes, so that dense may appear as dense_1."""
    for part in reversed(op_name.split("/")):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return f"layer '{name}'"
    return f"op '{op_name}'"
