"""The states of a model's seed generators, from what they belong to and nothing else."""

from __future__ import annotations

import hashlib
import struct

import numpy as np

WORD_BOUND = 2**31 - 2
"""Both words of a Keras seed generator stay below this, or its integer arithmetic overflows on some devices."""


def seed_states(seed: int, step: int, shard: int, generators: int, part: int = 0) -> np.ndarray:
    """States for a gradient shard's micro-batch: int64 of shape (generators, 2), each row [seed, counter] below
    `WORD_BOUND`.

    A counter-based generator in the sense of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"), with
    BLAKE2b as the bijection: any state is found without the ones before it.
    """
    states = np.empty((generators, 2), np.int64)
    for index in range(generators):
        # The first part's key is that of a shard in one piece.
        key = struct.pack("<QQQQ", seed, step, shard, index) + (struct.pack("<Q", part) if part else b"")
        words = struct.unpack("<QQ", hashlib.blake2b(key, digest_size=16, person=b"gradwire-seed").digest())
        states[index] = [word % WORD_BOUND for word in words]
    return states
