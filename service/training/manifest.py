"""A checkpoint's manifest: what it holds, and the hash of every part of it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

FORMAT_VERSION: Final = 1

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
    sha256: Sha256


class Manifest(_Part):
    """All that a checkpoint is but the tensors' bytes."""

    format_version: Literal[1] = FORMAT_VERSION
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
    """Reads what `Manifest.to_json` gave; raises `ValueError` if it is not whole, or of another format version."""
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("sha256", None) != _seal(content):
        raise ValueError("the manifest does not have the content that its own sha256 says")
    if content.get("formatVersion") != FORMAT_VERSION:
        raise ValueError(f"format version {content.get('formatVersion')}; this server reads version {FORMAT_VERSION}")
    return Manifest.model_validate(content)


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
