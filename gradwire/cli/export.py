"""`gradwire export`: downloads a job's trained model."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradwire.cli.remote import Remote, print_document, remote_options
from gradwire.errors import GradwireError, NotPossible
from gradwire.view import state_word

if TYPE_CHECKING:
    from gradwire.client import Client
    from protos.gradwire.v1 import service_pb2 as pb

SAVED_MODEL, KERAS = "saved_model", "keras"
SAVED_MODEL_FILE = "saved_model.pb"


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
    type=click.Choice([SAVED_MODEL, KERAS]),
    default=SAVED_MODEL,
    show_default=True,
    help="saved_model: the folder DIR/saved_model. keras: the file DIR/model.keras.",
)
@remote_options
def export(remote: Remote, job: str, folder: Path, format_: str) -> None:
    """Download JOB's trained model, for TensorFlow or Keras to load.

    \b
    Example:  gradwire export 3f2a --to ./model --format keras
    """
    with remote.client() as client:
        found = client.get(job)
        _require_exported(found, format_)
        path = export_model(client, found.id, folder, format_)
    if remote.is_json:
        print_document({"id": found.id, "format": format_, "path": str(path.resolve())})
        return
    load = "keras.models.load_model" if format_ == KERAS else "tf.saved_model.load"
    click.echo(f"wrote {path}")
    click.echo(f'  load it: {load}("{path}")')


def export_model(client: Client, job_id: str, folder: Path, format_: str) -> Path:
    """Writes a job's export below a folder and returns its path; an older export there is replaced.

    Raises:
        FileExistsError: something that is no SavedModel has its place.
        GradwireError: the archive is damaged, or holds what a SavedModel does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if format_ == KERAS:
        path = folder / "model.keras"
        client.download(job_id, f"export/{KERAS}", path)
        return path
    path = folder / SAVED_MODEL
    _require_replaceable(path)
    # Beside its later place, so that the last move is a rename.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        archive = Path(temporary, "saved_model.tar")
        client.download(job_id, f"export/{SAVED_MODEL}", archive)
        _replace(path, extract(archive, Path(temporary, "extracted")))
    return path


def extract(archive: Path, folder: Path) -> Path:
    """Extracts a tar of one folder `saved_model`, and returns it; refuses devices and what leads out of the folder."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise GradwireError(f"the server's {archive.name} cannot be extracted: {error}", code="bad_export") from error
    if not (folder / SAVED_MODEL / SAVED_MODEL_FILE).is_file():
        raise GradwireError(f"the server's {archive.name} holds no {SAVED_MODEL}/{SAVED_MODEL_FILE}", code="bad_export")
    return folder / SAVED_MODEL


def _require_exported(job: pb.Job, format_: str) -> None:
    if format_ in job.exports:
        return
    has_ended = job.HasField("finished_at")
    when = (
        "ended without it" if has_ended else f"is {state_word(job.state)}; its model is exported when it has finished"
    )
    error = NotPossible(f"job {job.id} has no export {format_}: it {when}")
    error.add_note(f"gradwire {'show' if has_ended else 'watch'} {job.id}")
    raise error


def _require_replaceable(path: Path) -> None:
    if path.exists() and not (path / SAVED_MODEL_FILE).is_file():
        raise FileExistsError(17, "is there already and is no SavedModel; take another --to", str(path))


def _replace(path: Path, new: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    new.rename(path)
