"""Whether a snapshot may become a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradwire.errors import JobFailed

CHUNK_ELEMENTS = 1 << 20


def require_finite(step: int, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises `JobFailed` with code `nonfinite`, naming the tensors that hold an infinite number or none."""
    bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if bad:
        raise JobFailed(
            f"after step {step} {bad[0]} is not finite; the checkpoint before it stays. Lower the learning rate, "
            "or clip gradients (training.gradientClip)",
            code="nonfinite",
            details="\n".join(bad),
        )


def _is_finite(tensor: np.ndarray) -> bool:
    if tensor.dtype.kind in "biu":
        return True
    flat = tensor.reshape(-1)
    starts = range(0, flat.size, CHUNK_ELEMENTS)
    return all(np.isfinite(flat[start : start + CHUNK_ELEMENTS]).all() for start in starts)
