"""A specification's identity: two submissions with one digest ask for the same job."""

from __future__ import annotations

import hashlib
import json

from gradwire.spec.file_refs import with_file_refs
from gradwire.spec.job import JobSpec


def spec_digest(spec: JobSpec) -> str:
    """The SHA-256, in hexadecimal, over the specification as canonical JSON (UTF-8, sorted keys, no blanks).

    All of it counts but the labels of files, which are paths of the client that submitted it.
    """
    unlabelled = with_file_refs(spec, lambda _, file: file.model_copy(update={"label": ""}))
    document = unlabelled.model_dump(mode="json", by_alias=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
