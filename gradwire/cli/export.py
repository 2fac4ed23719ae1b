"""`gradwire export`: downloads a job's trained model."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradwire.cli.remote import Remote, print_document, remote_options
from gradwire.errors import GradwireError, NotPossible
from gradwire.view import state_word

if TYPE_CHECKING:
    from gradwire.client import Client
    from protos.gradwire.v1 import service_pb2 as pb

SAVED_MODEL, KERAS, TENSORBOARD = "saved_model", "keras", "tensorboard"
CONTENTS = {SAVED_MODEL: "saved_model.pb", TENSORBOARD: "train"}
"""Formats that are folders, and what is in such a folder: another folder of that name is not replaced."""
LOADERS = {
    KERAS: 'keras.models.load_model("{path}")',
    SAVED_MODEL: 'tf.saved_model.load("{path}")',
    TENSORBOARD: 'tensorboard --logdir "{path}"',
}


@click.command()
@click.argument("job")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder to write to; made if it is not there.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice([SAVED_MODEL, KERAS, TENSORBOARD]),
    default=SAVED_MODEL,
    show_default=True,
    help="saved_model: the folder DIR/saved_model. keras: the file DIR/model.keras. "
    "tensorboard: the job's curves, in the folder DIR/tensorboard.",
)
@click.option("--best", "is_best", is_flag=True, help="The weights of the best evaluation, instead of the last step's.")
@remote_options
def export(remote: Remote, job: str, folder: Path, format_: str, is_best: bool) -> None:
    """Download JOB's trained model, for TensorFlow or Keras to load, or its curves for TensorBoard.

    \b
    Example:  gradwire export 3f2a --to ./model --format keras
    """
    with remote.client() as client:
        found = client.get(job)
        if is_best:
            _require_best(found, format_)
        elif format_ != TENSORBOARD:
            _require_exported(found, format_, found.exports)
        path = export_model(client, found.id, folder, format_, is_best=is_best)
    if remote.is_json:
        print_document({"id": found.id, "format": format_, "isBest": is_best, "path": str(path.resolve())})
        return
    click.echo(f"wrote {path}")
    click.echo(f"  load it: {LOADERS[format_].format(path=path)}")


def export_model(client: Client, job_id: str, folder: Path, format_: str, *, is_best: bool = False) -> Path:
    """Writes a job's export below a folder and returns its path; an older export there is replaced.

    Raises:
        FileExistsError: something else has its place.
        GradwireError: the archive is damaged, or holds what such an export does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = TENSORBOARD if format_ == TENSORBOARD else f"export/best/{format_}" if is_best else f"export/{format_}"
    if format_ == KERAS:
        path = folder / "model.keras"
        client.download(job_id, name, path)
        return path
    path = folder / format_
    _require_replaceable(path)
    # Beside its later place, so that the last move is a rename.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        archive = Path(temporary, f"{format_}.tar")
        client.download(job_id, name, archive)
        _replace(path, extract(archive, Path(temporary, "extracted"), format_))
    return path


def extract(archive: Path, folder: Path, format_: str = SAVED_MODEL) -> Path:
    """Extracts a tar of one folder, named as the format, and returns it; refuses devices and what leads out of it."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise GradwireError(f"the server's {archive.name} cannot be extracted: {error}", code="bad_export") from error
    if not (folder / format_ / CONTENTS[format_]).exists():
        raise GradwireError(f"the server's {archive.name} holds no {format_}/{CONTENTS[format_]}", code="bad_export")
    return folder / format_


def _require_best(job: pb.Job, format_: str) -> None:
    if format_ == TENSORBOARD:
        raise click.UsageError("--best is for models; the curves are of the whole job")
    if job.HasField("finished_at") and not job.HasField("best"):
        raise NotPossible(f"job {job.id} was never evaluated; give it validation data (data.validation)")
    _require_exported(job, format_, job.best.exports)


def _require_exported(job: pb.Job, format_: str, exports: Collection[str]) -> None:
    if format_ in exports:
        return
    has_ended = job.HasField("finished_at")
    when = (
        "ended without it" if has_ended else f"is {state_word(job.state)}; its model is exported when it has finished"
    )
    error = NotPossible(f"job {job.id} has no export {format_}: it {when}")
    error.add_note(f"gradwire {'show' if has_ended else 'watch'} {job.id}")
    raise error


def _require_replaceable(path: Path) -> None:
    if path.exists() and not (path / CONTENTS[path.name]).exists():
        kind = "SavedModel" if path.name == SAVED_MODEL else "folder of TensorBoard's"
        raise FileExistsError(17, f"is there already and is no {kind}; take another --to", str(path))


def _replace(path: Path, new: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    new.rename(path)
