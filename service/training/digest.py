"""The digest of a model's weights, which users compare: `weightsDigest`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from service.training.tensor_file import Array, little_endian_bytes


def weights_digest(trainable: Sequence[Array], state: Sequence[Array], raw: Mapping[str, Array]) -> str:
    """SHA-256 over the values of a model's variables, in hexadecimal.

    `trainable` are `model.trainable_variables`, `state` the non-trainable ones without seed generators, both in model
    order; `raw` are variables that Keras does not know, taken by path in sorted order. Each counts as its little-endian
    bytes in C order, of any shape and data type; names, shapes and data types themselves do not count.
    """
    digest = hashlib.sha256()
    for array in (*trainable, *state, *(raw[path] for path in sorted(raw))):
        digest.update(little_endian_bytes(array))
    return digest.hexdigest()
