"""A `.keras` file, read without Keras: a zip archive of config.json, metadata.json and model.weights.h5.

Nothing of it is taken on trust: names, sizes and the size of its directory are looked at before anything is unpacked.
The format: https://keras.io/api/models/model_saving_apis/model_saving_and_loading/.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gradwire import keras_gate
from gradwire.errors import InvalidSpec, Violation

FIELD = "model.archive"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = (CONFIG, WEIGHTS, "metadata.json")
MAX_CONFIG_BYTES = 32 << 20
MAX_READ_BYTES = 16 << 20
"""Of one read; the directory of an archive is read at once, and an archive may say that it is all directory."""
AGAIN = "save the model again with model.save('model.keras') and submit the job again"


class ModelArchive:
    """An open archive, of which nothing has been unpacked. Every method raises `InvalidSpec` for what is no model."""

    def __init__(self, zip_file: zipfile.ZipFile) -> None:
        self._zip = zip_file
        self._entries = _checked(zip_file)

    @property
    def weights_bytes(self) -> int:
        """The size of the weights' file, by the archive's directory."""
        return self._entries[WEIGHTS].file_size

    def config(self) -> dict[str, Any]:
        """The model's config, without what the archive says of loss and optimizer: the job says those."""
        entry = self._entries[CONFIG]
        if entry.file_size > MAX_CONFIG_BYTES:
            raise refused(f"{CONFIG} unpacks to more than {MAX_CONFIG_BYTES >> 20} MiB")
        with _sound(CONFIG), self._zip.open(entry) as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
        try:
            config = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise refused(f"{CONFIG} is not JSON that can be read: {error}") from error
        if not isinstance(config, dict):
            raise refused(f"{CONFIG} is no JSON object; {AGAIN}")
        return uncompiled(config)

    def write_weights(self, target: Path, max_bytes: int) -> None:
        """Writes the weights' file, which must not be larger than `max_bytes`, whatever the directory says."""
        if self.weights_bytes > max_bytes:
            raise refused(
                f"{WEIGHTS} unpacks to {self.weights_bytes:,} bytes, and a model of this size has at most {max_bytes:,}"
            )
        with _sound(WEIGHTS), self._zip.open(self._entries[WEIGHTS]) as stream, target.open("xb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)  # zipfile gives no more than the directory says


@contextmanager
def open_archive(content: IO[bytes]) -> Iterator[ModelArchive]:
    """The archive in a file that is open for reading bytes; the file is left open.

    Raises `InvalidSpec` for what is no zip archive, or has members that no Keras model has.
    """
    with _sound("the file"):
        zip_file = zipfile.ZipFile(_Bounded(content))
    with zip_file:
        yield ModelArchive(zip_file)


def violations(content: IO[bytes], trust: tuple[str, ...]) -> list[Violation]:
    """What keeps Keras from seeing the archive in this file; empty if it may."""
    try:
        with open_archive(content) as archive:
            return keras_gate.violations(archive.config(), field=FIELD, trust=trust, kind="model")
    except InvalidSpec as error:
        return error.violations
    except OSError as error:
        return [Violation(FIELD, f"cannot be read: {error}")]


def refused(message: str) -> InvalidSpec:
    """The archive is at fault."""
    return InvalidSpec([Violation(FIELD, message)])


class _Bounded(io.RawIOBase):
    """A file of which no read takes more than `MAX_READ_BYTES`."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content

    def read(self, size: int = -1, /) -> bytes:
        taken = self._content.read(MAX_READ_BYTES + 1 if size < 0 else min(size, MAX_READ_BYTES + 1))
        if len(taken) > MAX_READ_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return taken

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        return self._content.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def _sound(what: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise refused(f"{what} is no sound .keras archive ({error}); {AGAIN}") from error


def _checked(zip_file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name; a .keras file has these three and nothing else."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in zip_file.infolist():
        name = entry.filename
        if name in found:
            raise refused(f"has {name[:100]!r} twice")
        if name.startswith("assets/"):
            raise refused(
                f"has the file {name[:100]!r}: vocabularies and other assets are not taken; preprocess the data before"
            )
        if name not in MEMBERS:
            hint = "; sharded weights are not taken" if name.startswith("model.weights") else ""
            raise refused(f"has {name[:100]!r}, which is no part of a Keras model{hint}; {AGAIN}")
        if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(f"{name} is encrypted, or compressed in another way than deflate")
        found[name] = entry
    for name in (CONFIG, WEIGHTS):
        if name not in found:
            raise refused(f"has no {name}; {AGAIN}")
    return found


def uncompiled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model without any compile_config; what is too deep is left to the gate."""
    return {key: _uncompiled(item, 1) for key, item in config.items() if key != "compile_config"}


def _uncompiled(value: Any, depth: int) -> Any:
    if depth > keras_gate.MAX_DEPTH:
        return value
    if isinstance(value, dict):
        is_object = "class_name" in value
        kept = ((key, item) for key, item in value.items() if not (is_object and key == "compile_config"))
        return {key: _uncompiled(item, depth + 1) for key, item in kept}
    return [_uncompiled(item, depth + 1) for item in value] if isinstance(value, list) else value
