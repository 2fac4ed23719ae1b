"""A checkpoint's manifest: what it holds, and the hash of every part of it.

Format version 2 has a file's digest, as `tensor_file` defines it; version 1, which is still read, had the SHA-256 of
the whole file, for which every byte had to be hashed twice.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gradwire.errors import JobFailed

FORMAT_VERSION: Final = 2

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    # Metrics may be NaN or infinite, which JSON has no numbers for.
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, ser_json_inf_nan="strings"
    )


class TensorEntry(_Part):
    """One tensor: the file it is in, its safetensors data type, its shape and the hash of its bytes."""

    file: str
    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    sha256: Sha256


class FileEntry(_Part):
    """One file of the checkpoint."""

    size_bytes: Annotated[int, Field(ge=0)]
    digest: Annotated[Sha256, Field(validation_alias=AliasChoices("digest", "sha256"))]


class Manifest(_Part):
    """All that a checkpoint is but the tensors' bytes."""

    format_version: Literal[1, 2] = FORMAT_VERSION
    step: Annotated[int, Field(ge=0)]
    generation: Annotated[int, Field(ge=0)]
    spec_digest: str
    fingerprint: dict[str, str]
    metrics: dict[str, float]
    tensors: dict[str, TensorEntry]
    files: dict[str, FileEntry]

    @property
    def size_bytes(self) -> int:
        """The size of all files but the manifest."""
        return sum(entry.size_bytes for entry in self.files.values())

    def to_json(self) -> bytes:
        """JSON text, sealed with its own SHA-256."""
        content = json.loads(self.model_dump_json(by_alias=True))
        return json.dumps({**content, "sha256": _seal(content)}, indent=1).encode()


def parse_manifest(text: bytes) -> Manifest:
    """Reads what `Manifest.to_json` gave.

    Raises `ValueError` if it is not whole; `JobFailed` with code checkpoint_format if a newer server wrote it, since
    that is no damage.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("sha256", None) != _seal(content):
        raise ValueError("the manifest does not have the content that its own sha256 says")
    version = content.get("formatVersion")
    if isinstance(version, int) and version > FORMAT_VERSION:
        message = f"the checkpoint has format version {version}, this server reads up to version {FORMAT_VERSION}"
        raise JobFailed(f"{message}; run the server that wrote it, or a newer one", code="checkpoint_format")
    return Manifest.model_validate(content)


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
