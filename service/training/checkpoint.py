"""Checkpoints: all that a job needs to go on as if it had not stopped, and the folder that holds them.

jobs/<id>/checkpoints/step-0000000120-g2/    of step 120, by the second start of the job's trainer
    manifest.json            step, generation, hashes, the shape and data type of every tensor
    weights.safetensors      the tensors whose names start with weights/
    optimizer.safetensors    and so on: one file for each first part of a name

A start writes, replaces and removes only what it or an older one has written: should a trainer that was given up come
back between the look at the fence and the rename, nothing of its successor's can change.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from gradwire.byte_size import byte_size
from gradwire.errors import JobFailed
from gradwire.storage import Storage
from service.training.fence import Fence, superseded
from service.training.manifest import FileEntry, Manifest, TensorEntry, parse_manifest
from service.training.retention import Entry, Mode, best_step, to_delete
from service.training.storage_failure import storage_failure
from service.training.tensor_file import Array, DamagedFile, FileHash, dtype_code, read_tensors, write_tensors

MANIFEST = "manifest.json"
TOTALS = "totals"
_NAME = re.compile(r"step-(\d{10})(?:-g([1-9]\d*))?")
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A job's state after a committed step. Nobody changes its arrays until it is written: they are copies."""

    step: int
    generation: int
    spec_digest: str
    fingerprint: Mapping[str, str]
    """What the bits of the result depend on besides the specification."""
    metrics: Mapping[str, float]
    """Values by which checkpoints are compared; may be NaN or infinite."""
    totals: Mapping[str, Array] = field(default_factory=dict)
    """The epoch's metric totals so far, float64, so that a resumed job reports what it would have reported."""
    tensors: Mapping[str, Array]
    """Names such as weights/dense/kernel, state/…, optimizer/…; any shape, the data types of `tensor_file.DTYPES`."""
    best_step: int = 0
    """That of the best evaluation so far, whose checkpoint stays; 0 without one. Not stored: `totals` tell it."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A checkpoint by its name: that of a step, by one start of the trainer."""

    step: int
    generation: int
    """0 if the name does not tell, as those of earlier versions of Gradwire."""

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"step-{self.step:010d}" + (f"-g{self.generation}" if self.generation else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The newest checkpoint that is whole, if there is one, and a sentence for each that was not."""

    checkpoint: Checkpoint | None
    warnings: tuple[str, ...] = ()


class CheckpointFolder:
    """One job's checkpoints. Its trainer is the only writer; the fence sees to that."""

    def __init__(self, storage: Storage, job_id: str) -> None:
        self._storage = storage
        self._job_id = job_id
        self._folder = f"jobs/{job_id}/checkpoints"
        self._place = f"{storage.url.rstrip('/')}/{self._folder}"

    def write(self, checkpoint: Checkpoint) -> int:
        """Writes the checkpoint under a temporary name, then gives it its own; returns its size in bytes.

        Raises `JobFailed` with code superseded (by a newer start of the trainer), storage_full, storage_unavailable;
        `TypeError` or `ValueError` for tensors that cannot be stored. The checkpoints there before stay as they were.
        """
        version = Version(checkpoint.step, checkpoint.generation)
        temporary = f"{self._folder}/tmp-{version.name}-{secrets.token_hex(4)}"
        room = partial(self._room, checkpoint)
        with storage_failure(f"write the checkpoint of step {checkpoint.step}", self._place, room):
            try:
                size_bytes = self._write_files(temporary, checkpoint)
                self._fence(version)
                self._swap(temporary, version)
            except BaseException as error:
                with contextlib.suppress(OSError):  # the first error is the one to report
                    self._storage.delete(temporary)
                if isinstance(error, FileNotFoundError):
                    self._fence(version)  # a newer start removes what this one was writing
                raise
        return size_bytes

    def _room(self, checkpoint: Checkpoint) -> str:
        needed = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        return ", ".join(filter(None, [f"it takes {byte_size(needed)}", self._storage.room]))

    def read(self, step: int, groups: Collection[str] | None = None) -> Checkpoint:
        """Reads the newest checkpoint of a step and verifies every hash; the arrays are new and own their memory.

        With `groups`, only tensors whose names begin with one of these words. Raises `JobFailed` with code
        checkpoint_damaged (also if there is none) or storage_unavailable.
        """
        return self._read(self._newest(step), groups)

    def _read(self, version: Version, groups: Collection[str] | None = None) -> Checkpoint:
        manifest = self._manifest(version)
        tensors: dict[str, Array] = {}
        with storage_failure(f"read the checkpoint of step {version.step}", self._place):
            for file, entry in manifest.files.items():
                if groups is None or file.partition(".")[0] in groups:
                    tensors |= self._read_file(version, file, entry, manifest)
        wanted = [name for name in manifest.tensors if groups is None or _group(name) in groups]
        if missing := set(wanted) - tensors.keys():
            raise self._damaged(version, MANIFEST, f"it names {min(missing)}, which no file holds")
        return Checkpoint(
            step=manifest.step,
            generation=manifest.generation,
            spec_digest=manifest.spec_digest,
            fingerprint=manifest.fingerprint,
            metrics=manifest.metrics,
            totals={_key(name): tensor for name, tensor in tensors.items() if _group(name) == TOTALS},
            tensors={name: tensors[name] for name in wanted if _group(name) != TOTALS},
        )

    def manifest(self, step: int) -> Manifest:
        """What the manifest of the step's newest checkpoint says; the tensors are not looked at. Raises as `read`."""
        return self._manifest(self._newest(step))

    def _manifest(self, version: Version) -> Manifest:
        with storage_failure(f"read the checkpoint of step {version.step}", self._place):
            try:
                manifest = parse_manifest(self._storage.read(f"{self._folder}/{version.name}/{MANIFEST}"))
            except (FileNotFoundError, ValueError) as error:
                raise self._damaged(version, MANIFEST, str(error)) from error
        if manifest.step != version.step or version.generation not in (0, manifest.generation):
            what = f"it is that of step {manifest.step}, written by start {manifest.generation}"
            raise self._damaged(version, MANIFEST, what)
        return manifest

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; whether each is whole is not looked at."""
        return sorted({version.step for version in self._versions()})

    def _versions(self) -> list[Version]:
        """All checkpoints, ascending by step, then by the start that wrote them."""
        with storage_failure("list the checkpoints", self._place):
            names = self._storage.names(self._folder)
        return sorted(Version(int(match[1]), int(match[2] or 0)) for name in names if (match := _NAME.fullmatch(name)))

    def _newest(self, step: int) -> Version:
        """The step's last version, or one that is not there."""
        return max((version for version in self._versions() if version.step == step), default=Version(step, 0))

    def latest(self) -> int | None:
        """The last step that has a checkpoint."""
        return max(self.steps(), default=None)

    def best(self, monitor: str, mode: Mode) -> int | None:
        """The step whose checkpoint has the best finite value of a metric; None where none has."""
        return best_step(self._entries(monitor), mode)

    def restore_latest(self) -> Restored:
        """Reads the newest checkpoint that is whole; called once, when a trainer starts.

        A damaged one gets another name (damaged-step-…), so that it counts no more and can still be looked at, and what
        broken writes left is removed. Raises `JobFailed` with code storage_unavailable.
        """
        self._sweep()
        warnings: list[str] = []
        for version in reversed(self._versions()):
            try:
                return Restored(checkpoint=self._read(version), warnings=tuple(warnings))
            except JobFailed as error:
                if error.code != "checkpoint_damaged":
                    raise
                warnings.append(error.message)
                with storage_failure(f"set the damaged checkpoint of step {version.step} aside", self._place):
                    self._storage.rename(f"{self._folder}/{version.name}", f"{self._folder}/damaged-{version.name}")
        return Restored(checkpoint=None, warnings=tuple(warnings))

    def prune(self, *, generation: int, keep: int, monitor: str, mode: Mode, best: int | None = None) -> list[int]:
        """Removes all but the last `keep` checkpoints and the best, by `monitor` and as told; returns what it removed.

        Of a step that stays, what older starts have written goes as well. What a newer start than `generation` has
        written always stays. Raises `JobFailed` with code superseded or storage_unavailable.
        """
        versions = self._versions()
        newest = {version.step: version for version in versions}
        surplus = to_delete(self._entries(monitor), keep, mode, best)
        gone = [version for version in versions if version.step in surplus or version != newest[version.step]]
        gone = [version for version in gone if version.generation <= generation]
        if gone:
            Fence(self._storage, self._job_id, generation).check()
        for version in gone:
            with storage_failure(f"remove the checkpoint of step {version.step}", self._place):
                self._remove(version)
        left = set(versions) - set(gone)
        return [step for step in surplus if all(version.step != step for version in left)]

    def _entries(self, monitor: str) -> list[Entry]:
        return [Entry(step=step, value=self._value(step, monitor)) for step in self.steps()]

    def _value(self, step: int, monitor: str) -> float | None:
        try:
            return self.manifest(step).metrics.get(monitor)
        except JobFailed as error:
            if error.code != "checkpoint_damaged":
                raise
            return None

    def _write_files(self, temporary: str, checkpoint: Checkpoint) -> int:
        files: dict[str, FileEntry] = {}
        entries: dict[str, TensorEntry] = {}
        for group, tensors in _grouped(checkpoint).items():
            file = f"{group}.safetensors"
            with self._storage.writing(f"{temporary}/{file}") as out:
                found = write_tensors(out, tensors)
                self._sync_file(out)
            files[file] = FileEntry(size_bytes=found.size_bytes, digest=found.digest)
            entries |= {name: _entry(file, name, tensor, found) for name, tensor in tensors.items()}
        manifest = _manifest(checkpoint, entries, files)
        with self._storage.writing(f"{temporary}/{MANIFEST}") as out:
            out.write(manifest.to_json())
            self._sync_file(out)
        self._sync_folder(temporary)
        return manifest.size_bytes

    def _fence(self, version: Version) -> None:
        """Raises unless this start of the trainer may put its checkpoint in its place."""
        there = self._newest(version.step).generation
        if there > version.generation:
            raise superseded(self._job_id, version.generation, there)
        Fence(self._storage, self._job_id, version.generation).check()

    def _swap(self, temporary: str, version: Version) -> None:
        final = f"{self._folder}/{version.name}"
        old = f"{self._folder}/old-{version.name}"
        is_there = self._storage.exists(final)
        if is_there:
            # Aside first: a crash while it is being removed would leave neither. `_sweep` brings it back.
            self._storage.rename(final, old)
        self._storage.rename(temporary, final)
        self._sync_folder(self._folder)
        if is_there:
            self._storage.delete(old)

    def _remove(self, version: Version) -> None:
        name = f"{self._folder}/{version.name}"
        if self._storage.is_local:
            # One rename, so that a crash leaves no half checkpoint. Elsewhere a rename is a copy of all bytes.
            gone = f"{self._folder}/tmp-{version.name}-{secrets.token_hex(4)}"
            self._storage.rename(name, gone)
            name = gone
        self._storage.delete(name)

    def _sweep(self) -> None:
        """Removes temporary folders, and brings back a checkpoint that lost its name to one that never came."""
        with storage_failure("remove what broken writes left", self._place):
            names = self._storage.names(self._folder)
            for name in names:
                before = name.removeprefix("old-")
                if name.startswith("tmp-") or (before != name and before in names):
                    self._storage.delete(f"{self._folder}/{name}")
                elif before != name:
                    self._storage.rename(f"{self._folder}/{name}", f"{self._folder}/{before}")

    def _read_file(self, version: Version, file: str, entry: FileEntry, manifest: Manifest) -> dict[str, Array]:
        name = f"{self._folder}/{version.name}/{file}"
        try:
            size_bytes = self._storage.size_bytes(name)
            if size_bytes != entry.size_bytes:
                raise DamagedFile(f"it has {size_bytes} bytes, not {entry.size_bytes}")
            with self._storage.open(name) as source:
                tensors, found = read_tensors(source, size_bytes)
            if manifest.format_version == 1:
                found = replace(found, digest=self._storage.sha256(name))
            _compare(file, tensors, found, manifest)
        except (FileNotFoundError, DamagedFile) as error:
            raise self._damaged(version, file, str(error)) from error
        return tensors

    def _damaged(self, version: Version, file: str, what: str) -> JobFailed:
        message = f"the checkpoint of step {version.step} is damaged: {self._place}/{version.name}/{file}: {what}"
        return JobFailed(
            f"{message}; restore the file from a copy, or go on from the checkpoint before", code="checkpoint_damaged"
        )

    def _sync_file(self, file: IO[bytes]) -> None:
        if self._storage.is_local:
            file.flush()
            os.fsync(file.fileno())

    def _sync_folder(self, name: str) -> None:
        if self._storage.is_local:
            _fsync_folder(self._storage.local_path(name))


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _group(name: str) -> str:
    """The file that a tensor goes to: the first part of its name, where that makes a file name."""
    first, slash, _ = name.partition("/")
    return first if slash and _GROUP.fullmatch(first) else "tensors"


def _key(name: str) -> str:
    return name.removeprefix(f"{TOTALS}/")


def _grouped(checkpoint: Checkpoint) -> dict[str, dict[str, Array]]:
    groups: dict[str, dict[str, Array]] = {}
    for name, tensor in checkpoint.tensors.items():
        if _group(name) == TOTALS:
            raise ValueError(f"tensor {name}: totals go into Checkpoint.totals; take another name")
        groups.setdefault(_group(name), {})[name] = tensor
    totals = {f"{TOTALS}/{name}": np.asarray(total, np.float64) for name, total in checkpoint.totals.items()}
    return groups | ({TOTALS: totals} if totals else {})


def _entry(file: str, name: str, tensor: Array, found: FileHash) -> TensorEntry:
    return TensorEntry(file=file, dtype=dtype_code(name, tensor), shape=tensor.shape, sha256=found.tensors[name])


def _manifest(checkpoint: Checkpoint, tensors: dict[str, TensorEntry], files: dict[str, FileEntry]) -> Manifest:
    return Manifest(
        step=checkpoint.step,
        generation=checkpoint.generation,
        spec_digest=checkpoint.spec_digest,
        fingerprint=dict(checkpoint.fingerprint),
        metrics={name: float(value) for name, value in checkpoint.metrics.items()},
        tensors=tensors,
        files=files,
    )


def _compare(file: str, tensors: Mapping[str, Array], found: FileHash, manifest: Manifest) -> None:
    """Raises `DamagedFile` unless the file holds exactly what the manifest says."""
    wanted = {name: entry for name, entry in manifest.tensors.items() if entry.file == file}
    if tensors.keys() != wanted.keys():
        raise DamagedFile(f"it holds {len(tensors)} tensors, not the {len(wanted)} that the manifest names")
    for name, tensor in tensors.items():
        if _entry(file, name, tensor, found) != wanted[name]:
            raise DamagedFile(f"tensor {name} has other bytes, shape or dtype than the manifest says")
    if found.digest != manifest.files[file].digest:
        raise DamagedFile("its digest is not that of the manifest")
