"""The door for `.keras` archives: a config behind the gate, and starting weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import keras

from gradwire.assignment import Assignment
from gradwire.errors import InvalidSpec, JobFailed
from gradwire.model_archive import open_archive
from gradwire.spec.job import FileRef
from gradwire.storage import Storage
from workers.models.weights_file import load_weights, model_bytes

CODE = "model_archive"
FACTOR, SPARE_BYTES = 8, 64 << 20
"""An archive's file of weights may have this many times the model's bytes, for the state of its optimizer, and some."""


def archive_config(file: FileRef, assignment: Assignment, storage: Storage) -> str:
    """The model's config as JSON text, which has not been through the gate.

    Raises:
        JobFailed: `model_archive`, for what is no archive of a Keras model, or cannot be read.
    """
    with _opened(file, assignment, storage) as content, open_archive(content) as archive:
        return json.dumps(archive.config())


def load_archive(model: keras.Model, file: FileRef, assignment: Assignment, storage: Storage) -> None:
    """Sets the weights of the model that was made of the archive's config.

    Raises:
        JobFailed: `model_archive`, for a file that is too large for the model, is no numbers, or is another model's.
    """
    cache = Path(assignment.cache_dir)
    cache.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=cache, prefix="weights-") as folder,
        _opened(file, assignment, storage) as content,
        open_archive(content) as archive,
    ):
        path = Path(folder) / "model.weights.h5"
        archive.write_weights(path, FACTOR * model_bytes(model) + SPARE_BYTES)
        load_weights(model, path)


@contextmanager
def _opened(file: FileRef, assignment: Assignment, storage: Storage) -> Iterator[IO[bytes]]:
    label = file.label or file.server_path or "the archive"
    try:
        if file.artifact is not None:
            content = storage.open(f"artifacts/{file.artifact}")
        else:
            content = _server_path(file, assignment.data_root).open("rb")
        with content:
            yield content
    except InvalidSpec as error:
        raise JobFailed(f"model.archive: {label} {error.violations[0].description}", code=CODE) from error
    except OSError as error:
        raise JobFailed(f"model.archive: {label} cannot be read: {error}", code=CODE) from error


def _server_path(file: FileRef, data_root: str | None) -> Path:
    if file.server_path is None or data_root is None:
        raise JobFailed(
            "model.archive was not uploaded, or names a file of a server without --data-root; submit it again",
            code=CODE,
        )
    root = Path(data_root).resolve()
    path = (root / file.server_path).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise JobFailed(f"model.archive: server:{file.server_path} is no file below the server's data root", code=CODE)
    return path
