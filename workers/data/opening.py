"""From what a specification says of data to sources of rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gradwire.spec.job import DataSource, DataSpec, FileRef
from gradwire.storage import Storage
from workers.data import faults
from workers.data.builtin import open_builtin
from workers.data.cache import Cache
from workers.data.npz import Archive, open_npz
from workers.data.python_source import open_python
from workers.data.source import Source
from workers.data.split import SubsetSource, split
from workers.source_code import CodePlace


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlace:
    """Where a node finds files and keeps its caches."""

    storage: Storage
    cache_dir: Path
    """A folder of this node; shared by all its processes, and free to be deleted while no job runs."""
    data_root: Path | None = None
    """What server paths are relative to; without it they are refused."""
    is_code_allowed: bool = False
    """Whether functions of source folders are called."""


def open_data(data: DataSpec, seed: int, place: DataPlace) -> tuple[Source, Source | None]:
    """The training rows and the validation rows, if there are any, with the arrays that the specification names.

    Equal on every node.

    Raises:
        JobFailed: as `open_source`; `data_shape` if both are there and their arrays differ in more than rows.
    """
    needed = frozenset({*data.inputs.values(), *data.labels.values(), *data.sample_weights.values()})
    padded = frozenset(data.padding)
    whole = open_source(data.train, place, needed=needed, padded=padded)
    if data.validation is None:
        return whole, None
    if data.validation.source is None:
        train, validation = split(whole.rows, data.validation.split or 0.0, seed)
        return SubsetSource(whole, train), SubsetSource(whole, validation)
    other = open_source(data.validation.source, place, needed=needed, padded=padded, field="data.validation.source")
    _check_alike(whole, other)
    return whole, other


def open_source(
    spec: DataSource,
    place: DataPlace,
    *,
    needed: frozenset[str],
    padded: frozenset[str] = frozenset(),
    field: str = "data.train",
) -> Source:
    """The needed arrays of a source; `field` is the specification's, for messages.

    `padded` are the arrays that `data.padding` names, with "" for all others that are ragged.

    The first process of a node makes the cache, the others wait for it.

    Raises:
        JobFailed: a code of `workers.data.faults`; the message names field, file, array, row and column.
    """
    cache = Cache(place.cache_dir)
    if spec.builtin is not None:
        return open_builtin(spec.builtin, cache, needed, name=f"{field}: {spec.builtin}")
    if spec.python is not None:
        code = CodePlace(
            storage=place.storage,
            cache_dir=place.cache_dir,
            data_root=place.data_root,
            is_allowed=place.is_code_allowed,
        )
        return open_python(spec.python, code, needed, padded=padded, field=f"{field}.python")
    if spec.npz is None:
        raise ValueError("a source is builtin, npz or python")  # the specification's own check makes sure of it
    return open_npz(_archive(spec.npz, place, cache, field), cache, needed)


def _archive(file: FileRef, place: DataPlace, cache: Cache, field: str) -> Archive:
    if file.artifact is not None:
        sha256 = file.artifact
        name = f"{field}: {file.label or sha256[:12]}"

        def open_artifact() -> IO[bytes]:
            return place.storage.open(f"artifacts/{sha256}")

        return Archive(name=name, sha256=sha256, open=open_artifact)
    if file.server_path is not None:
        return _server_archive(file.server_path, place.data_root, cache, f"{field}: server:{file.server_path}")
    raise faults.missing(f"{field}: {file.path} was never uploaded; submit the job with `gradwire submit`")


def _server_archive(server_path: str, data_root: Path | None, cache: Cache, name: str) -> Archive:
    path = _below_root(server_path, data_root, name)
    with _readable(name):
        identity = _identity(path)

    def check_unchanged() -> None:
        with _readable(name):
            if _identity(path) != identity:
                raise faults.unreadable(f"{name} changed while it was read; submit the job again when it is complete")

    def content_hash() -> str:
        with _readable(name), path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        check_unchanged()
        return digest

    sha256 = cache.remembered(identity, content_hash)
    return Archive(name=name, sha256=sha256, open=lambda: path.open("rb"), check_unchanged=check_unchanged)


def _identity(path: Path) -> str:
    """Changes whenever a file's content does, but for those who set modification times back."""
    status = path.stat()
    return json.dumps([os.fspath(path), status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino])


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise faults.missing(f"{name} is no longer there") from error
    except OSError as error:
        raise faults.unreadable(f"{name} cannot be read: {error.strerror}; check its permissions") from error


def _below_root(server_path: str, data_root: Path | None, name: str) -> Path:
    """The regular file that a server path means, links resolved.

    Raises:
        JobFailed: `data_missing` if there is no data root, the path leaves it, or no such file is there.
    """
    if data_root is None:
        raise faults.missing(f"{name} is refused: this server runs without --data-root; upload the file instead")
    try:
        root = data_root.resolve()
        path = (root / server_path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise faults.missing(f"{name} is no usable path: {error}") from error
    if not path.is_relative_to(root):
        raise faults.missing(f"{name} is refused: it lies outside the server's data root")
    if not path.is_file():
        raise faults.missing(f"{name} is not a file on this node; give a path relative to the server's --data-root")
    return path


def _check_alike(train: Source, validation: Source) -> None:
    for name, info in train.arrays.items():
        other = validation.arrays[name]
        if other.shape != info.shape:
            raise faults.wrong_shape(
                f"array {name!r} has rows of shape {info.shape} in {train.name}, but {other.shape} in {validation.name}"
            )
