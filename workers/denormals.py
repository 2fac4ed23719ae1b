"""Denormal numbers count as zero, as they do in TensorFlow's own threads.

TensorFlow sets the processor to flush denormals wherever it computes; NumPy leaves the thread as it is. Sums and
updates that we make in NumPy would have other bits than TensorFlow's, and other bits in a worker than in the trainer.
"""

from __future__ import annotations

import ctypes
import platform

import numpy as np

# The last word of glibc's fenv_t is MXCSR on x86-64 (flush to zero, denormals are zero); the first is FPCR on AArch64.
_ENVIRONMENT_BYTES = 32
_CONTROL = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}


def flush_denormals() -> bool:
    """Sets the calling thread to flush; returns whether it does now, which an unknown processor does not."""
    place = _CONTROL.get(platform.machine())
    if place is not None:
        offset, bits = place
        libm = ctypes.CDLL("libm.so.6")
        environment = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
        libm.fegetenv(environment)
        word = int.from_bytes(environment.raw[offset : offset + 4], "little") | bits
        ctypes.memmove(ctypes.addressof(environment) + offset, word.to_bytes(4, "little"), 4)
        libm.fesetenv(environment)
    return not np.multiply(np.full(16, 1e-22, np.float32), np.float32(1e-22)).any()
