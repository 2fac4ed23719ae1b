"""Whether the parts of a specification mean the same outputs and the same arrays."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from gradwire.keras_vocabulary import near
from gradwire.spec.padding import MAX_SHAPES
from gradwire.spec.part import ONLY

if TYPE_CHECKING:
    from gradwire.spec.job import DataSpec, JobSpec


def misnamed(spec: JobSpec) -> Iterator[str]:
    """What is wrong, each beginning with its field; near matches are named."""
    labels = spec.data.labels
    yield from _without("labels in data.labels", "loss", spec.loss, labels)
    yield from _without("loss", "data.labels", labels, spec.loss)
    if ONLY not in labels:
        for field, given in (("metrics", spec.metrics), ("data.sampleWeights", spec.data.sample_weights)):
            yield from _without("labels in data.labels", field, set(given) - {ONLY}, labels)
    yield from _padding(spec.data)


def _without(what: str, field: str, given: Collection[str], known: Collection[str]) -> Iterator[str]:
    for name in sorted(set(given) - set(known)):
        output = f"the output {name!r}" if name else "no output"
        yield f"{field} names {output}, which has no {what}{near(name, [one for one in known if one])}"


def _padding(data: DataSpec) -> Iterator[str]:
    arrays = {*data.inputs.values(), *data.labels.values(), *data.sample_weights.values()}
    for name in sorted(set(data.padding) - {*arrays, ONLY}):
        meant = data.inputs.get(name) or data.labels.get(name)
        hint = f"; by the name of its array it is {meant!r}" if meant else near(name, arrays)
        yield f"data.padding names {name!r}, which is no array of data.inputs, labels or sampleWeights{hint}"
    counts = [len(rule.lengths(None) or ()) or 1 for rule in data.padding.values()]
    if (shapes := math.prod(counts)) > MAX_SHAPES:
        yield (
            f"data.padding allows {shapes} combinations of lengths, and each is traced; {MAX_SHAPES} are the most: "
            "give fewer lengths, or one rule for all arrays, which then share a length"
        )
