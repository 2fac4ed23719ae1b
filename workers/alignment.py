"""Where arrays begin that TensorFlow shall read: an unaligned DLPack view makes it abort the process."""

from __future__ import annotations

ALIGNMENT_BYTES = 64


def aligned(size_bytes: int) -> int:
    """The next boundary."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
