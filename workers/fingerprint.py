"""What the bits of a gradient depend on besides the specification."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

INSTRUCTION_SETS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
                    "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve")  # fmt: skip
"""Of the processor's features, those by which TensorFlow, oneDNN and Eigen choose their kernels."""


def fingerprint(threads: int, xla: str) -> dict[str, str]:
    """Equal fingerprints give equal bits: threads, instruction set, oneDNN, versions and XLA all change them."""
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "device": device,
        "machine": platform.machine(),
        "instructions": " ".join(sorted(set(INSTRUCTION_SETS) & _processor_flags())),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "onednnIsa": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
        "threads": str(threads),
        "xla": xla,
    }


def _processor_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.split(":", 1)[1].split())
    return set()
