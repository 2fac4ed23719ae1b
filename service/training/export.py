"""The trained model as files that Keras and TensorFlow load without Gradwire."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradwire.errors import JobFailed
from gradwire.storage import CHUNK_BYTES, Storage, is_full

if TYPE_CHECKING:
    import keras

KERAS = "keras"
SAVED_MODEL = "saved_model"

EXPORT = "export"
BEST = "export/best"
"""Folders below the job's: of its model, and of the best evaluation's where that is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """The formats that were written, and a sentence for each that could not be."""

    formats: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    is_stored: bool = True
    """False if one was not for lack of room."""


def export_model(
    model: keras.Model, storage: Storage, job_id: str, may_write: Callable[[], None] = lambda: None, to: str = EXPORT
) -> Exports:
    """Writes jobs/<id>/<to>/model.keras and saved_model.tar, the latter with one folder saved_model in it.

    The SavedModel has the endpoint `serve` and the signature serving_default, in inference mode. A format that fails is
    a warning, and the other is still written.

    Args:
        may_write: called right before a file takes its name; raises `JobFailed` if it must not, which is no warning.
    """
    writers: dict[str, Callable[[keras.Model, Path, Storage, str, Callable[[], None]], None]] = {
        KERAS: _write_keras,
        SAVED_MODEL: _write_saved_model,
    }
    prefix = f"gradwire-export-{job_id}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # by an earlier start of the trainer, killed here
        shutil.rmtree(left, ignore_errors=True)
    formats: list[str] = []
    warnings: list[str] = []
    is_stored = True
    for name, write in writers.items():
        try:
            with tempfile.TemporaryDirectory(prefix=prefix) as folder, _temporary_files_in(folder):
                write(model, Path(folder), storage, f"jobs/{job_id}/{to}", may_write)
            formats.append(name)
        except JobFailed:
            raise
        except Exception as error:  # a layer's own code runs here, and may raise anything
            warnings.append(_warning(name, error, storage, job_id))
            is_stored &= not (isinstance(error, OSError) and is_full(error))
    return Exports(formats=tuple(formats), warnings=tuple(warnings), is_stored=is_stored)


def _write_keras(
    model: keras.Model, folder: Path, storage: Storage, export: str, may_write: Callable[[], None]
) -> None:
    path = folder / "model.keras"
    with _silence():
        model.save(path)
    with storage.writing(f"{export}/model.keras") as out, path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            out.write(chunk)
        may_write()


def _write_saved_model(
    model: keras.Model, folder: Path, storage: Storage, export: str, may_write: Callable[[], None]
) -> None:
    path = folder / SAVED_MODEL
    with _silence():
        model.export(path, format="tf_saved_model", verbose=False)
    with storage.writing(f"{export}/saved_model.tar") as out:
        with tarfile.open(fileobj=out, mode="w|") as archive:
            for part in [path, *sorted(path.rglob("*"))]:
                archive.add(part, str(part.relative_to(folder)), recursive=False, filter=_plain)
        may_write()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member without time, owner and the exporting process's umask."""
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """AutoGraph keeps the code that it generates in a temporary file until the process ends, and ours are killed."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what Keras and TensorFlow print and log while they save."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _warning(name: str, error: Exception, storage: Storage, job_id: str) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OSError) and is_full(error):
        first = f"no room left in {storage.url}, or in {tempfile.gettempdir()} where it is built; free some"
    return f"export of job {job_id} as {name} failed: {type(error).__name__}: {first}; the checkpoints are there"
