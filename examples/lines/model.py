"""A recurrent network that reads a line of source code byte by byte and says what kind of line it is."""

from __future__ import annotations

import io
import sysconfig
import tokenize
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

BYTES = 128
"""Source code is ASCII; anything else counts as byte 1, and 0 is padding."""
CODE, COMMENT, TEXT = 0, 1, 2


def kinds_of(source: str) -> dict[int, int]:
    """The kind of every line that begins a token, or lies within a text of several lines, by line number from 1."""
    kinds: dict[int, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        first, last = token.start[0], token.end[0]
        if token.type == tokenize.COMMENT:
            kinds.setdefault(first, COMMENT)
        elif token.type == tokenize.STRING and last > first:
            kinds |= dict.fromkeys(range(first, last + 1), TEXT)
        elif token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            kinds.setdefault(first, CODE)
    return kinds


def rows(files: int = 40) -> dict[str, Any]:
    """Lines of the first modules of Python's standard library, without their indentation; each its own length."""
    lines, kinds = [], []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:files]:
        source = path.read_text(encoding="utf-8")
        text = source.splitlines()
        for number, kind in sorted(kinds_of(source).items()):
            letters = np.frombuffer(text[number - 1].strip().encode("ascii", "replace"), np.uint8).astype(np.int32)
            if letters.size:
                lines.append(np.where(letters < BYTES, letters, 1))
                kinds.append(kind)
    return {"line": lines, "kind": np.array(kinds, np.int32)}


def build(size: int = 32) -> keras.Model:
    line = keras.Input((None,), dtype="int32", name="line")
    value = layers.Embedding(BYTES, size, mask_zero=True, name="bytes")(line)
    value = layers.Bidirectional(layers.GRU(size, name="read"), name="both_ways")(value)
    return keras.Model(line, layers.Dense(3, name="kind")(value), name="lines")
