"""A file of events as TensorBoard reads them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.util import event_pb2

from gradwire.storage import Storage

VERSION = "brain.Event:2"


class EventFile:
    """Grows while it is open, where the storage is a local folder; elsewhere it is stored when it is closed.

    Args:
        run: the folder of the file in the storage, which TensorBoard shows as a run.
        start: of the trainer; each has a file of its own.
        step: what earlier starts have written of later steps, TensorBoard forgets.
    """

    def __init__(self, storage: Storage, run: str, start: str, step: int) -> None:
        self._storage = storage
        self._name = f"{run}/events.out.tfevents.{int(time.time())}.{os.uname().nodename}.{start}"
        self._path = self._place()
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._add(event_pb2.Event(wall_time=time.time(), file_version=VERSION))
        begun = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(event_pb2.Event(wall_time=time.time(), step=step, session_log=begun))

    def _place(self) -> Path:
        if self._storage.is_local:
            path = self._storage.local_path(self._name)
            path.parent.mkdir(parents=True, exist_ok=True)
            return path
        handle, name = tempfile.mkstemp(prefix="gradwire-events-")
        os.close(handle)
        return Path(name)

    def add(self, step: int, summary: Any) -> None:
        """Adds a `Summary` of a step, to be read at once."""
        self._add(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def add_graph(self, graph_def: bytes) -> None:
        """Adds a graph, as a serialised `GraphDef`."""
        self._add(event_pb2.Event(wall_time=time.time(), graph_def=graph_def))

    def close(self) -> None:
        """Nothing is added after this."""
        self._writer.close()
        if not self._storage.is_local:
            self._storage.write(self._name, self._path.read_bytes())
            self._path.unlink()

    def _add(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
