"""Tells whoever started the service how its start goes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping


class Readiness:
    """Lines of JSON on a file descriptor, if there is one; a reader that has gone away is no error."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)  # a child that has it would keep the reader waiting

    def stage(self, text: str) -> None:
        """Says what goes on."""
        self._write({"stage": text})

    def ready(self, document: Mapping[str, str]) -> None:
        """Says where the service listens, and closes the descriptor."""
        self._write(document)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, document: Mapping[str, str]) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, json.dumps(document).encode() + b"\n")
