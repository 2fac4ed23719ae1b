"""A model that ends its process with SIGSEGV on one certain sample, by graph operations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gradwire.packing import pack

MARK = 1234.5
"""The first feature of the deadly sample."""

DEADLY_ROW = 37

SOURCE = """
import ctypes, mmap
import keras, numpy as np, tensorflow as tf

PAGES = 4 * mmap.PAGESIZE


def forbidden():
    memory = mmap.mmap(-1, PAGES)
    tensor = tf.experimental.dlpack.from_dlpack(np.frombuffer(memory, np.float32).__dlpack__())
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), PAGES, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return tensor


class Deadly(keras.layers.Layer):
    def build(self, shape):
        self.nobody_may_read_this = forbidden()

    def call(self, x):
        is_deadly = tf.reduce_any(tf.equal(x[:, 0], MARK))
        extra = tf.cond(is_deadly, lambda: tf.reduce_sum(self.nobody_may_read_this), lambda: tf.constant(0.0))
        return x + extra


def make():
    x = keras.Input((4,), name="x")
    return keras.Model(x, keras.layers.Dense(1, name="y")(Deadly()(x)))
"""


def write(folder: Path) -> dict[str, Any]:
    """Writes data and source into a folder; returns the job, whose model names the packed source."""
    x = np.ones((64, 4), np.float32)
    x[DEADLY_ROW, 0] = MARK
    np.savez(folder / "deadly.npz", x=x, y=np.ones((64, 1), np.float32))
    source = folder / "source"
    source.mkdir()
    (source / "user_deadly.py").write_text(SOURCE.replace("MARK", repr(MARK)))
    pack(source, folder / "source.zip")
    return {
        "name": "deadly",
        "model": {"python": {"function": "user_deadly:make", "source": str(folder / "source")}},
        "data": {"train": {"npz": "server:deadly.npz"}, "inputs": "x", "labels": "y"},
        "loss": "MeanSquaredError",
        "optimizer": "SGD",
        "training": {"globalBatch": 16, "epochs": 1, "checkpoint": {"everySteps": 1}},
        "resources": {"workers": 2, "cpusPerWorker": 0.25},
    }
